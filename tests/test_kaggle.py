"""The Kaggle notebook, run as Kaggle runs it: papermill, a processor, no network, inputs that are
read-only, a session that was cut off before. And how it is assembled."""
import ast
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import torch

from minigpt_course import devices
from minigpt_course.core import sha256
from minigpt_course.corpus import SHAKESPEARE_SHA256, load_corpus
from minigpt_course.devices import choose_device, native_precision
from minigpt_course.gpt import GPT, GPTConfig
from minigpt_course.reference import read_notes, run_notes
from minigpt_course.runs import LearningCurve, Run
from minigpt_course.train import TrainConfig, learning_rate_at, train

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tools"))

import derive
from kaggle_notebook import assemble, imported, named, needed, roots_of

LIBRARY = ROOT / "minigpt_course"
NOTEBOOK = ROOT / "kaggle" / "minigpt.ipynb"
STORY = (ROOT / "kaggle" / "story.md").read_text(encoding="utf-8")
LAYOUTS = pytest.mark.parametrize(
    "place", ["tiny-shakespeare/input.txt", "datasets/someone/plays/version 2/tinyshakespeare.txt"])
OFFLINE = {"https_proxy": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9",
           "HF_HUB_OFFLINE": "1"}  # nobody listens there
SHORT = {"steps": 30, "batch_size": 4, "eval_every": 15}  # the notebook's run without a GPU


def cells() -> list[str]:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


def brought() -> list[str]:
    "The files that the notebook writes."
    return [cell.split()[1] for cell in cells() if cell.startswith("%%writefile")]


@pytest.fixture
def shakespeare():
    "Tiny Shakespeare, or the test is left out."
    try: return load_corpus("shakespeare")
    except FileNotFoundError:
        pytest.skip("tiny Shakespeare cannot be had: name a folder that has it in MINIGPT_DATA")


@pytest.fixture
def kaggle(tmp_path) -> Path:
    "A machine laid out as Kaggle's: input, and working, which is where one is."
    for folder in "input", "working": (tmp_path / folder).mkdir()
    return tmp_path


def seal(folder: Path) -> None:
    "Nothing in the folder can be written any more."
    writing = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH
    for path in [folder, *folder.rglob("*")]: path.chmod(path.stat().st_mode & ~writing)


def defined(name: str, **names):
    "A function as a cell of the notebook defines it."
    cell = next(cell for cell in cells() if f"def {name}(" in cell)
    functions = [node for node in ast.parse(cell).body if isinstance(node, ast.FunctionDef)]
    for function in functions: exec(ast.unparse(function), names)
    return names[name]


# its text, its device


@LAYOUTS
def test_tiny_shakespeare_is_found_in_either_layout_and_under_any_name(kaggle, shakespeare, place):
    text, names = shakespeare.text, {"SHAKESPEARE_SHA256": SHAKESPEARE_SHA256, "sha256": sha256}
    for path, content in {"other/input.txt": "x" * len(text), place: text}.items():
        (kaggle / "input" / path).parent.mkdir(parents=True)
        (kaggle / "input" / path).write_text(content)
    find = defined("attached_shakespeare", inputs=kaggle / "input", **names)
    assert find() == kaggle / "input" / place


def test_the_manual_takes_its_place_when_there_is_neither_network_nor_dataset(kaggle):
    def offline(name): raise FileNotFoundError("no network")
    choose = defined("choose_corpus", inputs=kaggle / "input", load_corpus=offline)
    name, in_words = choose()
    assert name == "pydocs" and "neither attached nor within reach" in in_words


