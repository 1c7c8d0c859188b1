"""The Kaggle notebook, run as Kaggle runs it: papermill, a processor, no network and no name
resolution, inputs that are read-only, a session that was cut off before. And how it is
assembled."""
import ast
import base64
import bz2
import json
import math
import os
import re
import shlex
import shutil
import signal
import stat
import statistics
import subprocess
import sys
import time
import traceback
import warnings
import zipfile
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import nbformat
import psutil
import pytest
import torch

from conftest import small_gpt
from minigpt_course import corpus as corpora
from minigpt_course import devices
from minigpt_course.core import sha256
from minigpt_course.corpus import SHAKESPEARE_SHA256, load_corpus
from minigpt_course.devices import choose_device, native_precision
from minigpt_course.generate import generate
from minigpt_course.gpt import GPT, GPTConfig
from minigpt_course.gpt2 import to_transformers
from minigpt_course.reference import read_notes, run_notes
from minigpt_course.runs import LearningCurve
from minigpt_course.share import load, save
from minigpt_course.train import TrainConfig, train

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
# a network that has no other machine in it, a name that nobody resolves
ALONE = ["unshare", "-rnu", "sh", "-c",
         'hostname nobody-knows-me && ip link set lo up && exec "$@"', "sh"]


def cells() -> list[str]:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


def packed_in(code: str) -> dict[str, str]:
    "The files that a cell writes."
    packed = re.search(r'PACKED = """(.*?)"""', code, re.DOTALL)[1]
    return json.loads(bz2.decompress(base64.b64decode(packed)))


def library_cell() -> str: return next(cell for cell in cells() if "PACKED = " in cell)


@cache
def isolated() -> list[str]:
    "What is put before a command so that it has no network; nothing, said aloud, if that fails."
    works = shutil.which("unshare") and subprocess.run([*ALONE, "true"]).returncode == 0
    if works: return ALONE
    warnings.warn("unshare does not work here: the notebook is tested with a network")
    return []


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
    names["contextmanager"] = contextmanager
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


def test_a_tpu_ends_the_run_in_the_first_cell_with_one_sentence(monkeypatch):
    monkeypatch.setenv("ISTPUVM", "1")  # as in Kaggle's image for TPUs
    with pytest.raises(SystemExit, match="choose the accelerator GPU T4 x2"): exec(cells()[0], {})


