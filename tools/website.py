"""Builds the course's site into the ignored folder _site/, or the folder that is given: the
notebooks as they are stored, the library's reference, the glossary, each published model as a page,
and the live controls. It needs no network and executes no notebook."""
import base64
import hashlib
import html
import os
import re
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell

import live
from api_pages import module_page
from derive import ROOT, plumbing
from weights import PROMPTS

NBS, LIBRARY = ROOT / "nbs", ROOT / "minigpt_course"
# notebook: the function of widgets whose picture gives way to the live control of this name
LIVE = {
    "02_bigram": ("what_follows", "bigram"),
    "03_attention": ("attention_viewer", "attention"),
    "06_gpt": ("budget", "parameters"),
    "08_generate": ("sampling_controls", "sampling"),
    "09_diagnose": ("find_the_fault", "faults"),
    "11_inside": ("head_viewer", "attention"),
}
PROJECT = {  # file: its page
    "CONTRIBUTING.md": "project/contributing.md", "CHANGELOG.md": "project/changelog.md",
    "kaggle/README.md": "project/kaggle.md", "benchmarks/README.md": "project/benchmarks.md",
    "tests/mutations.md": "project/mutations.md",
} | {card.relative_to(ROOT).as_posix(): f"project/{card.parent.name}.md"  # published models' cards
     for card in sorted((ROOT / "minigpt_course" / "weights").glob("*/README.md"))}
LINK = re.compile(r"(\]\()([^)\s#]+)(#[^)\s]*)?\)")
ROW = re.compile(r"^\| ([^|]+) \| ([^|]+) \| \[\d\d\]\((\w+)\.ipynb\) \|$", re.MULTILINE)
POLICY = ("default-src 'none'; script-src 'self'{scripts}; style-src 'self' 'unsafe-inline'; "
          "img-src 'self' data:; font-src 'self'; form-action 'self'; base-uri 'none'")
IN_A_PAGE = "; worker-src blob:"  # of a model: its forward pass runs in a worker


def way(page: str, goal: str) -> str:
    "The relative address that leads from one page to another."
    return os.path.relpath(goal, Path(page).parent).replace(os.sep, "/")


@dataclass
class Stage:
    "The folder where the pages wait for Sphinx, and which file of the project is which page."
    folder: Path
    pages: dict[Path, str]

    def put(self, page: str, text: str) -> None:
        path = self.folder / page
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def linked(self, text: str, source: Path, page: str) -> str:
        "A page's text with links that lead to pages, or to a copy of what is no page."
        def replace(found: re.Match) -> str:
            before, target, anchor = found.groups()
            path = (source.parent / target).resolve()
            if not path.is_file(): return found[0]
            goal = self.pages.get(path) or self.copied(path)
            return f"{before}{way(page, goal)}{anchor or ''})"
        return LINK.sub(replace, text)

    def copied(self, path: Path) -> str:
        "Where a file lies that is only looked at or downloaded."
        goal = self.folder / "files" / path.relative_to(ROOT)
        goal.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, goal)
        return goal.relative_to(self.folder).as_posix()


def page_of(path: Path) -> str:
    "The page that a notebook becomes."
    return path.relative_to(NBS).as_posix()


def title_of(path: Path) -> tuple[str, str]:
    "A notebook's title, and the question or the sentence below it."
    first = nbformat.read(path, as_version=4).cells[0].source
    title, words = re.match(r"# (.+)\n+(?:> |\*\*)(.+)", first).groups()
    return title, words.strip("* ")


# a notebook's cells


def shown_source(source: str) -> str:
    "Code without nbdev's directives."
    return re.sub(r"^#\|.*\n?", "", source, flags=re.MULTILINE).strip("\n")


def described(cell: NotebookNode) -> str:
    "What a cell's pictures show, in words."
    said = re.findall(r"^#\| *fig-alt: *(.+)$", cell.source, re.MULTILINE)
    stored = [out.get("metadata", {}).get("image/png", {}).get("alt") for out in cell.outputs]
    return next(filter(None, [*said, *stored]), "")


def width_of(cell: NotebookNode) -> dict:
    "How wide a cell's pictures are shown: they are stored with twice as many pixels."
    stored = [out.get("metadata", {}).get("image/png", {}).get("width") for out in cell.outputs]
    widths = [width for width in stored if width]
    return {"width": f"{max(widths)}px"} if widths else {}


