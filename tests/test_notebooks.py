"The notebooks as they are stored, and their controls."
import inspect
import json
import re
from pathlib import Path

import pytest
import torch

from conftest import small_gpt
from minigpt_course import plot, widgets
from minigpt_course.faults import load_zoo
from minigpt_course.generate import next_probabilities
from minigpt_course.gpt import GPTConfig
from minigpt_course.scale import predicted_seconds
from minigpt_course.train import TrainConfig, train

PROJECT = Path(__file__).parents[1]
PATHS = sorted((PROJECT / "nbs").rglob("*.ipynb"))
NUMBERED = [path for path in PATHS if path.stem[0].isdigit()]
READ = [path for path in PATHS if path.parent.name == "nbs"]  # numbered, and what leads to them
APPENDIX = [path for path in PATHS if path.parent.name == "appendix"]


def over(paths: list[Path], name: str = "notebook"):
    "One test for each file."
    ids = [path.relative_to(PROJECT).with_suffix("").as_posix() for path in paths]
    return pytest.mark.parametrize(name, paths, ids=ids)


NOTEBOOKS = over(PATHS)
PAGES = over(sorted([*PROJECT.glob("*.md"), *PROJECT.glob("*/*.md"), *PATHS]), "page")
# the call in a cell's last line whose answer a reader expects to see
SHOWS = re.compile(r"(print|check_\w+)\(|(plot|widgets|exercises|checks|ch\d\d)\.\w+\(")


def cells_of(notebook: Path) -> list[dict]:
    return json.loads(notebook.read_text(encoding="utf-8"))["cells"]


def code_cells(notebook: Path) -> list[dict]:
    return [{"number": i, "lines": lines_of(cell), "source": "".join(cell["source"]),
             "outputs": cell["outputs"]}
            for i, cell in enumerate(cells_of(notebook)) if cell["cell_type"] == "code"]


def lines_of(cell: dict) -> list[str]:
    "The lines that are code: not blank, no directive of nbdev."
    lines = "".join(cell["source"]).splitlines()
    return [line for line in lines if line.strip() and not line.startswith("#|")]


def shows(cell: dict) -> bool:
    "Whether a reader expects to see something under the cell."
    hidden = re.search(r"^#\| *(export|hide)", cell["source"], re.MULTILINE)
    return not hidden and bool(cell["lines"]) and bool(SHOWS.match(cell["lines"][-1].strip()))


def test_the_notebooks_are_found():
    assert len(NUMBERED) == 14 and len(APPENDIX) >= 14 and {*NUMBERED, *APPENDIX} < {*PATHS}
    assert {path.parent.name for path in PATHS} == {"nbs", "appendix"}


# as they are stored


@NOTEBOOKS
def test_no_cell_ended_in_an_error(notebook):
    ends = [(cell["number"], output["output_type"]) for cell in code_cells(notebook)
            for output in cell["outputs"]]
    assert [number for number, kind in ends if kind == "error"] == []


@NOTEBOOKS
def test_every_cell_that_shows_something_has_its_output_stored(notebook):
    cells = [cell for cell in code_cells(notebook) if shows(cell)]
    assert [cell["number"] for cell in cells if not cell["outputs"]] == []


@NOTEBOOKS
def test_a_control_is_stored_as_its_picture_without_a_dead_view(notebook):
    made = re.compile(rf"^(widgets\.)?({'|'.join(CONTROLS)})\(", re.MULTILINE)
    for cell in code_cells(notebook):
        kinds = {kind for output in cell["outputs"] for kind in output.get("data", {})}
        assert widgets.LIVE not in kinds, cell["number"]
        assert "image/png" in kinds or not made.search(cell["source"]), cell["number"]


@NOTEBOOKS
def test_no_path_of_somebodys_machine_is_stored(notebook):
    cells = cells_of(notebook)
    for cell in cells:  # a picture's base64 may spell anything
        for output in cell.get("outputs", []): output.get("data", {}).pop("image/png", None)
    private = re.compile("/(work|root|home)/")
    assert [i for i, cell in enumerate(cells) if private.search(json.dumps(cell))] == []