def test_a_gpu_that_cannot_compute_ends_the_run_with_one_sentence(monkeypatch):
    monkeypatch.setattr(devices.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(devices.torch.cuda, "get_device_name", lambda *_: "Tesla P100-PCIE-16GB")
    cell = next(cell for cell in cells() if cell.startswith("try: device = choose_device()"))
    complaint = "Tesla P100-PCIE-16GB cannot compute .* choose the accelerator GPU T4 x2"
    with pytest.raises(SystemExit, match=complaint): exec(cell, {"choose_device": choose_device})


def test_the_metadata_is_complete_and_its_slug_is_the_one_that_kaggle_makes_of_the_title():
    about = json.loads((ROOT / "kaggle" / "kernel-metadata.json").read_text())
    owner, slug = about["id"].split("/")
    assert slug == re.sub(r"[^a-z0-9]+", "-", about["title"].lower())
    assert len(about["title"]) >= 5 and owner
    assert (ROOT / "kaggle" / about["code_file"]) == NOTEBOOK
    assert (about["language"], about["kernel_type"]) == ("python", "notebook")
    assert about["machine_shape"] == "NvidiaTeslaT4"
    assert about["docker_image_pinning_type"] in ("original", "latest")
    switches = "is_private", "enable_gpu", "enable_tpu", "enable_internet"
    assert all(type(about[name]) is bool for name in switches)
    kinds = "dataset", "competition", "kernel", "model"
    assert all(type(about[f"{kind}_sources"]) is list for kind in kinds)


# how it is assembled


@pytest.fixture
def little(tmp_path) -> Path:
    "A library in which every kind of import occurs."
    library = tmp_path / "little"
    for name, code in {
        "__init__": "", "__main__": "from little.command import main",
        "command": "def main():\n    from .deep import thing\n    import little.full.name",
        "deep": "import os\nfrom . import beside, missing\nfrom torch import nn",
        "beside": "from little import (\n    several,\n    more as other,\n)",
        "several": "", "more": "try: import nowhere\nexcept ImportError: from .last import x",
        "last": "import little.last", "unused": "from .alone import x", "alone": "",
        "full/__init__": "from .name import x", "full/name": "from ..above import x",
        "full/unused": "", "above": "from .full import name", "torch": "", "name": "",
    }.items():
        path = library / f"{name}.py"
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(code)
    return library


def names(paths, library: Path) -> set[str]:
    return {path.relative_to(library).with_suffix("").as_posix() for path in paths}


def test_imports_of_every_kind_are_followed_and_nothing_else_comes_along(little):
    found = needed(["__init__", "__main__"], little)
    assert names(found, little) == {
        "__init__", "__main__", "command", "deep", "beside", "several", "more", "last",
        "full/__init__", "full/name", "above"}
    assert found == sorted(found)


@pytest.mark.parametrize("module, wanted", [
    ("command", {"deep", "full/__init__", "full/name"}),  # inside a function
    ("deep", {"beside"}),  # relative; what is missing, and what is another's, is passed over
    ("beside", {"several", "more"}),  # in brackets, under another name
    ("full/name", {"above"}),  # from the folder above, not the module beside it
    ("full/__init__", {"full/name", "full/__init__"}),  # of the two that are called so its own
    ("last", {"last"}),
])
def test_what_a_module_names(little, module, wanted):
    assert names(imported(little / f"{module}.py", little), little) - {"__init__"} == wanted


def test_words_that_only_look_like_an_import_are_none(little):
    assert named("# from little import unused\nsay = 'import little.unused'", [], little) == set()


def test_the_story_names_its_modules_in_its_code_and_not_in_its_words(little):
    story = ("Words.\n\nfrom little import unused\n\n"
             "```python\nfrom little.deep import thing\n```\nMore.\n"
             "```python\nimport little.several as s\n```\n"
             "```\nfrom little import alone\n```\n")
    assert roots_of(story, little) == ["__init__", "__main__", "deep", "several"]


def test_the_notebook_brings_what_it_needs_and_no_more():
    roots = {"bigram", "core", "corpus", "devices", "generate", "gpt", "gpt2", "plot", "reference",
             "runs", "share", "train"}
    assert {*roots_of(STORY, LIBRARY)} == roots | {"__init__", "__main__"}
    modules = {Path(name).stem for name in brought() if name.endswith(".py")}
    assert roots | {"cli", "optimizers", "text", "cache"} <= modules
    spared = {"widgets", "checks", "exercises", "inside", "diagnose", "faults", "probes", "scale"}
    assert not modules & (spared | {"_modidx"})
    assert not any("checks" in name for name in brought())


def test_the_library_that_it_brings_is_whole(tmp_path):
    "Its modules can all be imported where there is no other library."
    for cell in cells():
        if not cell.startswith("%%writefile"): continue
        first, content = cell.split("\n", 1)
        path = tmp_path / first.split()[1]
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
    modules = [Path(name).stem for name in brought() if name.endswith(".py")]
    lines = [f"import minigpt_course.{module}" for module in modules if module != "__main__"]
    lines += ["import minigpt_course as m", "assert m.__file__.startswith(sys.argv[1])"]
    code = "\n".join(["import sys", "sys.path.insert(0, sys.argv[1])", *lines])
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, cwd=tmp_path,
                   env=environment)