def control_of(stem: str, cell: NotebookNode) -> str | None:
    "The live control that stands for a cell's picture, if there is one."
    function, name = LIVE.get(stem, ("", ""))
    called = function and f"{function}(" in cell.source
    return name if called and name in live.MAKERS else None


def still(out: NotebookNode, words: str) -> str:
    "A stored output of a control as HTML."
    data = out.get("data", {})
    if "image/png" in data:
        source = f"data:image/png;base64,{data['image/png'].strip()}"
        width = out.metadata.get("image/png", {}).get("width", "auto")
        return f'<img alt="{html.escape(words)}" src="{source}" width="{width}">'
    return re.sub(r"\n\s*\n", "\n", data.get("text/html", ""))  # an empty line would end the HTML


def living(name: str, cell: NotebookNode) -> NotebookNode:
    "A live control, with what is stored of it for those without scripts."
    static = "".join(still(out, described(cell)) for out in cell.outputs)
    return new_markdown_cell(f'<div class="live" data-live="{name}"></div>\n'
                             f"<noscript>{static}</noscript>")


def prepared_code(stem: str, cell: NotebookNode) -> list[NotebookNode]:
    "A code cell as the site shows it: nothing, or the cell, or its code and a live control."
    if plumbing(cell.source):
        imports = shown_source(cell.source) if cell.source.startswith("#| export") else ""
        prompts = {f"code_prompt_{state}": "Imports" for state in ("show", "hide")}
        cell.metadata = {"tags": ["hide-input"], "mystnb": prompts}
        cell.source, cell.outputs = imports, []
        return [cell] if imports else []
    control = control_of(stem, cell)
    added = [living(control, cell)] if control else []
    cell.metadata = {"mystnb": {"image": {"alt": described(cell)} | width_of(cell)}}
    if control: cell.outputs = []
    output_only = "#| echo: false" in cell.source.splitlines()
    cell.source = shown_source(cell.source)
    if output_only or not cell.source: cell.metadata["tags"] = ["remove-input"]
    return [cell, *added]


def anchor_of(term: str) -> str:
    "Where a term stands in the glossary."
    return "term-" + re.sub(r"\W+", "-", term.lower()).strip("-")


def glossary_links(text: str, terms: set[str]) -> str:
    "Each term, where it is bold, leads to its place in the glossary."
    def replace(found: re.Match) -> str:
        words = " ".join(found[1].split())
        return f"[{found[0]}](#{anchor_of(words)})" if words.lower() in terms else found[0]
    return re.sub(r"\*\*([^*]+)\*\*", replace, text)


def module_links(text: str, page: str, modules: set[str]) -> str:
    "Each module of the library, where it is named, leads to its page."
    def replace(found: re.Match) -> str:
        goal = way(page, f"api/{found[1]}.md")
        return f"[{found[0]}]({goal})" if found[1] in modules else found[0]
    return re.sub(r"(?<!\[)`minigpt_course\.(\w+)`", replace, text)


# pages


def put_notebook(stage: Stage, path: Path, notebook: NotebookNode, terms: set[str]) -> None:
    "A notebook as a page."
    page, modules, cells = page_of(path), {*library()}, []
    for cell in notebook.cells:
        if cell.cell_type == "code":
            for out in cell.outputs:
                words = out.get("data", {}).get("text/markdown")
                if words: out.data["text/markdown"] = stage.linked(words, path, page)
            cells += prepared_code(path.stem, cell)
        else:
            text = stage.linked(glossary_links(cell.source, terms), path, page)
            cells.append(new_markdown_cell(module_links(text, page, modules)))
    if path.stem.startswith("checks_"): notebook.metadata |= {"nosearch": True, "orphan": True}
    notebook.cells = cells
    notebook.metadata.language_info = {"name": "python", "pygments_lexer": "ipython3"}
    stage.put(page, nbformat.writes(notebook))


def toctree(pages: list[str], caption: str = "") -> str:
    "Pages in the sidebar."
    head = [f":caption: {caption}"] if caption else []
    return "\n".join(["```{toctree}", ":hidden:", *head, "", *pages, "```"])


