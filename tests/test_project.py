"What is said about the project beside the notebooks: version, addresses, how to take part."
import json
import os
import re
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import nbformat
import pytest
import yaml

PROJECT = Path(__file__).parents[1]
sys.path.insert(0, str(PROJECT / "tools"))

import derive  # noqa: E402

SETTINGS = ConfigParser()
SETTINGS.read(PROJECT / "settings.ini", encoding="utf-8")
SETTINGS = SETTINGS["DEFAULT"]
COPIES = {".venv", ".git", "_course", "runs", "mine", ".ipynb_checkpoints", "build", "dist"}
OURS = r"minigpt-course\.github|github\.com/minigpt-course|@users\.noreply|git\+https?:"
OPENERS = r"colab\.research\.google\.com/github|kaggle\.com/kernels/welcome"


def read(name: str) -> str:
    return (PROJECT / name).read_text(encoding="utf-8")


def ours(pattern: str) -> list[Path]:
    "The project's own files that a pattern finds, without what a run or a build leaves behind."
    found = [path for path in PROJECT.rglob(pattern) if path.is_file()]
    return sorted(path for path in found if not COPIES & set(path.relative_to(PROJECT).parts))


def of_the_project(paths: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("path", paths, ids=lambda path: str(path.relative_to(PROJECT)))


NOTEBOOKS = ours("*.ipynb")
COURSE = [path for path in NOTEBOOKS if path.is_relative_to(PROJECT / "nbs")]
PAGES = [*ours("*.md"), *NOTEBOOKS]


def shown(path: Path) -> str:
    "What a reader sees or runs: all of a page; of a notebook all but the index's own code."
    if path.suffix != ".ipynb":
        return path.read_text(encoding="utf-8")
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    seen = [cell for cell in cells if not "".join(cell["source"]).startswith("#| echo: false")]
    texts = [out.get("data", {}).get("text/markdown", "") for cell in cells
             for out in cell.get("outputs", [])]
    return "\n".join("".join(text) for text in [*(cell["source"] for cell in seen), *texts])


# version and form


def test_the_citation_is_of_this_version_and_has_no_address_but_home():
    citation = yaml.safe_load(read("CITATION.cff"))
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert citation["cff-version"] == "1.2.0" and all(citation["authors"])
    assert str(citation["version"]) == SETTINGS["version"]
    assert citation["license"].lower() == SETTINGS["license"]
    assert citation.get("repository-code", "") == SETTINGS["home"] and "url" not in citation


def test_the_changelog_names_this_version():
    headings = re.findall(r"^## \[(.+?)\]", read("CHANGELOG.md"), re.MULTILINE)
    assert headings[0] == "Unreleased" and SETTINGS["version"] in headings


@of_the_project(sorted((PROJECT / ".github").rglob("*.yml")))
def test_what_the_public_site_reads_is_yaml_of_the_right_form(path):
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    form = {"workflows": {"name", "jobs"}, "ISSUE_TEMPLATE": {"name", "description", "body"}}
    if path.name != "config.yml":
        assert form[path.parent.name] <= content.keys()


def test_only_a_tag_that_is_the_version_is_published(tmp_path):
    steps = yaml.safe_load(read(".github/workflows/publish.yml"))["jobs"]["build"]["steps"]
    script = next(step["run"] for step in steps if step.get("shell") == "python")
    settings = f"[DEFAULT]\nversion = {SETTINGS['version']}\nhome = "
    for tag, home, code in [("", "", 1), ("", "https://example.org", 0), (".1", "https://x", 1)]:
        (tmp_path / "settings.ini").write_text(settings + home)
        name = os.environ | {"GITHUB_REF_NAME": f"v{SETTINGS['version']}{tag}"}
        done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=name)
        assert done.returncode == code


# addresses


@pytest.mark.skipif(bool(SETTINGS["home"]), reason="home is set")
@of_the_project(PAGES)
def test_without_a_home_no_page_has_a_link_to_it_or_a_badge(path):
    assert re.findall(f"{OURS}|{OPENERS}", shown(path)) == []


