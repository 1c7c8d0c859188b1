"The Kaggle notebook, run as Kaggle runs it: papermill, a processor, no network, inputs that are read-only, a session that was cut off before."
import json, os, re, shutil, signal, stat, subprocess, sys
from pathlib import Path

import nbformat
import pytest

from minigpt_course.core import sha256
from minigpt_course.corpus import SHAKESPEARE_SHA256, load_corpus
from minigpt_course.runs import LearningCurve

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "kaggle" / "minigpt.ipynb"
LAYOUTS = pytest.mark.parametrize("place", ["tiny-shakespeare/input.txt", "datasets/someone/plays/version 2/tinyshakespeare.txt"])
OFFLINE = {"https_proxy": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "1"}  # nobody listens there


def cells() -> list[str]:
    return [cell.source for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.cell_type == "code"]


def shakespeare() -> str:
    "Tiny Shakespeare's text, or the test is left out."
    try: return load_corpus("shakespeare").text
    except FileNotFoundError: pytest.skip("tiny Shakespeare cannot be had here: name a folder that has it in MINIGPT_DATA")


@pytest.fixture
def kaggle(tmp_path) -> Path:
    "A machine laid out as Kaggle's: input, and working, which is where one is."
    for folder in "input", "working": (tmp_path / folder).mkdir()
    return tmp_path


def seal(folder: Path) -> None:
    "Nothing in the folder can be written any more."
    for path in [folder, *folder.rglob("*")]: path.chmod(path.stat().st_mode & ~(stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH))


def defined(name: str, **names):
    "A function as a cell of the notebook defines it."
    exec(next(cell for cell in cells() if f"def {name}(" in cell).split("\n\nname, in_words")[0], names)
    return names[name]


@LAYOUTS
def test_tiny_shakespeare_is_found_in_either_layout_and_under_any_name(kaggle, place):
    text = shakespeare()
    for path, content in {"other/input.txt": "x" * len(text), place: text}.items():
        (kaggle / "input" / path).parent.mkdir(parents=True)
        (kaggle / "input" / path).write_text(content)
    assert defined("attached_shakespeare", inputs=kaggle / "input", SHAKESPEARE_SHA256=SHAKESPEARE_SHA256, sha256=sha256)() == kaggle / "input" / place


def test_the_manual_takes_its_place_when_there_is_neither_network_nor_dataset(kaggle):
    def offline(name): raise FileNotFoundError("no network")
    name, in_words = defined("choose_corpus", inputs=kaggle / "input", load_corpus=offline)()
    assert name == "pydocs" and "neither attached nor within reach" in in_words


def test_the_metadata_is_complete_and_its_slug_is_the_one_that_kaggle_makes_of_the_title():
    about = json.loads((ROOT / "kaggle" / "kernel-metadata.json").read_text())
    owner, slug = about["id"].split("/")
    assert slug == re.sub(r"[^a-z0-9]+", "-", about["title"].lower()) and len(about["title"]) >= 5 and owner
    assert (ROOT / "kaggle" / about["code_file"]) == NOTEBOOK and (about["language"], about["kernel_type"]) == ("python", "notebook")
    assert about["machine_shape"] == "NvidiaTeslaT4" and about["docker_image_pinning_type"] in ("original", "latest")
    assert all(type(about[name]) is bool for name in ("is_private", "enable_gpu", "enable_tpu", "enable_internet"))
    assert all(type(about[f"{kind}_sources"]) is list for kind in ("dataset", "competition", "kernel", "model"))


def test_the_notebook_is_valid_and_its_files_are_folded():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    files = [cell for cell in notebook.cells if cell.source.startswith("%%writefile")]
    assert len(files) > 10 and all(cell.metadata["_kg_hide-input"] for cell in files)
    assert not any(cell.get("outputs") for cell in notebook.cells)


def test_a_library_that_has_changed_makes_the_notebook_stale(tmp_path):
    for folder in "kaggle", "minigpt_course": shutil.copytree(ROOT / folder, tmp_path / folder)
    derive = f"import sys; sys.path.insert(0, {str(ROOT / 'tools')!r}); from pathlib import Path; import derive; derive.kaggle(Path({str(tmp_path)!r}))"
    subprocess.run([sys.executable, "-c", derive], check=True)
    assert (tmp_path / "kaggle" / "minigpt.ipynb").read_bytes() == NOTEBOOK.read_bytes()
    with open(tmp_path / "minigpt_course" / "train.py", "a") as file: file.write("# changed\n")
    subprocess.run([sys.executable, "-c", derive], check=True)
    assert (tmp_path / "kaggle" / "minigpt.ipynb").read_bytes() != NOTEBOOK.read_bytes()


def test_a_gpu_that_cannot_compute_ends_the_run_with_one_sentence(monkeypatch, capsys):
    from minigpt_course import scale
    monkeypatch.setattr(scale.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(scale.torch.cuda, "get_device_name", lambda *_: "Tesla P100-PCIE-16GB")
    cell = next(cell for cell in cells() if cell.startswith("try: device = choose_device()"))
    with pytest.raises(SystemExit, match="Tesla P100-PCIE-16GB cannot compute .* choose the accelerator GPU T4 x2"): exec(cell, {"choose_device": scale.choose_device})


def cut_off(run: Path, data: Path) -> None:
    "The notebook's own run, stopped after its first step."
    command = next(cell for cell in cells() if cell.startswith("changes = "))
    options = dict(re.findall(r'"(steps|batch_size|eval_every)": (\d+)', command))
    line = [sys.executable, "-m", "minigpt_course", "train", "--preset=kaggle", "--corpus=shakespeare", f"--run-dir={run}", *(f"--{name.replace('_', '-')}={value}" for name, value in options.items())]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=os.environ | {"MINIGPT_DATA": str(data)})
    while not process.stdout.readline().startswith("step 0:"): assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(120) == 3


def test_the_whole_notebook_goes_on_with_a_run_that_was_cut_off(kaggle):
    "The notebook as it is, in a fresh kernel: it finds text and run among its inputs, trains on, judges, and leaves what it should."
    text = kaggle / "input" / "datasets" / "someone" / "plays" / "tinyshakespeare.txt"
    text.parent.mkdir(parents=True)
    text.write_text(shakespeare())
    cut_off(kaggle / "input" / "notebooks" / "minigpt" / "run", text.parent)
    seal(kaggle / "input")
    environment = {name: value for name, value in os.environ.items() if name != "MINIGPT_DATA"} | OFFLINE | {"KAGGLE_KERNEL_RUN_TYPE": "Batch"}
    command = [sys.executable, "-m", "papermill", "--no-progress-bar", str(NOTEBOOK), str(kaggle / "out.ipynb"), "--cwd", str(kaggle / "working"), "-k", "python3"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    said = "\n".join(out.get("text") or str(out.get("data")) for cell in nbformat.read(kaggle / "out.ipynb", as_version=4).cells for out in cell.get("outputs", []))
    for words in ("tiny Shakespeare, found in plays", "13,162,061  together", "going on with the run", "after 1 steps", "inside the reference band at all 3 validations", "best validation loss"):
        assert words in said, words
    left = kaggle / "working"
    curve = LearningCurve.from_csv(left / "learning_curve.csv")
    assert len(curve.rows) == 31 and curve.validation()[-1][1] < curve.validation()[0][1] - 0.3
    assert (left / "learning_curve.png").stat().st_size > 10_000 and (left / "run" / "model" / "minigpt.json").exists() and (left / "gpt2" / "config.json").exists()
