"The library keeps to its own rules: who imports what, and that all of it is explained."
import ast, subprocess, sys
from pathlib import Path

import pytest

LIBRARY = Path(__file__).parents[1] / "minigpt_course"
CHAIN = ["text", "bigram", "attention", "multihead", "block", "gpt", "train", "generate", "diagnose", "speed", "inside", "scale", "share", "cli"]
MODULES = sorted(path.stem for path in LIBRARY.glob("*.py") if not path.stem.startswith("_"))


def parsed(module: str) -> ast.Module:
    return ast.parse((LIBRARY / f"{module}.py").read_text(encoding="utf-8"))


def own_imports(module: str) -> set[str]:
    "The modules of this library that a module imports anywhere, also inside its functions."
    names = set()
    for node in ast.walk(parsed(module)):
        if isinstance(node, ast.Import): names |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            base = ".".join(filter(None, ["minigpt_course" if node.level else "", node.module]))
            names |= {f"{base}.{alias.name}" for alias in node.names}
    return {name.split(".")[1] for name in names if name.startswith("minigpt_course.")}


def test_the_model_needs_torch_and_nothing_heavier():
    heavy = "{'matplotlib', 'ipywidgets', 'transformers', 'pooch', 'IPython'}"
    code = f"import sys, minigpt_course.gpt; print(sorted({heavy} & set(sys.modules)), 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[] True\n"


@pytest.mark.parametrize("module", CHAIN)
def test_a_model_module_imports_only_modules_before_it(module):
    assert own_imports(module) <= set(CHAIN[: CHAIN.index(module)])


def test_the_imports_are_found():
    assert own_imports("block") == {"multihead"} and {"plot", "gpt", "train", "generate"} <= own_imports("widgets")


@pytest.mark.parametrize("module", MODULES)
def test_nothing_imports_the_checks(module):
    assert "checks" not in own_imports(module)


def test_plot_imports_no_module_of_the_library():
    assert not own_imports("plot")


@pytest.mark.parametrize("module", MODULES)
def test_nothing_imports_widgets(module):
    assert "widgets" not in own_imports(module)


@pytest.mark.parametrize("module", MODULES)
def test_every_public_function_and_class_has_a_docstring(module):
    public = [node for node in parsed(module).body if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_")]
    assert public and [node.name for node in public if not ast.get_docstring(node)] == []
