"What makes the project: deriving leaves nothing stale, notebooks are run, stored and reported."
import json
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from conftest import small_gpt
from minigpt_course.bigram import evaluate
from minigpt_course.devices import Compute
from minigpt_course.runs import load_best
from minigpt_course.share import load
from minigpt_course.text import Corpus
from minigpt_course.train import TrainConfig, train

PROJECT = Path(__file__).parents[1]
sys.path.insert(0, str(PROJECT / "tools"))

import course  # noqa: E402
import derive  # noqa: E402
import weights  # noqa: E402


@pytest.fixture
def checkout(tmp_path) -> Path:
    "A copy of what is needed to derive the library."
    copy = tmp_path / "minigpt_course"
    skip = shutil.ignore_patterns("runs", "__pycache__", ".ipynb_checkpoints")
    for folder in "nbs", "minigpt_course":
        shutil.copytree(PROJECT / folder, copy / folder, ignore=skip)
    for name in "settings.ini", "setup.py", "pyproject.toml": shutil.copy(PROJECT / name, copy)
    return copy


def library(root: Path) -> dict[str, bytes]:
    "All files of the library."
    return derive.contents(root / "minigpt_course", ("__pycache__",))


def test_an_export_leaves_nothing_stale_and_touches_nothing_that_is_no_python(checkout):
    before = library(checkout)
    page = checkout / "minigpt_course" / "page" / "page.js"
    page.parent.mkdir(exist_ok=True)
    page.write_text("// written by hand")
    for stale in "old.py", "checks/ch99.py":
        (checkout / "minigpt_course" / stale).write_text("x = 1")
    derive.export(checkout)
    assert library(checkout) == before | {"page/page.js": b"// written by hand"}
    assert any(name.startswith("weights/pydocs/weights-") for name in before)


def test_a_plain_nbdev_export_and_clean_change_nothing(checkout):
    before = derive.contents(checkout, ("__pycache__",))
    for command in "nbdev_export", "nbdev_clean":
        subprocess.run([Path(sys.executable).with_name(command)], cwd=checkout, check=True)
    after = derive.contents(checkout, ("__pycache__",))
    names = before.keys() | after.keys()
    assert [name for name in names if before.get(name) != after.get(name)] == []


@pytest.fixture
def small_course(tmp_path, monkeypatch) -> Path:
    "A course of two notebooks, an index, and one in the appendix."
    pages = {"01_text": "x = 1\nprint(x)", "02_bigram": "open('left', 'w').close()\n1 / 0",
             "appendix/plot": "print('drawn')", "index": "print('welcome')"}
    for name, code in pages.items():
        cells = [nbformat.v4.new_markdown_cell("# A title"), nbformat.v4.new_code_cell(code)]
        path = tmp_path / "nbs" / f"{name}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    (tmp_path / "nbs" / "minutes.json").write_text("{}")
    places = {"ROOT": ".", "NBS": "nbs", "COURSE": "_course", "ALONE": "_alone",
              "MINUTES": "nbs/minutes.json", "RESULTS": "_course/runs/results.json"}
    for name, place in places.items(): monkeypatch.setattr(course, name, tmp_path / place)
    return tmp_path


def test_the_notebooks_are_chosen_in_reading_order(small_course):
    names = [path.stem for path in course.chosen([])]
    assert names == ["01_text", "02_bigram", "plot", "index"]
    assert [path.stem for path in course.chosen(["plot", "01"])] == ["01_text", "plot"]
    with pytest.raises(SystemExit, match="no notebook begins with '07'; there are: 01_text, "):
        course.chosen(["07"])


def test_what_was_not_run_is_not_shown_as_if_it_were(small_course, capsys):
    sample = small_course / "_course" / "runs" / "sample.txt"
    sample.parent.mkdir(parents=True)
    sample.write_text("of an earlier run")
    course.run(["01"], store=False)
    said = capsys.readouterr().out
    rows = [line for line in said.splitlines() if line[:8].strip().replace(".", "").isdigit()]
    assert rows and all(row.endswith("(comes with the course)") for row in rows)
    assert "Written by the model in notebook 08" in said


def test_a_notebook_whose_kernel_dies_is_named(small_course):
    path = small_course / "nbs" / "02_bigram.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[1].source = "import os\nos._exit(1)"
    nbformat.write(notebook, path)
    with pytest.raises(course.Failed, match="02_bigram.ipynb: its kernel died"):
        course.run(["02"], store=False)
    assert "its kernel died" in course.alone(path)


def test_a_course_that_is_run_shows_what_came_out(small_course, capsys):
    course.run(["01"], store=False)
    assert "Losses (nats per character" in capsys.readouterr().out
    made = nbformat.read(small_course / "_course" / "01_text.ipynb", as_version=4)
    assert made.cells[1].outputs[0].text == "1\n"
    kept = nbformat.read(small_course / "nbs" / "01_text.ipynb", as_version=4)
    assert not kept.cells[1].outputs


def test_a_failing_cell_is_named(small_course):
    with pytest.raises(course.Failed, match=r"02_bigram.ipynb: code cell 1 of 1 failed \(id "):
        course.run(["02"], store=False)


def test_each_notebook_runs_alone_and_leaves_nothing(small_course):
    failed = [course.alone(path) for path in course.chosen([])]
    assert [bool(words) for words in failed] == [False, True, False, False]
    assert "ZeroDivisionError: division by zero" in failed[1]
    left = {path.name for path in small_course.iterdir()} - {"nbs", "_alone"}
    assert left == set() and not any((small_course / "_alone").iterdir())


def test_what_samples_repeat_of_a_text_is_measured():
    text = "".join(chr(97 + (i * i + i // 7) % 26) for i in range(3000))
    passage = text[500:580]
    longest, share = weights.memorised([f"0123{passage}456", "~" * 60], text)
    assert longest == passage
    assert share == 31 / (87 - 49 + 60 - 49)  # of 80 characters 31 pieces of 50


def test_the_cost_of_8_bits_is_measured_in_one_number_format(tmp_path, monkeypatch):
    "Where the run's own loss was computed in another, the difference is not part of it."
    corpus = Corpus.from_text("a text that is learnt in half precision. " * 200, "pydocs")
    model = small_gpt(vocab_size=24)
    train(model, corpus, TrainConfig(steps=2, batch_size=2, eval_every=1), tmp_path / "run",
          compute=Compute(precision="bfloat16"))
    monkeypatch.setattr(weights, "WEIGHTS", tmp_path)
    monkeypatch.setattr(weights, "load_corpus", lambda name: corpus)
    monkeypatch.setattr(weights, "memory_of", lambda *given: {})
    weights.publish(tmp_path / "run", "it")
    small, tokenizer = load(tmp_path / "it")
    _, loss = load_best(model, tmp_path / "run")
    notes = json.loads((tmp_path / "it" / "minigpt.json").read_text())["notes"]
    exact, rough = (evaluate(it, tokenizer.encode(corpus.validation), 16) for it in (model, small))
    assert notes["8 bits cost"] == pytest.approx(rough - exact, abs=1e-9) and exact != loss
    assert f"| nats that 8 bits cost | {notes['8 bits cost']:.5g} |" in (
        tmp_path / "it" / "README.md").read_text()