def test_pooch_is_not_needed_for_the_manual(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pooch", None)
    monkeypatch.setattr(corpora.tempfile, "tempdir", str(tmp_path))
    readings = iter(["The manual. " * 30])
    monkeypatch.setattr(corpora, "_read_pydocs", lambda: next(readings))
    once, again = load_corpus("pydocs"), load_corpus("pydocs")  # then from the cache
    assert once.text == again.text == "The manual. " * 30
    choose = defined("choose_corpus", inputs=tmp_path, load_corpus=load_corpus, os=os)
    monkeypatch.delenv("MINIGPT_DATA", raising=False)
    assert choose()[0] == "pydocs"


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
    roots = {"core", "corpus", "counted", "devices", "generate", "gpt", "gpt2", "plot", "reference",
             "runs", "share", "train"}
    assert {*roots_of(STORY, LIBRARY)} == roots | {"__init__", "__main__"}
    brought = packed_in(library_cell())
    modules = {Path(name).stem for name in brought if name.endswith(".py")}
    assert roots | {"cli", "optimizers", "text", "cache"} <= modules
    spared = {"widgets", "checks", "exercises", "inside", "diagnose", "faults", "probes", "scale"}
    assert not modules & (spared | {"_modidx"})
    assert {Path(name).parent.name for name in brought} == {"minigpt_course", ""}


def test_the_library_that_it_brings_is_whole(tmp_path):
    "Its modules can all be imported where there is no other library."
    modules = [Path(name).stem for name in packed_in(library_cell()) if name.endswith(".py")]
    lines = [f"import minigpt_course.{module}" for module in modules if module != "__main__"]
    lines += ["import minigpt_course as m", "assert m.__file__.startswith(sys.argv[1])"]
    code = "\n".join(["import os, sys", "sys.path.insert(0, sys.argv[1])", library_cell(), *lines])
    (tmp_path / "program.py").write_text(code)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run([sys.executable, "program.py", str(tmp_path)], check=True, cwd=tmp_path,
                   env=environment)


STRANGE = '"""Quotes, {braces}, $HOME and %time."""\n!ls\n\n\nx = "é😀\\n"\n'
FILES = {"pieces/strange.py": STRANGE, "settings.ini": "[DEFAULT]\nlist = a\n\tb\n"}


@pytest.fixture
def assembled() -> nbformat.NotebookNode:
    story = ('# Title\n\nWords.\n\n```python\na = "```"\n```\n\n'
             "```python\n# folded: all of it\n# files\nb = 2\n```\nMore.\n")
    return nbformat.from_dict(assemble(story, FILES))


def test_a_story_becomes_a_valid_notebook_with_its_cells_in_order(assembled):
    nbformat.validate(assembled)
    kinds = [cell.cell_type for cell in assembled.cells]
    assert kinds == ["markdown", "code", "code", "markdown"]
    sources = ["".join(cell.source) for cell in assembled.cells]
    assert sources[:2] + sources[3:] == ["# Title\n\nWords.", 'a = "```"', "More."]
    assert sources[2].startswith("# folded: all of it\nimport ") and sources[2].endswith("\nb = 2")
    assert len({cell.id for cell in assembled.cells}) == 4
    folded = [cell.metadata.get("_kg_hide-input", False) for cell in assembled.cells]
    assert folded == [False, False, True, False]


def test_files_are_written_as_they_were(assembled, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec("".join(assembled.cells[2].source), {})
    assert {path: (tmp_path / path).read_bytes().decode() for path in FILES} == FILES


def test_the_notebook_is_valid_and_readable_and_its_library_is_one_folded_cell():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert NOTEBOOK.stat().st_size < 500_000
    assert all(len(line) <= 100 for cell in cells() for line in cell.splitlines())
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.source for cell in code if "PACKED" in cell.source] == [code[1].source]
    folded = [cell.metadata.get("_kg_hide-input", False) for cell in code]
    assert folded == [cell.source.startswith("# folded: ") for cell in code]
    assert not any(cell.outputs for cell in code)


def test_a_library_that_has_changed_makes_the_notebook_stale(tmp_path):
    compiled = shutil.ignore_patterns("__pycache__")  # which may change meanwhile
    for folder in "kaggle", "minigpt_course":
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=compiled)
    shutil.copyfile(ROOT / "settings.ini", tmp_path / "settings.ini")
    def again() -> bytes:
        derive.kaggle(tmp_path)
        return (tmp_path / "kaggle" / "minigpt.ipynb").read_bytes()
    assert again() == NOTEBOOK.read_bytes()
    with open(tmp_path / "minigpt_course" / "train.py", "a") as file: file.write("# changed\n")
    assert again() != NOTEBOOK.read_bytes()


# what it chooses, and how it trains, without training


CHOOSES = next(cell for cell in cells() if cell.startswith("fast = device.type"))
SETTINGS = {"FULL": False, "STEPS": None, "DROPOUT": None, "SEED": 0, "PRESET": "kaggle",
            "torch": torch, "TrainConfig": TrainConfig, "GPTConfig": GPTConfig}
BATCH = TrainConfig.kaggle().batch_size


@pytest.mark.parametrize("device, precision, settings, steps, batch_size, brief", [
    ("cpu", torch.float32, {}, 30, 4, True),
    ("cpu", torch.bfloat16, {}, 30, BATCH, True),
    ("cpu", torch.bfloat16, {"FULL": True}, TrainConfig.kaggle().steps, BATCH, False),
    ("cpu", torch.float32, {"STEPS": 70, "DROPOUT": 0.5}, 70, BATCH, False),
    ("cuda", torch.float16, {}, TrainConfig.kaggle().steps, BATCH, False),
])
def test_a_cpu_makes_thirty_steps_unless_more_is_asked_for(
        capsys, device, precision, settings, steps, batch_size, brief):
    names = SETTINGS | {"device": torch.device(device), "precision": precision} | settings
    exec(CHOOSES, names)
    assert (names["recipe"].steps, names["recipe"].batch_size) == (steps, batch_size)
    assert names["size"] == GPTConfig.kaggle(**{"dropout": 0.5} if "DROPOUT" in settings else {})
    said = capsys.readouterr().out
    assert f"{steps:,} steps of {batch_size} x 256 characters, optimizer " in said
    assert ("this is a short run" in said) == brief


