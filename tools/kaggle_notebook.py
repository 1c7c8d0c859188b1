"""Assembles the Kaggle notebook: its story, and the files that it brings along."""
import ast
import re
from pathlib import Path

FOLDED = {"_kg_hide-input": True, "jupyter": {"source_hidden": True}}
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def named(
    code: str,  # Python
    package: list[str],  # the folders of the library in which it stands, for relative imports
    library: Path,  # the library's folder
) -> set[Path]:  # of the library's modules that it names in an import, wherever that stands
    "The modules that some code needs, read without running it."
    names = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import): names += [alias.name.split(".") for alias in node.names]
        if not isinstance(node, ast.ImportFrom): continue
        above = [library.name, *package][: len(package) + 2 - node.level] if node.level else []
        base = [*above, *(node.module.split(".") if node.module else [])]
        names += [[*base, alias.name] for alias in node.names]
    inside = [parts[1:] for parts in names if parts[0] == library.name]
    tries = [library.joinpath(*parts[:n]) for parts in inside for n in range(1, len(parts) + 1)]
    files = [file for path in tries for file in (path.with_suffix(".py"), path / "__init__.py")]
    return {file for file in files if file.is_file()}


def imported(path: Path, library: Path) -> set[Path]:
    "The modules of the library that one of them names."
    package = [*path.relative_to(library).parent.parts]
    return named(path.read_text(encoding="utf-8"), package, library)


def needed(
    roots: list[str],  # the modules that a program names
    library: Path,
) -> list[Path]:  # in the order of their names
    "These modules and all that they import."
    waiting, found = [library / f"{name}.py" for name in roots], set()
    while waiting:
        path = waiting.pop()
        if path in found: continue
        found.add(path)
        waiting += imported(path, library)
    return sorted(found)


def cells_of(story: str) -> list[str]:
    "Words and code in turns, words first: what stands between ```python and ``` is code."
    return re.split(r"^```python\n(.*?)^```$", story, flags=re.MULTILINE | re.DOTALL)


def roots_of(story: str, library: Path) -> list[str]:
    "The library's modules that the story's code imports, and the command that it starts."
    paths = named("\n".join(cells_of(story)[1::2]), [], library)
    names = {path.relative_to(library).with_suffix("").as_posix() for path in paths}
    return sorted(names | {"__init__", "__main__"})


def assemble(
    story: str,  # Markdown; what stands between ```python and ``` becomes a code cell,
    files: dict[str, str],  # path to content; they stand where a code cell says "# files"
) -> dict:  # a notebook, format 4.5
    "A notebook that brings its own files along, each in a folded cell that writes itself to disk."
    cells = []
    def add(kind: str, source: str, metadata: dict = {}) -> None:
        if not source: return
        cell = {"cell_type": kind, "id": f"kaggle-{len(cells):03d}", "metadata": metadata,
                "source": source.splitlines(keepends=True)}
        cells.append(cell | ({"execution_count": None, "outputs": []} if kind == "code" else {}))
    for i, part in enumerate(cells_of(story)):
        if i % 2 == 0: add("markdown", part.strip())
        elif part.strip() != "# files": add("code", part.strip())
        else:
            for path, content in files.items():
                add("code", f"%%writefile {path}\n{content.rstrip()}", FOLDED)
    about = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    return {"cells": cells, "metadata": about, "nbformat": 4, "nbformat_minor": 5}
