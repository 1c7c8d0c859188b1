"The library keeps to its own rules: who imports what, and that all of it is explained."
import ast
import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LIBRARY = ROOT / "minigpt_course"
# each module may import those before it
CHAIN = """
core text corpus counted bigram results fast attention multihead block gpt optimizers devices runs
train cache generate probes diagnose speed inside anatomy gpt2 saved pages share reference scale cli
""".split()
BESIDE = {  # the modules that stand beside the chain, and what they may import
    "faults": {*CHAIN[: CHAIN.index("generate") + 1]},
    "llama": set(),
    "plot": set(),
    "proofs": {"block", "gpt"},
    "widgets": {*CHAIN, "faults", "plot"},
}
NOT_EXPORTED = {"__init__", "__main__", "_modidx"}  # made by nbdev or by tools/derive.py
MODULES = sorted(path.relative_to(LIBRARY).with_suffix("").as_posix()
                 for path in LIBRARY.rglob("*.py") if path.stem not in NOT_EXPORTED)
TOP = [module for module in MODULES if "/" not in module]
CHECKS = {module for module in MODULES if module.startswith("checks/")}
HEAVY = {"matplotlib", "ipywidgets", "transformers", "pooch", "IPython", "requests", "safetensors",
         "typer"}
NOTEBOOKS = sorted((ROOT / "nbs").rglob("*.ipynb"))


def parsed(module: str) -> ast.Module:
    return ast.parse((LIBRARY / f"{module}.py").read_text(encoding="utf-8"))


def imported(tree: ast.AST, package: str = "minigpt_course") -> set[str]:
    "Full names of all that a module imports anywhere, also inside its functions."
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import): names |= {alias.name for alias in node.names}
        if not isinstance(node, ast.ImportFrom): continue
        above = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
        base = ".".join([*above, *filter(None, [node.module])])
        names |= {f"{base}.{alias.name}" for alias in node.names}
    return names


def own_imports(module: str) -> set[str]:
    "The modules of this library that a module imports, a subpackage by its name alone."
    package = ".".join(["minigpt_course", *module.split("/")[:-1]])
    names = imported(parsed(module), package)
    modules = {name.split(".")[1] for name in names if name.startswith("minigpt_course.")}
    return modules - {"__version__"}


