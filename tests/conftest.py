"What several test files share: a small text and a small model."
import json
import os
import shutil
from pathlib import Path

os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("TORCHINDUCTOR_AUTOGRAD_CACHE", "0")  # writing it has ended in a crash

import pytest
import torch
from torch import nn

from minigpt_course.core import fingerprint
from minigpt_course.corpus import load_corpus
from minigpt_course.gpt import GPT, GPTConfig
from minigpt_course.runs import LearningCurve, load_checkpoint
from minigpt_course.saved import packed, unpacked
from minigpt_course.share import load
from minigpt_course.text import CharTokenizer, Corpus

BROWSERS = "chromium", "chromium-browser", "google-chrome", "chrome"

torch.set_num_threads(1)  # the models are tiny: a second thread only waits


LONG = ("combinations", "kaggle", "lab", "site", "torture", "scale", "checkpoints", "reference")


def pytest_collection_modifyitems(items):
    "Files of long tests come first, so that no worker waits at the end for another's last one."
    items.sort(key=lambda item: item.path.stem.removeprefix("test_") not in LONG)


def small_corpus() -> Corpus:
    return Corpus.from_text("To be, or not to be: that is the question.\n" * 40, "hamlet")


def small_gpt(**changes) -> GPT:
    """A GPT that has the same weights each time, none of them tiny, so that a wrong part shows in
    the logits."""
    torch.manual_seed(0)
    size = {"vocab_size": 24, "context_length": 16, "embed_dim": 16, "num_heads": 2,
            "num_blocks": 2, "dropout": 0.0}
    model = GPT(GPTConfig(**size | changes))
    for weights in model.parameters(): nn.init.normal_(weights, std=0.3)
    return model


def say(folder: Path, about: dict) -> None:
    "Let a saved model say something else, with a hash that is right."
    about = {name: value for name, value in about.items() if name != "sha256"}
    about |= {"sha256": fingerprint(about)}
    (folder / "minigpt.json").write_text(json.dumps(about), encoding="utf-8")


def assert_same_end(run_dir: Path, whole: Path, steps: int) -> None:
    "Whether two runs have the same curve and end with the same bits."
    curves = [LearningCurve.from_csv(folder / "curve.csv") for folder in (run_dir, whole)]
    assert curves[0].same_as(curves[1]) and len(curves[0].rows) == steps + 1
    ours, theirs = load_checkpoint(run_dir), load_checkpoint(whole)
    assert ours["step"] == theirs["step"] == steps + 1
    assert ours["model"].keys() == theirs["model"].keys()
    assert all(torch.equal(ours["model"][name], theirs["model"][name]) for name in theirs["model"])


def rounded(model: GPT) -> GPT:
    "The model as a page has it: each matrix in 8 bits."
    model.load_state_dict(unpacked(packed(model.state_dict())))
    return model.eval()


@pytest.fixture
def corpus() -> Corpus: return small_corpus()


@pytest.fixture
def shakespeare():
    "Tiny Shakespeare, or the test is left out."
    try: return load_corpus("shakespeare")
    except FileNotFoundError:
        pytest.skip("tiny Shakespeare cannot be had: name a folder that has it in MINIGPT_DATA")


@pytest.fixture
def tokenizer(corpus) -> CharTokenizer: return CharTokenizer.fit(corpus.text, vocab_size=24)


@pytest.fixture
def model() -> GPT: return small_gpt().eval()


@pytest.fixture(scope="module")
def published() -> tuple[GPT, CharTokenizer]:
    "The published laptop model as a page has it."
    model, tokenizer = load("pydocs")
    return rounded(model), tokenizer


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api")
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip("NO BROWSER: pages are not tested; install Chromium (apt install chromium)")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield started
        started.close()
