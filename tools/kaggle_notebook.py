"""Assembles the Kaggle notebook: its story, and the files that it brings along."""
import ast
import re
from pathlib import Path

FOLDED = {"_kg_hide-input": True, "jupyter": {"source_hidden": True}}
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def imported(
    path: Path,  # of a module of the library
    library: Path,  # the library's folder
) -> set[Path]:  # of the library's modules that it names in an import, wherever that stands
    "The modules that a module needs, read without running it."
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
            names = [parts[1:] for parts in names if parts[0] == library.name]
        elif isinstance(node, ast.ImportFrom):
            base = (node.module or "").split(".") if node.module else []
            if node.level == 0 and base[:1] != [library.name]: continue
            base = base[1:] if node.level == 0 else base
            names = [[*base, alias.name] for alias in node.names]
        else: continue
        for parts in names:
            tries = [library.joinpath(*parts[:n]).with_suffix(".py") for n in (1, 2) if parts[:n]]
            found |= {file for file in tries if file.is_file()}
    return found


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


def roots_of(story: str, library: Path) -> list[str]:
    "The library's modules that the story's code imports, and the command that it starts."
    code = "\n".join(re.findall(r"^```python\n(.*?)^```$", story, flags=re.MULTILINE | re.DOTALL))
    names = set(re.findall(rf"from {library.name}\.(\w+) import", code))
    listed = re.findall(rf"from {library.name} import ([\w, ]+)", code)
    names |= {name.strip() for line in listed for name in line.split(",")}
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
    parts = re.split(r"^```python\n(.*?)^```$", story, flags=re.MULTILINE | re.DOTALL)
    for i, part in enumerate(parts):
        if i % 2 == 0: add("markdown", part.strip())
        elif part.strip() != "# files": add("code", part.strip())
        else:
            for path, content in files.items():
                add("code", f"%%writefile {path}\n{content.rstrip()}", FOLDED)
    about = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    return {"cells": cells, "metadata": about, "nbformat": 4, "nbformat_minor": 5}