@pytest.mark.parametrize("fast", [True, False])
def test_the_full_run_is_predicted_from_the_seconds_of_the_short_ones_steps(capsys, fast):
    seconds = [3.0, 3.6, 4.2, 9.0, 9.6, 9.6]
    curve = LearningCurve([[step, 0, end, 0, 0, 0, 0] for step, end in enumerate(seconds)])
    predicts = next(cell for cell in cells() if cell.startswith('with attempt("prediction")'))
    exec(predicts, {"attempt": defined("attempt"), "statistics": statistics, "curve": curve,
                    "short": True, "fast": fast, "PRESET": "kaggle", "TrainConfig": TrainConfig})
    steps = TrainConfig.kaggle().steps
    minutes = f"{steps:,} steps would take about {steps * 0.6 / 60:.0f} minutes here"
    assert (minutes in capsys.readouterr().out) == fast


TRAINS = next(cell for cell in cells() if cell.startswith("code, before = 0"))


@pytest.mark.parametrize("codes, steps, tried, says", [
    ([1, 0], -1, [2, 1], "could not begin with 2 processes, .*: minigpt: nccl.*All 30 steps are "),
    ([1, 1], 7, [2, 1], "could not begin .*Training ended early: minigpt: nccl.*7 of 30 steps are"),
    ([1], 9, [2], "Training ended early: minigpt: nccl.*7 of 30 steps are saved. Run this cell"),
    ([None], -1, [2], "Interrupted: 7 of 30 steps are saved. Run this cell again, and it goes on"),
    ([0], 30, [2], "All 30 steps are done, and the checkpoints are deleted"),
])
def test_two_processes_that_cannot_begin_fall_back_to_one(
        tmp_path, capsys, codes, steps, tried, says):
    checkpoint, calls = tmp_path / "checkpoint-00000007-ab.pt", []
    checkpoint.touch()
    def train_on(processes):
        calls.append(processes)
        return codes[len(calls) - 1], 0
    exec(TRAINS, {"train_on": train_on, "processes": 2, "run": tmp_path,
                  "recipe": SimpleNamespace(steps=30), "steps_done": lambda run: 7,
                  "progress": lambda since: ("training", steps),
                  "reason": lambda since: "minigpt: nccl is at odds with itself"})
    assert calls == tried and re.search(says, capsys.readouterr().out, re.DOTALL)
    assert checkpoint.exists() == (codes[-1] != 0)


@pytest.mark.parametrize("kept, tried", [([], []), (["checkpoint-00000031-ab.pt"], [2])])
def test_a_complete_run_is_trained_no_more_and_its_checkpoints_go_when_it_has_ended(
        tmp_path, capsys, kept, tried):
    for name in kept: (tmp_path / name).touch()
    calls = []
    def train_on(processes):
        calls.append(processes)
        return 0, 0
    exec(TRAINS, {"train_on": train_on, "processes": 2, "run": tmp_path,
                  "recipe": SimpleNamespace(steps=30), "steps_done": lambda run: 31})
    assert calls == tried and "All 30 steps are done" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_the_settings_reach_the_command():
    command = defined("command")
    command.__globals__.update(
        PRESET="kaggle", name="pydocs", run=Path("run-1"), SEED=5, PROMPT="ROMEO:",
        number_format="float16", changes={"batch_size": 4}, DROPOUT=0.5, COMPILE=True)
    one = command(1)
    assert one == ["-m", "minigpt_course", "train", "--resume", "--preset=kaggle",
                   "--corpus=pydocs", "--run-dir=run-1", "--seed=5", "--prompt=ROMEO:",
                   "--precision=float16", "--batch-size=4", "--dropout=0.5", "--compile"]
    command.__globals__.update(DROPOUT=None, COMPILE=False)
    assert command(2) == ["-m", "torch.distributed.run", "--standalone",
                          "--local-addr=127.0.0.1", "--nproc_per_node=2", *one[:-2]]


