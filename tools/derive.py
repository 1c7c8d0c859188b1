"""Everything that is derived: `export` makes the library, `readme` README.md, `kaggle` the Kaggle
notebook; `clean` tidies the stored notebooks; `check` tells what is stale."""
import json
import re
import shutil
import subprocess
import sys
import tempfile
from configparser import ConfigParser
from pathlib import Path

import nbformat
from nbconvert import MarkdownExporter
from traitlets.config import Config

from kaggle_notebook import assemble, needed, roots_of

ROOT = Path(__file__).resolve().parents[1]
MAIN = '''\"\"\"What `minigpt` and `python -m minigpt_course` run.\"\"\"
import os
import signal
import sys


def interrupted(number, frame) -> None:
    "Ctrl-C where there is nothing to save, for example while the library is being imported."
    os.write(2, b"minigpt: interrupted\\n")
    os._exit(130)


def main() -> None:
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        signal.signal(signal.SIGINT, interrupted)  # a training sets its own meanwhile
    from minigpt_course.cli import main as command
    sys.exit(command())


if __name__ == "__main__": main()
'''
ON_KAGGLE = {"accelerator": "nvidiaTeslaT4", "dataSources": [], "isGpuEnabled": True,
             "isInternetEnabled": True, "language": "python", "sourceType": "notebook"}
INSTALL = '''#| hide
from importlib.util import find_spec
from pathlib import Path

if not all(map(find_spec, {modules})):
    if Path("{folder}/settings.ini").exists():
        %pip install -q "{folder}{extra}"
    else:
        {elsewhere}'''
ASK = '''raise ModuleNotFoundError("open this notebook in the course's folder, "
                                  "or run `pip install {extra}` in that folder first")'''


def home(root: Path) -> str:
    "The project's address, the setting `home`; empty while there is none."
    settings = ConfigParser()
    settings.read(root / "settings.ini", encoding="utf-8")
    return settings["DEFAULT"]["home"]


def linked(text: str, address: str) -> str:
    "A link `[words](home)` leads to the address; while there is none only its words stay."
    return re.sub(r"\[([^\]]+)\]\(home\)", rf"[\1]({address})" if address else r"\1", text)


def install_cell(depth: int, share: bool, address: str) -> str:
    "The cell that installs the course where it is missing: from the folder, else from the address."
    modules = ["minigpt_course", "transformers"] if share else ["minigpt_course"]
    extra = "[share]" if share else ""
    elsewhere = ASK.format(extra=f"'.{extra}'" if share else ".")
    if address:
        elsewhere = f'%pip install -q "minigpt_course{extra} @ git+{address}"'
    folder = "/".join([".."] * depth)
    return INSTALL.format(
        modules=json.dumps(modules), folder=folder, extra=extra, elsewhere=elsewhere
    )


