"""The course's site as it is built: no link leads nowhere, every picture is described, and in a
real browser nothing is complained of and nothing is asked of a network.
"""
import ast
import base64
import hashlib
import html
import os
import re
import subprocess
import sys
import threading
from functools import cache, partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import pytest
from filelock import FileLock

from minigpt_course.gpt import GPTConfig, parameter_ledger
from minigpt_course.saved import published

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tools"))

import live  # noqa: E402
import website  # noqa: E402
from api_pages import module_page  # noqa: E402


@pytest.fixture(scope="session")
def site(tmp_path_factory) -> Path:
    "The site, built once, also when several processes share the tests."
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ: shared = shared.parent
    folder = shared / "site"
    with FileLock(f"{folder}.lock"):
        if not (folder / "index.html").exists():
            build = [sys.executable, ROOT / "tools" / "website.py", folder]
            done = subprocess.run(build, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="session")
def pages(site) -> dict[str, str]:
    "Each page's text by its name."
    return {path.relative_to(site).as_posix(): path.read_text(encoding="utf-8")
            for path in site.rglob("*.html")}


def test_there_is_a_page_for_each_notebook_module_and_model(pages):
    notebooks = {website.page_of(path).replace(".ipynb", ".html")
                 for path in website.NBS.rglob("*.ipynb")}
    modules = {f"api/{name}.html" for name in website.library()}
    assert notebooks | modules | {page for page, _ in website.models()} <= pages.keys()
    assert all(page in pages["index.html"] for page, _ in website.models())


def test_each_model_is_on_its_own_page(pages):
    for name, about in published().items():
        size = sum(parameter_ledger(GPTConfig(**about["config"])).values())
        facts = f'id="facts">{size:,} parameters · corpus {about["notes"]["corpus"]} ·'
        assert facts in pages[website.page_of_model(name)]


def test_no_link_leads_nowhere(site, pages):
    anchors = {name: {*re.findall(r'\bid="([^"]+)"', page)} for name, page in pages.items()}
    lost = []
    for name, page in pages.items():
        for link in re.findall(r'\b(?:href|src)="([^"]+)"', page):
            if re.match(r"https?:|data:|mailto:", link): continue
            path, _, anchor = unquote(html.unescape(link)).partition("#")
            goal = (site / name).parent / path.split("?")[0] if path else site / name
            known = anchors.get(goal.resolve().relative_to(site.resolve()).as_posix())
            if not goal.is_file() or anchor and known is not None and anchor not in known:
                lost.append((name, link))
    assert lost == []


def test_every_picture_is_described(pages):
    tags = [(name, tag) for name, page in pages.items() for tag in re.findall("<img[^>]*>", page)]
    assert len(tags) > 80
    assert [(name, tag) for name, tag in tags if not re.search(r'\balt="[^"]{10,}"', tag)] == []


def test_every_page_says_first_what_it_may_load(pages):
    for name, page in pages.items():
        policies = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
        assert len(policies) == 1 and policies[0].startswith("default-src 'none';"), name
        scripts = re.search(r"script-src ([^;]*)", policies[0])[1]
        assert "unsafe" not in scripts and "http" not in policies[0], name
        assert page.index("Content-Security-Policy") < page.index("<script"), name
        assert not re.search(r"<[^>]+\son\w+=", page), name


def test_the_plumbing_does_not_show(pages):
    for name in (name for name in pages if re.match(r"\d\d_|appendix/", name)):
        assert not re.search(r"#\| ?(export|hide|default_exp|echo|alt|fig-alt)", pages[name]), name
        assert "%pip" not in pages[name], name


def test_formulas_are_mathml_and_diffs_and_solutions_have_colours(pages):
    chapters = {name: page for name, page in pages.items() if name[0].isdigit()}
    assert sum(page.count("<math") for page in chapters.values()) > 50
    assert not any(re.search(r"\$\\|\\frac", page) for page in chapters.values())
    assert all("highlight-diff" in chapters[f"{name}.html"] for name in ("04_multihead", "06_gpt"))
    for page in chapters.values():
        solutions = re.findall("<summary>A solution</summary>(.*?)</details>", page, re.DOTALL)
        assert len(solutions) > 2 or "14 ·" in page
        assert any('class="highlight-python' in solution for solution in solutions)