FINDS = next(cell for cell in cells() if cell.startswith("about = "))


def finding(kaggle: Path, monkeypatch, **more) -> dict:
    "What the cell that looks for an earlier run works with, after it."
    monkeypatch.chdir(kaggle / "working")
    names = {"asdict": dict, "size": {}, "corpus": SimpleNamespace(sha256=""), "shlex": shlex,
             "recipe": SimpleNamespace(steps=30, keys=list), "fingerprint": lambda about: "a" * 64,
             "inputs": kaggle / "input", "sys": sys, "processes": 1, "Path": Path,
             "shutil": shutil, "LearningCurve": LearningCurve} | more
    go_on = defined("go_on_with")
    go_on.__globals__.update(names, command=lambda processes: [])
    exec(FINDS, go_on.__globals__)
    return go_on.__globals__


def test_the_run_that_has_come_farthest_takes_the_place_of_what_is_here(kaggle, monkeypatch):
    here = kaggle / "working" / "run-aaaaaaaa"
    for folder in here, kaggle / "input/old/run-aaaaaaaa", kaggle / "input/other/run-bbbbbbbb":
        folder.mkdir(parents=True)
    (here / "checkpoint-00000015-ab.pt").touch()
    rows = [[step, 0, 0.1, None, None, 0.1, None] for step in range(31)]
    LearningCurve(rows).to_csv(kaggle / "input/old/run-aaaaaaaa/curve.csv")
    (kaggle / "input/other/run-bbbbbbbb/checkpoint-00000099-ab.pt").touch()  # another recipe's
    names = finding(kaggle, monkeypatch)
    assert names["steps_done"](names["run"]) == 31
    assert [path.name for path in here.iterdir()] == ["curve.csv"]


def test_a_run_that_is_here_is_kept_unless_another_has_come_farther(kaggle, monkeypatch):
    kept = kaggle / "working/run-aaaaaaaa/checkpoint-00000015-ab.pt"
    kept.parent.mkdir()
    kept.touch()
    finding(kaggle, monkeypatch)
    assert kept.exists()


def test_an_interrupted_copy_is_made_again(kaggle, monkeypatch):
    attached, here = kaggle / "input/old/run-aaaaaaaa", kaggle / "working/run-aaaaaaaa"
    attached.mkdir(parents=True)
    for name in "checkpoint-00000015-ab.pt", "run.json": (attached / name).write_text("whole")
    copied = []
    def interrupted(source, target):
        copied.append(Path(target).write_text("half"))
        raise KeyboardInterrupt
    cut_off = SimpleNamespace(rmtree=shutil.rmtree, copyfile=interrupted)
    with pytest.raises(KeyboardInterrupt): finding(kaggle, monkeypatch, shutil=cut_off)
    assert copied and not here.exists()
    finding(kaggle, monkeypatch)
    assert {path.name: path.read_text() for path in here.iterdir()} == {
        "checkpoint-00000015-ab.pt": "whole", "run.json": "whole"}


def test_nothing_of_another_run_in_this_session_is_shown_as_this_ones(
        kaggle, monkeypatch, capsys):
    working = kaggle / "working"
    for name in "learning_curve.csv", "learning_curve.png", "minigpt-model.zip":
        (working / name).touch()
    names = finding(kaggle, monkeypatch, curve=1, band={0: 1}, same=[1], model=1)
    assert list(working.iterdir()) == [] and not {"curve", "band", "model"} & names.keys()


def test_how_far_a_run_is_comes_from_its_checkpoints_or_its_whole_curve(tmp_path):
    done = defined("steps_done", LearningCurve=LearningCurve, recipe=SimpleNamespace(steps=30))
    def until(last):
        rows = [[step, 0, 0.1, None, None, 0.1, None] for step in range(last + 1)]
        LearningCurve(rows).to_csv(tmp_path / "curve.csv")
        return done(tmp_path)
    assert (done(tmp_path / "nothing"), until(12), until(30)) == (0, 0, 31)
    (tmp_path / "checkpoint-00000015-ab.pt").touch()
    assert done(tmp_path) == 15