def first_screen(cells: list[NotebookNode], models: list[tuple[str, str]]) -> None:
    "The index's first words are followed by links to 01 and to the models; its glossary is a page."
    first_page = ("01_text.html", "Begin with 01")
    links = " ".join(f'<a href="{page}">{words}</a>' for page, words in [first_page, *models])
    first = next(at for at, cell in enumerate(cells) if cell.source.startswith("## "))
    cells.insert(first, new_markdown_cell(f'<p class="models">{links}</p>'))
    for cell in cells:
        if cell.source.startswith("## Glossary"):
            cell.source = "## Glossary\n\n[What the words mean, where each is met](glossary.md)."


def glossary(rows: list[tuple[str, str, str]]) -> str:
    "A page with a heading for each term, so that it has an anchor and the search finds it."
    lines = ["---", "hide-toc: true", "---", "# Glossary", ""]
    for term, meaning, stem in rows:
        title, _ = title_of(NBS / f"{stem}.ipynb")
        lines += [f"({anchor_of(term)})=", f"## {term}", "",
                  f"{meaning}. Met in [{title}]({stem}.ipynb).", ""]
    return "\n".join(lines)


def listed(entries: list[tuple[str, str, str]]) -> list[str]:
    "Pages as a list: name, file, what it is."
    return [f"- [{name}]({file}): {said}" for name, file, said in entries]


def put_list(stage: Stage, folder: str, head: list[str], entries: list[tuple], more=()) -> None:
    "A page that lists the pages of its folder, which are in the sidebar, too."
    tree = toctree([f"{name} <{Path(file).stem}>" for name, file, _ in entries])
    stage.put(f"{folder}/index.md", "\n".join([*head, "", *listed(entries), "", tree, "", *more]))


def put_appendix(stage: Stage, paths: list[Path]) -> None:
    "The page of the appendix; the checkers are on it, but not in the sidebar."
    entries = []
    for path in paths:
        title, words = title_of(path)
        entries.append((title.removeprefix("Appendix · ").lower(), path.name, words))
    checkers = [entry for entry in entries if entry[1].startswith("checks_")]
    head = ["# Appendix", "", "The rest of the library, one notebook a module, for those who want "
            "to see how."]
    more = ["## What checks the exercises", "", *listed(checkers)]
    put_list(stage, "appendix", head, [entry for entry in entries if entry not in checkers], more)


def put_reference(stage: Stage) -> None:
    "The library's reference: a page for each module, and their list."
    entries = []
    for name, path in library().items():
        source = re.search(r"File to edit: ([\w./]+\.ipynb)", path.read_text(encoding="utf-8"))[1]
        notebook = (path.parent / source).resolve()
        title, words = title_of(notebook)
        origin = f"[{title}](../{page_of(notebook)})"
        full = f"minigpt_course.{name}"
        stage.put(f"api/{name}.md", module_page(path, full, origin, words))
        entries.append((name, f"{name}.md", words))
    head = ["# Library", "", "What the notebooks export, module by module, read from its source."]
    put_list(stage, "api", head, entries)


def library() -> dict[str, Path]:
    "The library's modules, without the checkers, which give answers away."
    return {path.stem: path for path in sorted(LIBRARY.glob("*.py")) if path.stem[0] != "_"}


def stage_pages(folder: Path, models: list[tuple[str, str]]) -> None:
    "Write every page for Sphinx."
    chapters, appendix = sorted(NBS.glob("[0-9]*.ipynb")), sorted(NBS.glob("appendix/*.ipynb"))
    notebooks = [*chapters, *appendix, NBS / "index.ipynb"]
    projects = {ROOT / name: page for name, page in PROJECT.items()}
    stage = Stage(folder, {path: page_of(path) for path in notebooks} | projects)
    index = nbformat.read(NBS / "index.ipynb", as_version=4)
    rows = ROW.findall("\n".join(cell.source for cell in index.cells))
    terms = {term.lower() for term, _, _ in rows}
    first_screen(index.cells, models)
    trees = [toctree([path.stem for path in chapters], "The course"),
             toctree(["glossary", "api/index", "appendix/index"], "To look up"),
             toctree([Path(page).with_suffix("").as_posix() for page in PROJECT.values()],
                     "The project")]
    index.cells += map(new_markdown_cell, trees)
    put_notebook(stage, NBS / "index.ipynb", index, set())
    for path in [*chapters, *appendix]:
        put_notebook(stage, path, nbformat.read(path, as_version=4), terms)
    for path, page in projects.items():
        before = "---\nnosearch: true\n---\n" if path.parent.name == "tests" else ""
        stage.put(page, before + stage.linked(path.read_text(encoding="utf-8"), path, page))
    stage.put("glossary.md", glossary(rows))
    put_appendix(stage, appendix)
    put_reference(stage)