@pytest.fixture
def assembled() -> nbformat.NotebookNode:
    story = "# Title\n\nWords.\n\n```python\na = 1\n```\n\n```python\n# files\n```\nMore.\n"
    files = {"lib/x.py": "x = 1\n\n", "data.json": "[]\n"}
    return nbformat.from_dict(assemble(story, files))


def test_a_story_becomes_a_valid_notebook_with_its_cells_in_order(assembled):
    nbformat.validate(assembled)
    kinds = [cell.cell_type for cell in assembled.cells]
    assert kinds == ["markdown", "code", "code", "code", "markdown"]
    sources = ["".join(cell.source) for cell in assembled.cells]
    assert sources == ["# Title\n\nWords.", "a = 1", "%%writefile lib/x.py\nx = 1",
                       "%%writefile data.json\n[]", "More."]
    assert len({cell.id for cell in assembled.cells}) == 5


def test_files_are_folded_and_nothing_else_is(assembled):
    folded = [cell.metadata.get("_kg_hide-input", False) for cell in assembled.cells]
    assert folded == [False, False, True, True, False]


def test_a_file_is_written_as_it_was(assembled, tmp_path):
    cell = next(cell for cell in assembled.cells if "x.py" in cell.source[0])
    name, content = "".join(cell.source).split("\n", 1)
    assert (name, content) == ("%%writefile lib/x.py", "x = 1")


def test_the_notebook_is_valid_and_its_files_are_folded():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    files = [cell for cell in notebook.cells if cell.source.startswith("%%writefile")]
    assert len(files) > 10 and all(cell.metadata["_kg_hide-input"] for cell in files)
    assert not any(cell.get("outputs") for cell in notebook.cells)


def test_a_library_that_has_changed_makes_the_notebook_stale(tmp_path):
    for folder in "kaggle", "minigpt_course": shutil.copytree(ROOT / folder, tmp_path / folder)
    shutil.copyfile(ROOT / "settings.ini", tmp_path / "settings.ini")
    def again() -> bytes:
        derive.kaggle(tmp_path)
        return (tmp_path / "kaggle" / "minigpt.ipynb").read_bytes()
    assert again() == NOTEBOOK.read_bytes()
    with open(tmp_path / "minigpt_course" / "train.py", "a") as file: file.write("# changed\n")
    assert again() != NOTEBOOK.read_bytes()


# the whole of it


def test_the_full_model_begins_as_the_kept_reference_runs_did(shakespeare):
    "The first two steps of a run of 13,162,061 parameters, with the seed of a kept curve."
    paths = sorted((ROOT / "kaggle" / "reference").glob("cpu-short-*.csv"))
    kept, notes = LearningCurve.from_csv(paths[0]), read_notes(paths[0])
    seed = int(notes["seed"])
    torch.manual_seed(seed)
    config = TrainConfig.kaggle(seed=seed, **SHORT)
    run = Run(GPT(GPTConfig.kaggle()), shakespeare, config, shakespeare.fit_tokenizer(77),
              learning_rate_at)
    run.validate = lambda: float("nan")  # it would read a tenth of the text
    for _ in range(2): run.advance()
    near = {"train_loss": 0.003, "gradient_norm": 0.05, "learning_rate": 1e-12}
    for name, within in near.items():
        assert run.curve.column(name) == pytest.approx(kept.column(name)[:2], abs=within), name
    assert notes["corpus sha256"] == shakespeare.sha256


def references(preset: str, corpus) -> list[dict]:
    "Runs with other seeds than the notebook's, as reference.json has them."
    made, tokenizer, size = [], corpus.fit_tokenizer(77), getattr(GPTConfig, preset)()
    for seed in 2, 3:
        config = getattr(TrainConfig, preset)(seed=seed, **SHORT)
        torch.manual_seed(seed)
        curve = train(GPT(size), corpus, config, tokenizer=tokenizer)
        device = torch.device("cpu")
        notes = run_notes(corpus, size, config, device, native_precision(device), 1)
        notes = {name: str(value) for name, value in notes.items()}
        made.append({"name": f"seed {seed}", "notes": notes, "validation": curve.validation()})
    return made