def test_how_far_training_is_comes_from_its_newest_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("training.log").write_text("training: 100%|##| 30/30 [00:01<00:00, 9.1step/s]\nsecond\n")
    since = Path("training.log").stat().st_size
    progress = defined("progress", Path=Path, re=re)
    assert progress(0)[1] == 30 and progress(since) == ("starting", -1)
    with open("training.log", "a") as log: log.write("training:   7%|7 | 2/30 [00:01<00:09]\rtrai")
    assert progress(since) == ("training:   7%|7 | 2/30 [00:01<00:09]", 2)


def test_the_picture_is_drawn_only_when_the_curve_has_changed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in "curve.csv", "training.log": Path(name).touch()
    Path("samples.txt").write_text("--- step 0\nA\n--- step 5\nB\n")
    shown, polls = [], iter([None, None, None, None, 0])
    pictures = SimpleNamespace(learning_curve=MagicMock(), plt=MagicMock())
    def wait(seconds):
        if len(shown) == 6: os.utime("curve.csv", (1, 1))
        if seconds: raise subprocess.TimeoutExpired("training", seconds)
    watch = defined(
        "watch", os=os, re=re, Path=Path, subprocess=subprocess, run=tmp_path, plot=pictures,
        LearningCurve=MagicMock(), Image=str, Markdown=str, Code=lambda text, language: text,
        display=lambda content, display_id: SimpleNamespace(update=shown.append))
    watch(SimpleNamespace(poll=lambda: next(polls), wait=wait), 0)
    assert pictures.learning_curve.call_count == shown.count("learning_curve.png") == 2
    assert shown.count("step 5\nB\n") == 2 and shown.count("starting") == 5