def test_every_term_has_its_place_and_its_chapter_leads_there(pages):
    terms = set(re.findall(r'id="(term-[^"]+)"', pages["glossary.html"]))
    linked = [set(re.findall(r"glossary\.html#(term-[^\"]+)", page))
              for name, page in pages.items() if name[0].isdigit()]
    assert len(terms) > 100 and set.union(*linked) == terms


def test_the_library_s_pages_show_what_stands_behind_each_parameter(pages):
    page = re.sub(r"<[^>]+>", "", html.unescape(pages["api/generate.html"]))
    assert "temperature: divides the logits; 0 is greedy" in page
    assert "returns: (V,) probabilities that sum to 1" in page
    for name, path in website.library().items():
        functions = [node.name for node in ast.parse(path.read_text(encoding="utf-8")).body
                     if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")]
        missing = [function for function in functions
                   if f'id="minigpt_course.{name}.{function}"' not in pages[f"api/{name}.html"]]
        assert missing == []


SOURCE = '''MOST = 3  # of them
class Cup:
    "Holds tea."
    size: int = 1  # in litres
    def fill(self, tea: str, *, hot: bool = True) -> None: "Fill it."  # at once
def pour(
    cup: Cup,  # from which
    into: str,
) -> int:  # drops
    "Pour."
'''


def test_a_module_s_page_is_read_from_its_source(tmp_path):
    (tmp_path / "tea.py").write_text(SOURCE)
    page = module_page(tmp_path / "tea.py", "tea", "a notebook", "All of it.")
    assert "{py:class} Cup(size: int = 1)" in page and "- `size`: in litres" in page
    assert "{py:method} fill(tea: str, *, hot: bool=True) -> None" in page
    assert "- `cup`: from which\n- returns: drops\n" in page and "{py:data} MOST" in page


def test_a_script_in_a_page_is_allowed_by_its_hash():
    page = website.with_policy('<meta charset="utf-8"><script>let a = 1</script>')
    digest = base64.b64encode(hashlib.sha256(b"let a = 1").digest()).decode()
    assert f"script-src 'self' 'sha256-{digest}';" in page and "blob:" not in page
    assert website.with_policy(page) == page


@cache
def server(folder: Path) -> str:
    "Serves a folder, as a visitor would get it; its address."
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_): pass
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder))
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{httpd.server_port}"


@pytest.fixture
def visit(site, browser):
    "Opens a page on a phone; at the end no page has complained or asked for something elsewhere."
    context = browser.new_context(viewport={"width": 390, "height": 844})
    tab, complaints, homes = context.new_page(), [], ("data:", "blob:", site.as_uri(), server(site))
    tab.on("console", lambda message: complaints.append((tab.url, message.text))
           if message.type in ("error", "warning") else None)
    tab.on("pageerror", lambda error: complaints.append((tab.url, str(error))))
    tab.on("request", lambda asked: complaints.append((tab.url, asked.url))
           if not asked.url.startswith(homes) else None)

    def go(home: str, page: str):
        tab.goto(f"{home}/{page}")
        assert tab.evaluate("document.documentElement.scrollWidth") <= 390, page
        return tab
    yield go
    assert complaints == []
    context.close()


@pytest.mark.parametrize("scheme", ["file", "http"])
def test_pages_open_without_complaint_and_fit_a_phone(site, visit, scheme):
    home = site.as_uri() if scheme == "file" else server(site)
    for page in ("index.html", "api/generate.html", "glossary.html#term-causal-mask"):
        visit(home, page)
    formula = visit(home, "02_bigram.html").locator("div.math math").first
    assert formula.bounding_box()["height"] > 30
    found = visit(home, "search.html?q=causal+mask").locator("#search-results li a")
    found.filter(has_text="Glossary > causal mask").click()
    visit(home, "laptop.html").wait_for_selector("html[data-ready]")


def test_controls_are_live(site, visit):
    stems = [stem for stem, (_, name) in website.LIVE.items() if name in live.MAKERS]
    for stem in stems:
        tab = visit(site.as_uri(), f"{stem}.html")
        tab.wait_for_selector("[data-live][data-ready]")
        assert tab.locator("[data-live]:not([data-ready])").count() == 0
    assert len(stems) == len(website.LIVE)


def test_colours_are_chosen_by_the_reader(site, visit):
    tab, seen = visit(site.as_uri(), "04_multihead.html"), set()
    for _ in range(3):
        tab.locator(".theme-toggle:visible").click()
        seen.add(tab.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert len(seen) == 2