# after Sphinx


def page_of_model(name: str) -> str:
    "Where a published model is."
    return "laptop.html" if name == "pydocs" else f"{name}.html"


def models() -> list[tuple[str, str]]:
    "The page of each published model, and the words that lead there; the laptop model comes first."
    from minigpt_course.saved import published
    names = sorted(published(), key=lambda name: name != "pydocs")
    words = {"pydocs": "Try the laptop model in your browser"}
    return [(page_of_model(name), words.get(name, f"Try the model “{name}”")) for name in names]


def put_models(folder: Path) -> None:
    "Each published model as a page, with a link home."
    from minigpt_course.pages import to_page
    from minigpt_course.saved import notes_of, published
    from minigpt_course.share import load
    icon = '<link rel="icon" href="_static/favicon.svg">\n</head>'
    home = '<header>\n  <p><a href="index.html">MiniGPT course</a></p>'
    for name in published():
        path, prompt = folder / page_of_model(name), PROMPTS.get(name, "\n")
        to_page(*load(name), path, prompt=prompt, notes=notes_of(name))
        page = path.read_text(encoding="utf-8")
        page = page.replace("</head>", icon, 1).replace("<header>", home, 1)
        path.write_text(page, encoding="utf-8")


def policy(page: str) -> str:
    "What a page may load and run: its own scripts, those in it by their hashes."
    inline = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(code.encode()).digest()).decode() for code in inline]
    allowed = "".join(f" 'sha256-{digest}'" for digest in dict.fromkeys(digests))
    return POLICY.format(scripts=allowed) + (IN_A_PAGE if 'id="worker"' in page else "")


def with_policy(page: str) -> str:
    "A page that says first what it may load and run."
    page = re.sub(r'\n?<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
    tag = f'<meta http-equiv="Content-Security-Policy" content="{policy(page)}">'
    return re.sub(r'<meta charset="utf-8" ?/?>', lambda found: f"{found[0]}\n{tag}", page, count=1,
                  flags=re.IGNORECASE)


def with_controls(page: str, folder: Path) -> str:
    "A page with the scripts and the style of the live controls on it."
    names = dict.fromkeys(re.findall(r'data-live="(\w+)"', page))
    scripts = dict.fromkeys(script for name in names for script in live.scripts(name, folder))
    if not names: return page
    shutil.copy(live.LIVE / "live.css", folder)
    tags = ['<link rel="stylesheet" href="live/live.css">',
            *[f'<script defer src="live/{script}"></script>' for script in scripts]]
    return page.replace("</head>", "\n".join([*tags, "</head>"]), 1)


def finish(folder: Path) -> None:
    "The live controls' scripts, and on every page what it may load."
    for path in folder.rglob("*.html"):
        page = path.read_text(encoding="utf-8")
        path.write_text(with_policy(with_controls(page, folder / "live")), encoding="utf-8")


def made_by_sphinx(folder: Path, scratch: Path) -> None:
    "Make the pages; exits when Sphinx warns, of a link that leads nowhere for example."
    from sphinx.application import Sphinx
    stage_pages(scratch / "pages", models())
    context = {"html_context": {"models": models()}}
    sphinx = Sphinx(scratch / "pages", ROOT / "site", folder, scratch / "trees", "html", context,
                    status=None, parallel=2, warningiserror=True)
    sphinx.build()
    if sphinx.statuscode: sys.exit("the site has faults: Sphinx has named them above")
    for leftover in (".buildinfo", "objects.inv"): (folder / leftover).unlink(missing_ok=True)


def build(goal: Path) -> None:
    "Make the site; one that is there already is replaced once the new one is complete."
    if goal.exists() and not (goal / "searchindex.js").is_file():
        sys.exit(f"{goal} is there and is no site: name a folder that does not exist yet")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "site"
        made_by_sphinx(folder, Path(scratch))
        put_models(folder)
        finish(folder)
        if goal.exists(): shutil.rmtree(goal)
        shutil.move(folder, goal)


if __name__ == "__main__":
    started, goal = time.perf_counter(), Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "_site")
    build(goal)
    print(f"{len([*goal.rglob('*.html')])} pages in {time.perf_counter() - started:.0f} s: "
          f"open {goal / 'index.html'}")