def test_training_goes_on_when_it_cannot_be_watched_and_ends_when_interrupted(
        tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    def train_by(code, watch):
        names = {"os": os, "sys": sys, "shlex": shlex, "subprocess": subprocess, "run": tmp_path,
                 "traceback": traceback, "end_with_parent": devices.end_with_parent}
        train_on = defined("train_on", **names)
        train_on.__globals__.update(command=lambda processes: ["-c", code], watch=watch)
        return train_on(1)[0]
    def fail(process, since): raise ValueError("no picture of this")
    def interrupt(process, since): raise KeyboardInterrupt
    (tmp_path / "curve.csv").touch()
    assert train_by("print('through')", fail) == 0
    assert "There is no live view (ValueError: no picture of this" in capsys.readouterr().out
    assert "no picture of this" in Path("training.log").read_text()
    assert "through" in Path("training.log").read_text()
    began = time.monotonic()
    assert train_by("import time; time.sleep(60)", interrupt) is None
    assert time.monotonic() - began < 30


def test_the_last_cells_end_normally_when_there_is_nothing_to_show(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    attempt = defined("attempt", traceback=traceback, run=tmp_path)
    after = cells()[cells().index(TRAINS) + 1:]
    names = {"attempt": attempt, "Path": Path, "run": tmp_path, "LearningCurve": LearningCurve,
             "zipfile": zipfile, "load": load, "save": save, "to_transformers": to_transformers}
    for cell in after: exec(cell, names)
    said = capsys.readouterr().out.splitlines()
    assert len(after) > 7 and len(said) == sum("with attempt(" in cell for cell in after)
    assert not list(tmp_path.glob("*.zip"))
    assert said == [line for line in said if line.endswith("(training has made no step).")]
    assert Path("training.log").read_text().count("Traceback") == len(said)
    (tmp_path / "curve.csv").touch()
    exec(after[0], names)
    assert "There is no learning curve (ValueError: " in capsys.readouterr().out


def test_without_transformers_only_the_gpt2_is_missing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "transformers", None)
    (tmp_path / "curve.csv").touch()
    exports = next(cell for cell in cells() if 'attempt("GPT-2")' in cell)
    exec(exports, {"attempt": defined("attempt", traceback=traceback, run=tmp_path),
                   "to_transformers": to_transformers, "model": small_gpt(), "tokenizer": None,
                   "run": tmp_path})
    assert re.match(r"There is no GPT-2 \(\w+Error: .*transformers", capsys.readouterr().out)


def test_only_references_of_the_same_text_and_recipe_make_the_band(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = TrainConfig.kaggle()
    notes = {"corpus sha256": "ab", "parameters": 7, "dropout": 0.3} | {
        name.replace("_", " "): value for name, value in asdict(recipe).items()}
    mine = {name: str(value) for name, value in notes.items()}
    free = {"seed", "eval every", "checkpoint every"}
    others = [mine | {name: "another"} for name in mine.keys() - free]
    kept = [mine, *others, mine | dict.fromkeys(free, "another")]
    references = [{"notes": each, "validation": [[0, i]]} for i, each in enumerate(kept)]
    Path("reference.json").write_text(json.dumps(references))
    given = "corpus", "size", "device", "precision", "processes", "tokenizer"
    names = dict.fromkeys(given) | {
        "attempt": defined("attempt", traceback=traceback, run=tmp_path), "run": tmp_path,
        "json": json, "Path": Path, "LearningCurve": MagicMock(), "plot": MagicMock(),
        "asdict": asdict, "recipe": recipe, "baselines": MagicMock(),
        "reference_band": MagicMock(), "run_notes": lambda *_: notes}
    exec(next(cell for cell in cells() if 'attempt("learning curve")' in cell), names)
    assert names["validations"] == [[[0, 0]], [[0, len(kept) - 1]]]


@pytest.mark.parametrize("kept, said", [
    ([], "There is no reference for this text and recipe yet"),
    ([[(0, 4.3), (250, 2.4)]], "at step 250 its validation loss was 2.400, yours is 2.500"),
])
def test_a_curve_with_too_few_references_for_a_band_is_not_judged(kept, said, tmp_path, capsys):
    attempt = defined("attempt", traceback=traceback, run=tmp_path)
    verdict = next(cell for cell in cells() if 'attempt("verdict")' in cell)
    curve = SimpleNamespace(validation=lambda: [(0, 4.4), (250, 2.5), (500, 2.0)])
    exec(verdict, {"attempt": attempt, "band": {}, "same": kept, "validations": kept,
                   "curve": curve})
    assert said in capsys.readouterr().out


# the whole of it


def references(preset: str, corpus, changes: dict) -> list[dict]:
    "Runs with other seeds than the notebook's, as reference.json has them."
    made, tokenizer, size = [], corpus.fit_tokenizer(77), getattr(GPTConfig, preset)()
    for seed in 2, 3:
        config = getattr(TrainConfig, preset)(seed=seed, **changes)
        torch.manual_seed(seed)
        curve = train(GPT(size), corpus, config, tokenizer=tokenizer)
        device = torch.device("cpu")
        notes = run_notes(corpus, size, config, device, native_precision(device), 1)
        notes = {name: str(value) for name, value in notes.items()}
        made.append({"name": f"seed {seed}", "notes": notes, "validation": curve.validation()})
    return made


def session(kaggle: Path, settings: str = "", chosen: str = "", until: str = "",
            references: list[dict] | None = None, **variables) -> subprocess.Popen:
    """The notebook in a fresh kernel: with code added to the cell of the settings and to that which
    chooses the device, to the end of a cell, with other reference runs."""
    files = derive.brought(ROOT, STORY)
    if references is not None: files["reference.json"] = json.dumps(references)
    notebook = nbformat.from_dict(assemble(STORY, files))
    for cell in notebook.cells: cell.source = "".join(cell.source)
    sources = [cell.source for cell in notebook.cells]
    if until: del notebook.cells[sources.index(until) + 1:]
    notebook.cells[1].source += f"\n{settings}\nopen('kernel', 'w').write(str(os.getpid()))"
    choice = next(i for i, code in enumerate(sources) if "device = choose_device()" in code)
    notebook.cells[choice].source += f"\n{chosen}"
    nbformat.write(notebook, kaggle / "in.ipynb")
    spared = "MINIGPT_DATA", "MINIGPT_PRESET", "PYTHONPATH"  # it has its own text and library
    environment = {name: value for name, value in os.environ.items() if name not in spared}
    environment |= OFFLINE | {"KAGGLE_KERNEL_RUN_TYPE": "Batch"} | variables
    command = [sys.executable, "-m", "papermill", "--no-progress-bar", str(kaggle / "in.ipynb"),
               str(kaggle / "out.ipynb"), "--cwd", str(kaggle / "working"), "-k", "python3"]
    return subprocess.Popen([*isolated(), *command], env=environment, text=True,
                            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def said_by(process: subprocess.Popen, kaggle: Path) -> str:
    "What a session that has ended well has said."
    complaint = process.communicate(timeout=1500)[1]
    assert process.returncode == 0, complaint[-3000:]
    outputs = [out for cell in nbformat.read(kaggle / "out.ipynb", as_version=4).cells
               for out in cell.get("outputs", [])]
    return "\n".join(out.get("text") or str(out.get("data")) for out in outputs)


def wait_for(condition, process: subprocess.Popen) -> None:
    while not condition():
        assert process.poll() is None, process.communicate()[1][-3000:]
        time.sleep(0.1)


FULL = pytest.mark.skipif(not os.environ.get("MINIGPT_FULL"),
                          reason="takes a quarter of an hour: set MINIGPT_FULL=1")


@pytest.mark.parametrize("preset", ["laptop", pytest.param("kaggle", marks=FULL)])
def test_a_session_that_was_interrupted_is_gone_on_with_by_another(kaggle, shakespeare, preset):
    """In an image without pooch. The first session cannot begin with two processes, begins with
    one, is interrupted, and says how far it came. The second finds text and run among its inputs,
    trains on, judges, and leaves what it should."""
    text = kaggle / "input" / "datasets" / "someone" / "plays" / "tinyshakespeare.txt"
    text.parent.mkdir(parents=True)
    text.write_text(shakespeare.text)
    (kaggle / "image").mkdir()
    (kaggle / "image" / "pooch.py").write_text("raise ImportError('there is no pooch here')")
    working = kaggle / "working"
    variables = {"MINIGPT_PRESET": preset, "PYTHONPATH": str(kaggle / "image")}
    broken = variables | {"GLOO_SOCKET_IFNAME": "none0"}  # processes find no way to talk
    as_anywhere = "precision, number_format = torch.float32, 'float32'"
    first = session(kaggle, chosen=f"processes = 2\n{as_anywhere}", until=TRAINS, **broken)
    wait_for(lambda: list(working.glob("run-*/curve.csv")), first)  # the first step is done
    os.kill(int((working / "kernel").read_text()), signal.SIGINT)
    said = said_by(first, kaggle)
    assert "could not begin with 2 processes, so it is tried with one: minigpt: " in said
    log = (working / "training.log").read_text()
    assert re.search(r"Traceback.*process_group.*\n\w*Error: .*\nminigpt: ", log, re.DOTALL)
    done = int(re.search(r"Interrupted: (\d+) of 30 steps are saved. Run this cell", said)[1])
    assert 0 < done < 30
    run = next(working.glob("run-*"))
    assert len(list(run.glob("checkpoint-*.pt"))) == 1 and (run / "model").is_dir()
    about = json.loads((run / "run.json").read_text())["training"]
    changes = {name: about[name] for name in ("steps", "batch_size", "eval_every")}
    assert (about["steps"], about["eval_every"]) == (30, 15)

    (kaggle / "input" / "notebooks").mkdir()
    working.rename(kaggle / "input" / "notebooks" / "minigpt")
    working.mkdir()
    seal(kaggle / "input")
    made = references(preset, shakespeare, changes)
    said = said_by(session(kaggle, chosen=as_anywhere, references=made, **variables), kaggle)
    parameters = {"laptop": "225,677", "kaggle": "13,162,061"}[preset]
    for words in ("tiny Shakespeare, found in plays", f"{parameters}  together",
                  f"going on with the run found in minigpt, after {done} steps",
                  "All 30 steps are done", "inside the reference band at all 3 validations",
                  "(2 reference runs on cpu", "best validation loss", "a gap of"):
        assert words in said, words
    assert "There is no " not in said.replace("There is no GPU here", "")
    curve = LearningCurve.from_csv(working / "learning_curve.csv")
    assert len(curve.rows) == 31
    assert curve.validation()[-1][1] < curve.validation()[0][1] - 0.3
    assert read_notes(working / "learning_curve.csv")["corpus sha256"] == SHAKESPEARE_SHA256
    assert (working / "learning_curve.png").stat().st_size > 10_000
    assert not list(working.glob("run-*/checkpoint-*"))
    home = kaggle / "home"
    shutil.unpack_archive(working / "minigpt-model.zip", home)
    assert {path.name for path in home.iterdir()} == {
        "model", "gpt2", "learning_curve.csv", "learning_curve.png", "samples.txt"}
    assert (home / "gpt2" / "config.json").exists()
    assert (home / "samples.txt").read_text().count("--- step ") == 3
    model, tokenizer = load(home / "model")
    assert generate(model, tokenizer, "ROMEO:", 5, seed=0).startswith("ROMEO:")


TWO = "processes, precision, number_format = 2, torch.float16, 'float16'"  # as on two T4
OVERFLOW = """
path, scaler = Path("minigpt_course/devices.py"), "torch.amp.GradScaler(self.device.type"
path.write_text(path.read_text().replace(scaler, f"{scaler}, init_scale=2.0**24"))
"""


def test_two_processes_in_float16_overflow_at_first_and_train_to_the_end(kaggle, shakespeare):
    (kaggle / "input" / "tiny-shakespeare").mkdir()
    (kaggle / "input" / "tiny-shakespeare" / "input.txt").write_text(shakespeare.text)
    settings = "STEPS, PROMPT, DROPOUT, SEED = 10, 'ROMEO:', 0.1, 5"
    process = session(kaggle, settings, TWO + OVERFLOW, until=TRAINS, MINIGPT_PRESET="laptop")
    said = said_by(process, kaggle)
    assert "--nproc_per_node=2 " in said and "--precision=float16 " in said
    assert "All 10 steps are done" in said and "could not begin" not in said
    run = next((kaggle / "working").glob("run-*"))
    curve = LearningCurve.from_csv(run / "curve.csv")
    norms, losses = curve.column("gradient_norm")[:-1], curve.column("train_loss")[:-1]
    skipped = [not math.isfinite(norm) for norm in norms]
    assert 0 < sum(skipped) < 9 and skipped == sorted(skipped, reverse=True)
    assert len(losses) == 10 and all(map(math.isfinite, losses))
    assert curve.validation()[-1][1] < curve.validation()[0][1] - 0.05
    assert "\nROMEO:" in (run / "samples.txt").read_text()
    about = json.loads((run / "run.json").read_text())
    assert about["model"]["dropout"] == 0.1 and about["training"]["seed"] == 5


OFTEN = """
path, every = Path("minigpt_course/train.py"), "checkpoint_every: int = "
path.write_text(path.read_text().replace(f"{every}300", f"{every}50"))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends processes with their parent")
def test_a_session_that_is_killed_takes_its_training_along_and_is_gone_on_with(kaggle):
    "It has neither dataset nor network, so that it learns the manual."
    working, cache = kaggle / "working", str(kaggle / "cache")
    variables = {"MINIGPT_PRESET": "laptop", "XDG_CACHE_HOME": cache}
    first = session(kaggle, "STEPS = 400", OFTEN, until=TRAINS, **variables)
    wait_for(lambda: list(working.glob("run-*/checkpoint-*.pt")), first)
    run = next(working.glob("run-*"))
    training = psutil.Process(int((run / ".minigpt.pid").read_text()))
    os.kill(int((working / "kernel").read_text()), signal.SIGKILL)
    first.communicate(timeout=300)
    assert first.returncode != 0
    end = time.monotonic() + 60  # whoever waits for a disk dies when it has answered
    with suppress(psutil.NoSuchProcess):
        while training.status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < end
            time.sleep(0.1)
    done = max(int(path.stem.split("-")[1]) for path in run.glob("checkpoint-*.pt"))
    assert 0 < done < 400
    working.rename(kaggle / "input" / "minigpt")  # the older layout
    working.mkdir()
    seal(kaggle / "input")
    said = said_by(session(kaggle, "STEPS = 400", OFTEN, until=TRAINS, **variables), kaggle)
    assert "neither attached nor within reach of the network" in said
    assert f"going on with the run found in minigpt, after {done} steps" in said
    assert "All 400 steps are done" in said