@PAGES
def test_every_link_to_a_file_of_the_project_leads_somewhere(page):
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".ipynb":
        prose = [cell for cell in cells_of(page) if cell["cell_type"] == "markdown"]
        text = "\n".join("".join(cell["source"]) for cell in prose)
    links = re.findall(r"\]\((?!https?:|#|home\))([^)\s#]+)", text)
    assert [link for link in links if not (page.parent / link).exists()] == []


def long_cells(notebook: Path, most: int) -> dict[int, int]:
    "Number and length of each cell that has more lines."
    cells = {cell["number"]: len(cell["lines"]) for cell in code_cells(notebook)}
    return {number: lines for number, lines in cells.items() if lines > most}


@over(READ)
def test_no_cell_that_is_read_is_longer_than_25_lines(notebook):
    assert long_cells(notebook, 25) == {}


@over(APPENDIX)
def test_no_cell_of_the_appendix_is_longer_than_60_lines(notebook):
    assert long_cells(notebook, 60) == {}


@over(APPENDIX)  # the pages that are read come later
def test_no_line_of_code_is_wider_than_100_characters(notebook):
    lines = [(cell["number"], line) for cell in code_cells(notebook) for line in cell["lines"]]
    assert [(number, line[:60]) for number, line in lines if len(line) > 100] == []


def test_a_notebook_opened_alone_says_where_the_losses_come_from():
    axes = plot.results_chart({"baselines": {}, "models": {}})
    assert "No results yet" in axes.texts[0].get_text()


# controls


def depths(kind, depth, scale): return [scale] * depth, [1 / depth] * depth


TEXT = "To be, or not to be: that is the question."
CONTROLS = {  # name to how it is made, from a model and its tokenizer
    "window_stepper": lambda *_: widgets.window_stepper(TEXT, context_length=8),
    "what_follows": lambda _, known: widgets.what_follows(torch.rand(24, 24), known.chars),
    "attention_viewer": lambda *_: widgets.attention_viewer(
        lambda text: torch.eye(len(text)), "To be or", most=8),
    "depth_explorer": lambda *_: widgets.depth_explorer(depths, ["bare", "normed"]),
    "budget": lambda *_: widgets.budget(GPTConfig.laptop()),
    "run_planner": lambda *_: widgets.run_planner(
        {"a laptop": (1e11, 0.5), "a GPU": (1e14, 0.3)}),
    "find_the_fault": lambda *_: widgets.find_the_fault(load_zoo()),
    "head_viewer": lambda model, known: widgets.head_viewer(
        model, known, "To be or", torch.rand(2, 2)),
    "sampling_controls": lambda model, known: widgets.sampling_controls(model, known, "To be"),
}


def ends_of(slider) -> list:
    "The first and the last value that a slider may have; a short and a long text."
    if hasattr(slider, "options"): return [options_of(slider)[i][1] for i in (0, -1)]
    return ["", 5 * slider.value] if isinstance(slider.value, str) else [slider.min, slider.max]


def options_of(slider) -> list[tuple]:
    "The options of a choice as label and value."
    return [option if isinstance(option, tuple) else (option, option)
            for option in slider.options]


def test_every_control_of_the_library_is_tried_here():
    functions = inspect.getmembers(widgets, inspect.isfunction)
    answers = {name: inspect.signature(make).return_annotation for name, make in functions}
    makes_control = [name for name, kind in answers.items() if kind is widgets.Control]
    assert sorted(makes_control) == sorted(CONTROLS)


@pytest.mark.parametrize("name", CONTROLS)
def test_a_control_redraws_at_both_ends_of_a_slider_and_keeps_its_size(model, tokenizer, name):
    control = CONTROLS[name](model, tokenizer)
    def shown(): return control.picture.value, control.text.value
    before, size = shown(), (control.still.width, control.still.height)
    first = {title: slider.value for title, slider in control.sliders.items()}
    for title, slider in control.sliders.items():
        for end in ends_of(slider):
            if end == first[title]: continue
            slider.value = end
            assert shown() != before, title
            assert (control.still.width, control.still.height) == size, title
            assert f"{slider.description}: {getattr(slider, 'label', end)}" in control.still.alt
        for name, value in first.items(): control.sliders[name].value = value
        assert shown() == before, title