def notebook_with(references: list[dict] | None, folder: Path) -> Path:
    "The notebook as it is, or a copy that brings other reference runs."
    if references is None: return NOTEBOOK
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    writes = "%%writefile reference.json\n"
    cell = next(cell for cell in notebook.cells if cell.source.startswith(writes))
    cell.source = writes + json.dumps(references)
    nbformat.write(notebook, folder / "minigpt.ipynb")
    return folder / "minigpt.ipynb"


def cut_off(run: Path, data: Path, preset: str) -> None:
    "The notebook's own run, stopped after its first step."
    command = next(cell for cell in cells() if "changes = {}" in cell)
    options = dict(re.findall(r'"(steps|batch_size|eval_every)": (\d+)', command))
    assert {name: int(value) for name, value in options.items()} == SHORT
    line = [sys.executable, "-m", "minigpt_course", "train", f"--preset={preset}",
            "--corpus=shakespeare", f"--run-dir={run}",
            *(f"--{name.replace('_', '-')}={value}" for name, value in options.items())]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                               env=os.environ | {"MINIGPT_DATA": str(data)})
    while not process.stdout.readline().startswith("step 0:"): assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(120) == 3


FULL = pytest.mark.skipif(not os.environ.get("MINIGPT_FULL"),
                          reason="takes six minutes: set MINIGPT_FULL=1")


@pytest.mark.parametrize("preset", ["laptop", pytest.param("kaggle", marks=FULL)])
def test_the_whole_notebook_goes_on_with_a_run_that_was_cut_off(kaggle, shakespeare, preset):
    """In a fresh kernel it finds text and run among its inputs, trains on, judges, and leaves what
    it should. The small model is judged by runs made here, the full one by those that are kept."""
    text = kaggle / "input" / "datasets" / "someone" / "plays" / "tinyshakespeare.txt"
    text.parent.mkdir(parents=True)
    text.write_text(shakespeare.text)
    cut_off(kaggle / "input" / "notebooks" / "minigpt" / "run", text.parent, preset)
    seal(kaggle / "input")
    made = references(preset, shakespeare) if preset == "laptop" else None
    spared = "MINIGPT_DATA", "PYTHONPATH"  # it has its own text and its own library
    environment = {name: value for name, value in os.environ.items() if name not in spared}
    environment |= OFFLINE | {"KAGGLE_KERNEL_RUN_TYPE": "Batch", "MINIGPT_PRESET": preset}
    if preset == "kaggle": del environment["MINIGPT_PRESET"]  # as on Kaggle
    command = [sys.executable, "-m", "papermill", "--no-progress-bar",
               str(notebook_with(made, kaggle)), str(kaggle / "out.ipynb"),
               "--cwd", str(kaggle / "working"), "-k", "python3"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    outputs = [out for cell in nbformat.read(kaggle / "out.ipynb", as_version=4).cells
               for out in cell.get("outputs", [])]
    said = "\n".join(out.get("text") or str(out.get("data")) for out in outputs)
    parameters = {"laptop": "225,677", "kaggle": "13,162,061"}[preset]
    for words in ("tiny Shakespeare, found in plays", f"{parameters}  together",
                  "going on with the run", "after 1 steps",
                  "inside the reference band at all 3 validations", "(2 reference runs on cpu",
                  "best validation loss", "written: gpt2"):
        assert words in said, words
    left = kaggle / "working"
    curve = LearningCurve.from_csv(left / "learning_curve.csv")
    assert len(curve.rows) == 31
    assert curve.validation()[-1][1] < curve.validation()[0][1] - 0.3
    assert read_notes(left / "learning_curve.csv")["corpus sha256"] == SHAKESPEARE_SHA256
    assert (left / "learning_curve.png").stat().st_size > 10_000
    assert (left / "run" / "model" / "minigpt.json").exists()
    assert (left / "gpt2" / "config.json").exists()
    assert (left / "run" / "samples.txt").read_text().count("--- step ") == 3
