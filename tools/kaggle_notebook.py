"""Assembles the Kaggle notebook: its story, and the files that it brings along."""
import ast
import base64
import bz2
import json
import re
import textwrap
from pathlib import Path

FOLDED = {"_kg_hide-input": True, "jupyter": {"source_hidden": True}}
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
UNPACK = '''import base64
import bz2
import json
from pathlib import Path

PACKED = """
{packed}
"""
for path, content in json.loads(bz2.decompress(base64.b64decode(PACKED))).items():
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(content.encode())
'''


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


def unpacking(files: dict[str, str]) -> str:
    """Code that writes some files. They are packed by bzip2, which makes the same bytes of them
    everywhere, and stand there as letters and digits."""
    packed = base64.b64encode(bz2.compress(json.dumps(files).encode())).decode()
    return UNPACK.format(packed="\n".join(textwrap.wrap(packed, 100)))


def assemble(
    story: str,  # Markdown; what stands between ```python and ``` becomes a code cell,
    files: dict[str, str],  # path to content; a code cell that says "# files" writes them
) -> dict:  # a notebook, format 4.5
    "A notebook that brings its own files; cells that begin with `# folded` are folded."
    cells = []
    for i, part in enumerate(part.strip() for part in cells_of(story)):
        if not part: continue
        folded, kind = part.startswith("# folded"), "code" if i % 2 else "markdown"
        source = part.replace("# files\n", unpacking(files)) if i % 2 else part
        cell = {"cell_type": kind, "id": f"kaggle-{len(cells):03d}",
                "metadata": FOLDED if folded else {}, "source": source.splitlines(keepends=True)}
        cells.append(cell | ({"execution_count": None, "outputs": []} if kind == "code" else {}))
    about = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    return {"cells": cells, "metadata": about, "nbformat": 4, "nbformat_minor": 5}