@pytest.mark.parametrize("name, value", [("temperature", 0.0), ("top_k", 1), ("top_p", 0.05)])
def test_what_the_sampling_control_writes_follows_each_setting(model, tokenizer, name, value):
    control = CONTROLS["sampling_controls"](model, tokenizer)
    before = control.text.value
    control.sliders[name].value = value
    assert control.text.value != before


def test_the_bars_of_the_sampling_control_follow_the_whole_prompt(monkeypatch, model, tokenizer):
    seen, draw = [], plot.next_characters
    def note(*given): return seen.append(given[0]) or draw(*given)
    monkeypatch.setattr(plot, "next_characters", note)
    CONTROLS["sampling_controls"](model, tokenizer)
    with torch.no_grad(): logits = model(tokenizer.encode("To be")[None])[0, -1]
    wanted = logits.softmax(-1), next_probabilities(logits, temperature=0.8, top_p=0.95)
    for bars, probs in zip(seen[0].values(), wanted, strict=True):
        torch.testing.assert_close(bars, probs, rtol=0, atol=1e-4)


def test_the_planned_times_are_those_of_the_sliders(monkeypatch):
    seen, draw = [], plot.run_times
    monkeypatch.setattr(plot, "run_times", lambda times: seen.append(times) or draw(times))
    sliders = CONTROLS["run_planner"]().sliders
    for name, value in ("steps", 100), ("batch_size", 32): sliders[name].value = value
    training = TrainConfig(batch_size=32, steps=100)
    assert seen[-1]["a laptop"] == predicted_seconds(GPTConfig(), training, 1e11, 0.5)


def test_a_control_is_one_output_or_in_jupyter_a_view_a_picture_and_words(monkeypatch):
    control, shown = CONTROLS["budget"](), []
    monkeypatch.setattr(widgets.display, "display", lambda what, **_: shown.append(what))
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    control._ipython_display_()
    assert shown.pop().keys() == {widgets.LIVE, "image/png", "text/plain"} and not shown
    monkeypatch.setenv("JPY_SESSION_NAME", "06_gpt.ipynb")
    control._ipython_display_()
    view, picture, words = shown
    assert view.keys() == {widgets.LIVE} and picture is control.still
    assert "225,677 parameters" in words.data and "Run this cell" in words.data


def test_what_a_model_writes_is_text_and_not_html(model, tokenizer):
    control = CONTROLS["sampling_controls"](model, tokenizer)
    control.sliders["prompt"].value = "<script>To"
    assert "&lt;script&gt;To" in control.text.value and "<script>" not in control.text.value


def test_another_faulty_model_has_no_diagnosis_yet():
    sliders = CONTROLS["find_the_fault"]().sliders
    sliders["diagnosis"].value = sliders["diagnosis"].options[1][1]
    sliders["model"].value = 1
    assert sliders["diagnosis"].value == ""


def test_the_positions_of_the_attention_viewer_end_with_its_text():
    sliders = CONTROLS["attention_viewer"](None, None).sliders
    for text, last in ("To", 1), ("To be or not", 7), ("", 0):  # 8 characters at most
        sliders["text"].value = text
        assert sliders["position"].max == last


def test_what_follows_works_without_a_q():
    assert widgets.what_follows(torch.full((2, 2), 0.5), "ab").picture.value


def test_the_bars_of_the_sampling_controls_are_those_without_dropout(tokenizer):
    model = small_gpt(dropout=0.5).train()
    training = CONTROLS["sampling_controls"](model, tokenizer).picture.value
    assert CONTROLS["sampling_controls"](model.eval(), tokenizer).picture.value == training


def test_a_live_curve_is_drawn_at_the_end_as_well(monkeypatch, corpus):
    drawn = []
    monkeypatch.setattr(widgets.display, "display", lambda still, **_: drawn.append(still.alt))
    config = TrainConfig(steps=5, batch_size=2, warmup_steps=1)
    train(small_gpt(), corpus, config, on_step=widgets.LiveCurve(every=3))
    assert [words.split()[-1] for words in drawn] == ["0.", "3.", "5."]