@pytest.mark.skipif(bool(SETTINGS["home"]), reason="home is set")
@of_the_project(ours("minigpt_course/**/*.py"))
def test_without_a_home_no_module_has_its_address(path):
    assert re.findall(OURS, path.read_text(encoding="utf-8")) == []


def metadata(home: str, folder: Path) -> str:
    "What the wheel would say about itself, with this home."
    for name in "setup.py", "settings.ini", "README.md", "LICENSE":
        (folder / name).write_text(read(name), encoding="utf-8")
    settings = re.sub(r"(?m)^home =.*$", f"home = {home}", read("settings.ini"))
    (folder / "settings.ini").write_text(settings, encoding="utf-8")
    egg_info = [sys.executable, "setup.py", "-q", "egg_info"]
    subprocess.run(egg_info, cwd=folder, check=True, capture_output=True)
    return next(folder.glob("*.egg-info/PKG-INFO")).read_text(encoding="utf-8")


def test_without_a_home_the_metadata_has_no_address(tmp_path):
    said = metadata("", tmp_path)
    assert not re.search(r"^(Home-page|Project-URL|Author-email):", said, re.MULTILINE)
    assert not re.search(OURS, said) and not re.search(r"\]\((?!https?:|#)", said)


def test_with_a_home_the_metadata_and_its_links_lead_there(tmp_path):
    said = metadata("https://example.org/us", tmp_path)
    assert "Home-page: https://example.org/us\n" in said
    assert "](https://example.org/us/blob/main/nbs/01_text.ipynb)" in said


@of_the_project(COURSE)
def test_a_notebook_installs_from_the_folder_it_lies_in(path):
    cells = [cell.source for cell in nbformat.read(path, as_version=4).cells]
    installs = [source for source in cells if "%pip install" in source]
    depth = len(path.relative_to(PROJECT).parents) - 1
    for source in installs:
        share = "transformers" in source
        assert source == derive.install_cell(depth, share, SETTINGS["home"])
        assert f'"{"/".join([".."] * depth)}/settings.ini"' in source


def test_a_link_to_home_needs_a_home():
    text = "the [course](home), [a page](https://example.org)"
    assert derive.linked(text, "") == "the course, [a page](https://example.org)"
    assert derive.linked(text, "https://h").startswith("the [course](https://h), [a page]")


@of_the_project([path for path in PAGES if path.name != "CONTRIBUTING.md"])
def test_no_page_says_that_the_course_is_on_the_package_index(path):
    named = r"pip install (?:-\S+ )*['\"]?minigpt[-_]course(?!\S* @)"
    assert re.findall(named, shown(path)) == []


def test_the_readme_installs_the_torch_that_was_tested():
    pinned = re.findall(r"^torch==\S+", read("constraints.txt"), re.MULTILINE)
    assert re.findall(r"torch==[\w.+]+", read("README.md")) == pinned


# how to take part

CODE = re.findall(r"`([^`\n]+)`", re.sub(r"(?s)```.*?```", "", read("CONTRIBUTING.md")))
A_FILE = r"[\w.*-]+(/[\w.*-]*)+|[\w.*-]+\.\w{2,5}"
FILES = sorted({code for code in CODE if re.fullmatch(A_FILE, code)})
ALSO = {"NN_name.ipynb": "[0-9][0-9]_*.ipynb", "page/": "minigpt_course/page/",
        "weights/": "minigpt_course/weights/"}


def test_contributing_names_only_commands_that_make_knows():
    targets = set(re.findall(r"^([a-z]+):", read("Makefile"), re.MULTILINE))
    text = read("CONTRIBUTING.md")
    calls = re.findall(r"`make ([a-z ]+)`", text) + re.findall(r"(?m)^make ([a-z]+)", text)
    named = {target for call in calls for target in call.split()}
    assert named and named <= targets


@pytest.mark.parametrize("name", FILES)
def test_contributing_names_only_files_that_exist(name):
    pattern = ALSO.get(name, name).replace("NN", "[0-9][0-9]").rstrip("/")
    assert list(PROJECT.glob(pattern)) or list(PROJECT.glob(f"nbs/{pattern}"))
