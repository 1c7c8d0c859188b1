"The notebooks as they are stored, and their controls."
import inspect
import io
import json
import re
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import torch

from minigpt_course import plot, widgets
from minigpt_course.faults import load_zoo
from minigpt_course.gpt import GPTConfig

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
def test_every_control_has_a_picture_for_pages_that_do_not_run(notebook):
    outputs = [(cell["number"], output.get("data", {})) for cell in code_cells(notebook)
               for output in cell["outputs"]]
    widget = "application/vnd.jupyter.widget-view+json"
    assert [number for number, data in outputs if widget in data and "image/png" not in data] == []


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


def another_value(slider):
    "A value that a slider may have and has not."
    if hasattr(slider, "options"):
        return next(value for _, value in options_of(slider) if value != slider.value)
    if isinstance(slider.value, str): return "r" + slider.value
    return slider.max if slider.value != slider.max else slider.min


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
def test_a_control_redraws_when_a_slider_moves(model, tokenizer, name):
    control = CONTROLS[name](model, tokenizer)
    for title, slider in control.sliders.items():
        value, before = slider.value, control.picture.value
        slider.value = another_value(slider)
        assert plt.imread(io.BytesIO(control.picture.value), format="png").size
        assert control.picture.value != before, title
        slider.value = value
        assert control.picture.value == before, title


def test_the_positions_of_the_attention_viewer_end_with_its_text():
    sliders = CONTROLS["attention_viewer"](None, None).sliders
    for text, last in ("To", 1), ("To be or not", 7), ("", 0):  # 8 characters at most
        sliders["text"].value = text
        assert sliders["position"].max == last


def test_what_follows_works_without_a_q():
    assert widgets.what_follows(torch.full((2, 2), 0.5), "ab").picture.value