def at_import(module: str) -> set[str]:
    "The packages that are there as soon as a module is imported: not those inside its functions."
    tree = parsed(module)
    inside = [node for node in ast.walk(tree)
              if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    later = {id(found) for function in inside for found in ast.walk(function)}
    nodes = [node for node in ast.walk(tree) if id(node) not in later]
    at_once = [node for node in nodes if isinstance(node, (ast.Import, ast.ImportFrom))]
    names = {name for node in at_once if getattr(node, "level", 0) == 0 for name in imported(node)}
    return {name.split(".")[0] for name in names}


def closure(module: str) -> set[str]:
    "A module and all of the library's that it needs, directly or not."
    found, waiting = set(), [module]
    while waiting:
        name = waiting.pop()
        if name in found: continue
        found.add(name)
        waiting += own_imports(name)
    return found


def loaded_by(statement: str) -> set[str]:
    "The modules that a fresh Python has loaded after a statement."
    code = f"import sys\n{statement}\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_model_needs_torch_and_nothing_heavier():
    loaded = loaded_by("import minigpt_course.gpt")
    assert not HEAVY & loaded and "torch" in loaded
    ours = {name.split(".")[1] for name in loaded if name.startswith("minigpt_course.")}
    assert ours == closure("gpt") <= {*CHAIN[: CHAIN.index("gpt") + 1]}


def test_the_model_itself_asks_for_no_compressor_and_nothing_heavier():
    "PyTorch may load what it likes; of our own modules none that the model needs asks for these."
    asked = {name for module in closure("gpt") for name in at_import(module)}
    assert not asked & (HEAVY | {"lzma", "gzip", "bz2"})
    assert "matplotlib" in at_import("plot") and "IPython" not in at_import("plot")


def test_training_and_generating_need_no_pictures_and_no_network():
    loaded = loaded_by("import minigpt_course.train, minigpt_course.generate")
    assert not (HEAVY - {"safetensors"}) & loaded


def test_every_module_has_its_place():
    placed = {*CHAIN, *BESIDE}
    assert [module for module in TOP if module not in placed] == []
    assert [module for module in placed if module not in TOP and module != "exercises"] == []
    assert {module.split("/")[0] for module in MODULES if "/" in module} <= {"checks"}


@pytest.mark.parametrize("module", CHAIN)
def test_a_module_of_the_chain_imports_only_modules_before_it(module):
    assert own_imports(module) - {*CHAIN[: CHAIN.index(module)]} == set()


@pytest.mark.parametrize("module", [module for module in BESIDE if module in TOP])
def test_a_module_beside_the_chain_imports_what_it_may(module):
    assert own_imports(module) - BESIDE[module] == set()


@pytest.mark.parametrize("module", sorted(CHECKS))
def test_a_checker_imports_neither_pictures_nor_controls(module):
    assert own_imports(module) - {*CHAIN, "faults", "checks"} == set()


def test_the_imports_are_found():
    assert own_imports("block") == {"fast", "multihead"}
    assert {"plot", "gpt", "train", "generate"} <= own_imports("widgets")  # inside functions
    def found(code, package): return imported(ast.parse(code), package)
    assert found("from ..gpt import GPT", "minigpt_course.checks") == {"minigpt_course.gpt.GPT"}
    assert found("def f():\n from . import gpt", "minigpt_course") == {"minigpt_course.gpt"}


@pytest.mark.parametrize("module", MODULES)
def test_nothing_imports_widgets_and_nothing_outside_imports_the_checkers(module):
    assert "widgets" not in own_imports(module)
    assert module in CHECKS or not own_imports(module) & {"checks", "exercises"}


# where it comes from


def exporting() -> list[tuple[str, Path]]:
    "Module and notebook for each line that names where a notebook exports to."
    found = []
    for path in NOTEBOOKS:
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            if cell["cell_type"] != "code": continue
            names = re.findall(r"^#\| *default_exp +(\S+)", "".join(cell["source"]), re.MULTILINE)
            found += [(name.replace(".", "/"), path) for name in names]
    return found


def test_every_module_has_exactly_one_notebook_and_every_notebook_at_most_one_module():
    modules, notebooks = zip(*exporting())
    assert [module for module, count in Counter(modules).items() if count > 1] == []
    assert [path for path, count in Counter(notebooks).items() if count > 1] == []
    written = {module for module in MODULES if module != "checks/__init__"}
    assert sorted(modules) == sorted(written)


@pytest.mark.parametrize("module, path", exporting(), ids=[name for name, _ in exporting()])
def test_a_module_says_which_notebook_it_is_from_and_has_each_cell_once(module, path):
    text = (LIBRARY / f"{module}.py").read_text(encoding="utf-8")
    depth = "../" * (1 + module.count("/"))
    source = f"{depth}{path.relative_to(ROOT).as_posix()}"
    assert f"File to edit: {source}." in "\n".join(text.splitlines()[:3])
    cells = re.findall(r"^# %% (\S+) #(\S+)$", text, re.MULTILINE)
    cells = [(name, cell) for name, cell in cells if name != "auto"]
    assert {name for name, _ in cells} == {source}
    assert [cell for cell, count in Counter(cells).items() if count > 1] == []


@pytest.mark.parametrize("module", MODULES)
def test_every_public_function_and_class_has_a_docstring(module):
    defined = ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef
    nodes = [node for node in parsed(module).body if isinstance(node, defined)]
    public = [node for node in nodes if not node.name.startswith("_")]
    assert public or module.startswith("checks/")
    assert [node.name for node in public if not ast.get_docstring(node)] == []