def install(root: Path) -> None:
    "Write the install cell anew in every notebook that has one: a hidden cell with `%pip install`."
    for path in sorted((root / "nbs").rglob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        depth = len(path.relative_to(root).parents) - 1
        for cell in notebook.cells:
            if cell.cell_type == "code" and "%pip install" in cell.source:
                cell.source = install_cell(depth, "transformers" in cell.source, home(root))
                nbformat.write(notebook, path)


def plumbing(source: str) -> bool:
    "Whether a cell is of no interest to a reader: nbdev's, the installation, a module's imports."
    if re.match(r"#\| *(default_exp|hide)\b", source): return True
    lines = [line for line in source.splitlines() if line.strip()]
    starts = ("#", "import ", "from ", " ", ")")
    return source.startswith("#| export") and all(line.startswith(starts) for line in lines)


def fold(root: Path) -> None:
    "Fold the plumbing of every numbered notebook, and nothing else."
    for path in sorted((root / "nbs").glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        for cell in notebook.cells:
            hidden = cell.cell_type == "code" and plumbing(cell.source)
            cell.metadata = {"jupyter": {"source_hidden": True}} if hidden else {}
        nbformat.write(notebook, path)


def pictures(cell: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    "Those of a cell's stored outputs that are pictures."
    return [out for out in cell.get("outputs", []) if "image/png" in out.get("data", {})]


def describe(root: Path) -> None:
    "What a cell says of its picture in `#| fig-alt:` becomes the stored picture's alt text."
    for path in sorted((root / "nbs").rglob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        for cell in notebook.cells:
            words = re.search(r"^#\| fig-alt: (.+)$", cell.source, re.MULTILINE)
            for out in pictures(cell) if words else []:
                out.metadata.setdefault("image/png", {})["alt"] = words[1]
        nbformat.write(notebook, path)


def run(command: str, *arguments: str, at: Path) -> None:
    "Run a command of this environment."
    subprocess.run([Path(sys.executable).with_name(command), *arguments], cwd=at, check=True)


def clean(root: Path) -> None:
    """Write the install cells, fold the plumbing and describe the pictures; strip what a run leaves
    behind and a reader does not need."""
    install(root)
    fold(root)
    describe(root)
    run("nbdev_clean", "--fname", "nbs", at=root)


def export(root: Path) -> None:
    """Derive the library from nothing, so that a cell or a notebook that was removed leaves nothing
    behind; what is no Python (weights, the page) stays."""
    library = root / "minigpt_course"
    library.mkdir(exist_ok=True)
    for module in library.rglob("*.py"): module.unlink()
    (library / "__main__.py").write_text(MAIN)  # in a notebook it would run there
    run("nbdev_export", at=root)


def readme(root: Path) -> None:
    """Derive README.md and its pictures from the index notebook's stored outputs; cells marked
    `#| echo: false` show only what came out, `#| fig-alt:` describes a picture."""
    folder = root / "readme_files"
    shutil.rmtree(folder, ignore_errors=True)
    notebook = nbformat.read(root / "nbs" / "index.ipynb", as_version=4)
    notebook.metadata.language_info = {"name": "python"}  # so that code is coloured as code
    for cell in notebook.cells:
        if "#| echo: false" in cell.source.splitlines(): cell.metadata.tags = ["output only"]
    described = [out.metadata.get("image/png", {}).get("alt", "") for cell in notebook.cells
                 for out in pictures(cell)]
    remove = {"enabled": True, "remove_input_tags": {"output only"}}
    exporter = MarkdownExporter(config=Config(TagRemovePreprocessor=remove))
    body, resources = exporter.from_notebook_node(notebook)
    for name, data in resources["outputs"].items():
        folder.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)
        body = body.replace(f"]({name})", f"]({folder.name}/{name})")
    for words in described: body = body.replace("![png]", f"![{words}]", 1)
    body = re.sub(r"\]\(((?:appendix/)?\w+\.ipynb)\)", r"](nbs/\1)", body)  # its neighbours
    body = body.replace("](../", "](")  # and to the project's other folders
    body = re.sub(r"\n{3,}", "\n\n", body).strip() + "\n"
    (root / "README.md").write_text(body, encoding="utf-8")


def brought(root: Path, story: str) -> dict[str, str]:
    "What the Kaggle notebook brings, path to content: the modules it needs, the reference runs."
    from minigpt_course.reference import read_notes
    from minigpt_course.runs import LearningCurve
    library = root / "minigpt_course"
    paths = needed(roots_of(story, library), library)
    files = {path.relative_to(root).as_posix(): path.read_text(encoding="utf-8") for path in paths}
    references = []
    for path in sorted((root / "kaggle" / "reference").glob("*.csv")):
        validation = LearningCurve.from_csv(path).validation()
        notes = read_notes(path)
        references.append({"name": path.stem, "notes": notes, "validation": validation})
    return files | {"reference.json": json.dumps(references, indent=1)}


def kaggle(root: Path) -> None:
    "Derive the Kaggle notebook from its story and what it brings."
    folder = root / "kaggle"
    story = linked((folder / "story.md").read_text(encoding="utf-8"), home(root))
    notebook = assemble(story, brought(root, story))
    notebook["metadata"]["kaggle"] = ON_KAGGLE
    text = json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
    (folder / "minigpt.ipynb").write_text(text, encoding="utf-8")


def contents(path: Path, skip: tuple[str, ...]) -> dict[str, bytes]:
    "What is in a file, or in a folder's files by name; ends of lines as they are in git."
    files = [path] if path.is_file() else path.rglob("*")
    named = {file.relative_to(path): file for file in files if file.is_file()}
    kept = {name: file for name, file in named.items() if not set(skip) & set(name.parts)}
    read = {name.as_posix(): file.read_bytes() for name, file in kept.items()}
    return {name: data.replace(b"\r\n", b"\n") for name, data in read.items()}


def check() -> None:
    """Derive everything again in a copy and compare; exits naming what is stale and the command
    that mends it."""
    steps = {
        "nbs": (clean, "python tools/derive.py clean"),
        "minigpt_course": (export, "make export"),
        "README.md": (readme, "make readme"),
        "readme_files": (lambda root: None, "make readme"),
        "kaggle": (kaggle, "make kaggle"),
    }
    skip, stale = ("__pycache__", "runs", ".ipynb_checkpoints"), []
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "minigpt_course"
        folders = ".git", ".venv", "_course", "_alone*", "_reference", "_site"
        left_out = shutil.ignore_patterns(*folders, *skip)
        shutil.copytree(ROOT, copy, ignore=left_out)
        for path, (derive, mend) in steps.items():
            derive(copy)
            kept, made = contents(ROOT / path, skip), contents(copy / path, skip)
            names = kept.keys() | made.keys()
            changed = [name for name in names if kept.get(name) != made.get(name)]
            if changed:
                stale.append(f"{path} is stale: run {mend} (changed: {' '.join(sorted(changed))})")
    if stale: sys.exit("\n".join(stale))
    print("derived files are fresh, notebooks are clean")


COMMANDS = {"check": check, "clean": lambda: clean(ROOT), "export": lambda: export(ROOT),
            "readme": lambda: readme(ROOT), "kaggle": lambda: kaggle(ROOT)}

if __name__ == "__main__":
    if sys.argv[-1] not in COMMANDS: sys.exit(__doc__)
    COMMANDS[sys.argv[-1]]()
