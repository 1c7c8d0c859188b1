"""What is drawn: described in words, sharp, readable on a white page and on a dark one."""
import base64
import io
import json
import sys
from collections import Counter
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from minigpt_course import plot
from minigpt_course.bigram import BigramLM
from minigpt_course.results import read_results, record_result
from minigpt_course.text import CharTokenizer, Corpus

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tools"))

from course import few_colours  # noqa: E402
from derive import describe, pictures  # noqa: E402

NOTEBOOKS = sorted((ROOT / "nbs").rglob("*.ipynb"))
WHITE, DARK = "white", "#0d1117"  # a page by day and by night


@pytest.fixture(scope="module")
def drawn() -> list[tuple[str, nbformat.NotebookNode]]:
    "The cells whose stored output is a picture, each with the notebook's name."
    return [(path.stem, cell) for path in NOTEBOOKS
            for cell in nbformat.read(path, as_version=4).cells if pictures(cell)]


def test_each_picture_is_described_in_one_line(drawn):
    wrong = []
    for name, cell in drawn:
        line = next(iter(cell.source.splitlines()))
        words = line.removeprefix("#| fig-alt: ")
        kept = [out.metadata.get("image/png", {}).get("alt") for out in pictures(cell)]
        right = words != line and 30 <= len(words) <= 200 and ": " not in words  # YAML for Quarto
        if not right or set(kept) != {words}: wrong.append((name, cell.id, line))
    assert wrong == []


def test_no_picture_stands_twice(drawn):
    times = Counter(out.data["image/png"].strip() for _, cell in drawn for out in pictures(cell))
    twice = [(name, cell.id) for name, cell in drawn
             if any(times[out.data["image/png"].strip()] > 1 for out in pictures(cell))]
    assert twice == []


def test_what_a_cell_says_of_its_picture_becomes_alt_text(tmp_path):
    cell = nbformat.v4.new_code_cell("#| fig-alt: A line that falls and falls\ndraw()")
    cell.outputs = [nbformat.v4.new_output("display_data", {"image/png": "aa"},
                                           metadata={"image/png": {"width": 9}})]
    path = tmp_path / "nbs" / "appendix" / "page.ipynb"
    path.parent.mkdir(parents=True)
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), path)
    describe(tmp_path)
    kept = json.loads(path.read_text(encoding="utf-8"))["cells"][0]["outputs"][0]["metadata"]
    assert kept == {"image/png": {"width": 9, "alt": "A line that falls and falls"}}


def brightness(color: str) -> float:
    "Relative luminance, as the accessibility guidelines (WCAG 2) define it."
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
              for part in to_rgb(color)]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


def contrast(one: str, other: str) -> float:
    low, high = sorted(brightness(color) + 0.05 for color in (one, other))
    return high / low


@pytest.mark.parametrize("color", ["GREY", "BLUE", "GREEN", "RED"])
def test_words_can_be_read_by_day_and_by_night(color):
    assert min(contrast(getattr(plot, color), page) for page in (WHITE, DARK)) >= 4


@pytest.mark.parametrize("pale", plot.PALE)
def test_black_words_can_be_read_on_pale_boxes(pale):
    assert contrast("black", pale) >= 7


def shown(axes) -> tuple[Image.Image, int]:
    "A figure as a page gets it, and the width that the page gives it."
    published = []

    class Display:
        def __call__(self, image): published.append(image)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("IPython.display.display", Display())
        axes.figure._ipython_display_()
    plt.close(axes.figure)
    data, metadata = published[0]._repr_mimebundle_()
    return Image.open(io.BytesIO(base64.b64decode(data["image/png"]))), \
        metadata["image/png"]["width"]


def test_a_picture_is_sharp_and_has_the_pages_background():
    mine = dict(plt.rcParams)
    image, width = shown(plot.lines({"a": [(0, 1), (1, 2)]}, xlabel="step"))
    assert plt.rcParams == mine  # the reader's own figures stay as they were
    assert abs(image.width - 2 * width) <= 1
    inks = {color[:3] for _, color in image.getcolors(1 << 20) if color[3] == 255}
    assert image.getpixel((0, 0))[3] == 0
    assert {tuple(round(255 * part) for part in to_rgb(plot.GREY))} <= inks  # ticks and words
    assert (0, 0, 0) not in inks and (255, 255, 255) not in inks


def test_a_stored_picture_has_few_colours_and_looks_the_same():
    file = io.BytesIO()
    plot.lines({"a": [(0, 1), (1, 2)]}).figure.savefig(file, format="png")
    plt.close("all")
    before = base64.b64encode(file.getvalue()).decode()
    after = few_colours(before)
    assert len(after) < len(before) / 2 and few_colours(after) == after
    old, new = (np.asarray(Image.open(io.BytesIO(base64.b64decode(png))).convert("RGBA"), int)
                for png in (before, after))
    seen = [np.abs(np.diff([each[..., :3] * each[..., 3:] / 255 + page * (1 - each[..., 3:] / 255)
                            for each in (old, new)], axis=0)).max() for page in (0, 255)]
    assert max(seen) < 40  # of 255, at the edge of a line


def test_a_result_keeps_a_sample_and_old_files_have_none(tmp_path):
    corpus = Corpus.from_text("Return the sum. " * 400, "sums")
    path = tmp_path / "results.json"
    record_result("counted", 3.0, corpus, path)
    assert "counted" not in read_results(path=path)["samples"]
    model = BigramLM(CharTokenizer.fit(corpus.text).vocab_size)
    results = record_result("learnt", 2.0, corpus, path, model=model)
    written = results["samples"]["learnt"]
    assert written.startswith("Return the ") and len(written) == 41
    assert results["new"] == "learnt" and model.training
    ax = plot.results_chart(results)
    assert written in [text.get_text() for text in ax.texts]
    plt.close(ax.figure)


def test_losses_of_another_text_are_said_to_be_so(tmp_path, capsys):
    corpus, path = Corpus.from_text("Return the sum. " * 400, "sums"), tmp_path / "results.json"
    record_result("learnt bigram", 2.0, corpus, path)
    assert "another text" not in capsys.readouterr().out  # no other model is shown
    record_result("four heads", 1.9, corpus, path)
    assert capsys.readouterr().out.startswith("Not to be compared: one head come with the library")


def test_the_results_of_another_text_are_begun_anew(tmp_path):
    path = tmp_path / "results.json"
    for name, words in ("one", "Return the sum. "), ("other", "Raise an error. "):
        corpus = Corpus.from_text(words * 400, name)
        record_result(name, 2.0, corpus, path)
    kept = json.loads(path.read_text())
    assert kept["models"] == {"other": 2.0} and kept["sha256"] == corpus.sha256


def test_a_short_training_loss_is_smoothed_less():
    ax = plot.loss_curves({"ten steps": [4.0] * 10})
    assert list(ax.lines[0].get_ydata()) == [4.0] * 10
    plt.close(ax.figure)


def test_a_change_gains_what_the_loss_falls_by():
    losses = {"plain": [2.0, 2.2], "+ warm-up": [1.9, 1.9]}
    assert plot.gains_table({"0.01": losses}).cells == [
        ["change", "loss at 0.01", "gain at 0.01"], ["plain", "2.100", ""],
        ["+ warm-up", "1.900", "+0.200 ± 0.141"]]
