"The notebooks as they are stored, and their controls."
import inspect, io, json, re
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import torch

from conftest import small_gpt
from minigpt_course import diagnose, plot, widgets
from minigpt_course.gpt import GPT, GPTConfig
from minigpt_course.corpus import load_corpus
from minigpt_course.text import CharTokenizer
from minigpt_course.train import train
from minigpt_course.runs import LearningCurve
from minigpt_course.train import TrainConfig

PROJECT = Path(__file__).parents[1]
NOTEBOOKS = pytest.mark.parametrize("notebook", sorted((PROJECT / "nbs").glob("*.ipynb")), ids=lambda path: path.stem)
PAGES = pytest.mark.parametrize("page", sorted([*PROJECT.glob("*.md"), *PROJECT.glob("*/*.md"), *PROJECT.glob("nbs/*.ipynb")]), ids=lambda path: path.relative_to(PROJECT).as_posix())


def code_cells(notebook: Path) -> list[dict]:
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return [{"number": i, "lines": lines_of(cell), "source": "".join(cell["source"]), "outputs": cell["outputs"]} for i, cell in enumerate(cells) if cell["cell_type"] == "code"]


def lines_of(cell: dict) -> list[str]:
    "The lines that are code: not blank, no directive of nbdev."
    return [line for line in "".join(cell["source"]).splitlines() if line.strip() and not line.startswith("#|")]


def shows(cell: dict) -> bool:
    "Whether a reader expects to see something under the cell."
    hidden = re.search(r"^#\| *(export|hide)", cell["source"], re.MULTILINE)
    shown = re.compile(r"print\(|plot\.|widgets\.|ch\d\d\.check_")
    return not hidden and bool(cell["lines"]) and bool(shown.match(cell["lines"][-1].strip()))


# as they are stored


@NOTEBOOKS
def test_no_cell_ended_in_an_error(notebook):
    assert [cell["number"] for cell in code_cells(notebook) for output in cell["outputs"] if output["output_type"] == "error"] == []


@NOTEBOOKS
def test_every_cell_that_shows_something_has_its_output_stored(notebook):
    assert [cell["number"] for cell in code_cells(notebook) if shows(cell) and not cell["outputs"]] == []


@NOTEBOOKS
def test_every_control_has_a_picture_for_pages_that_do_not_run(notebook):
    outputs = [(cell["number"], output.get("data", {})) for cell in code_cells(notebook) for output in cell["outputs"]]
    assert [number for number, data in outputs if "application/vnd.jupyter.widget-view+json" in data and "image/png" not in data] == []


@NOTEBOOKS
def test_no_path_of_somebodys_machine_is_stored(notebook):
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    for cell in cells:  # a picture's base64 may spell anything
        for output in cell.get("outputs", []): output.get("data", {}).pop("image/png", None)
    assert [i for i, cell in enumerate(cells) if re.search("/(work|root|home)/", json.dumps(cell))] == []


@PAGES
def test_every_link_to_a_file_of_the_project_leads_somewhere(page):
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".ipynb": text = "\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"] if cell["cell_type"] == "markdown")
    links = re.findall(r"\]\((?!https?:|#)([^)\s#]+)", text)
    assert [link for link in links if not (page.parent / link).exists()] == []


@NOTEBOOKS
def test_no_cell_is_longer_than_25_lines(notebook):
    assert {cell["number"]: len(cell["lines"]) for cell in code_cells(notebook) if len(cell["lines"]) > 25} == {}


def test_a_notebook_opened_alone_says_where_the_marks_come_from():
    assert "No results yet" in plot.results_chart({"baselines": {}, "models": {}}).texts[0].get_text()


# controls

CONTROLS = {
    "window_stepper": lambda model, tokenizer: widgets.window_stepper("To be, or not to be: that is the question.", context_length=8),
    "what_follows": lambda model, tokenizer: widgets.what_follows(torch.rand(24, 24), tokenizer.chars),
    "attention_viewer": lambda model, tokenizer: widgets.attention_viewer(lambda text: torch.eye(len(text)), "To be or", most=8),
    "heads_chooser": lambda model, tokenizer: widgets.heads_chooser({heads: [3.0 / heads] * 30 for heads in (1, 2, 4)}),
    "depth_explorer": lambda model, tokenizer: widgets.depth_explorer(lambda kind, depth, scale: ([scale] * depth, [1 / depth] * depth), ["bare", "normed"]),
    "budget": lambda model, tokenizer: widgets.budget(GPTConfig.laptop()),
    "run_planner": lambda model, tokenizer: widgets.run_planner({"a laptop": (1e11, 0.5), "a GPU": (1e14, 0.3)}),
    "export_explorer": lambda model, tokenizer: widgets.export_explorer(),
    "clinic": lambda model, tokenizer: widgets.clinic(two_cases(), [3.0] * 5),
    "roofline_explorer": lambda model, tokenizer: widgets.roofline_explorer(1e11, 1e10),
    "head_viewer": lambda model, tokenizer: widgets.head_viewer(model, tokenizer, "To be or", torch.rand(2, 2)),
    "sampling_controls": lambda model, tokenizer: widgets.sampling_controls(model, tokenizer, "To be"),
}


def two_cases():
    "A healthy one and one with an fault, hardly trained."
    corpus = load_corpus("pydocs")
    ids = CharTokenizer.fit(corpus.text).encode(corpus.text[:20_000])
    torch.manual_seed(0)
    models = GPT(diagnose.SMALL), diagnose.FAULTS["mask off by one"][0]()
    return [(name, diagnose.train_briefly(model, ids[:15_000], ids[15_000:], steps=3)) for name, model in zip(("positions missing", "mask off by one"), models)]


def another_value(slider):
    "A value that a slider may have and has not."
    if hasattr(slider, "options"): return next(value for _, value in options_of(slider) if value != slider.value)
    if isinstance(slider.value, str): return "r" + slider.value
    return slider.max if slider.value != slider.max else slider.min


def options_of(slider) -> list[tuple]:
    "The options of a choice as label and value."
    return [option if isinstance(option, tuple) else (option, option) for option in slider.options]


def test_every_control_of_the_library_is_tried_here():
    makes_control = [name for name, make in inspect.getmembers(widgets, inspect.isfunction) if inspect.signature(make).return_annotation is widgets.Control]
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


def test_what_follows_works_without_a_q():
    assert widgets.what_follows(torch.full((2, 2), 0.5), "ab").picture.value


def test_a_training_desk_starts_pauses_and_resumes(tmp_path, corpus):
    config = TrainConfig(steps=40, batch_size=2, eval_every=20, checkpoint_every=20)
    controls, curve = widgets.TrainingControls(small_gpt(dropout=0.3), corpus, config, str(tmp_path / "controls")), tmp_path / "controls" / "curve.csv"
    start, pause = controls.box.children[0].children
    start.click(), pause.click()
    controls.thread.join(60)
    assert 0 < len(LearningCurve.from_csv(curve).rows) < config.steps
    blank = controls.picture.value
    start.click()
    controls.thread.join(60)
    assert LearningCurve.from_csv(curve).same_as(train(small_gpt(dropout=0.3), corpus, config))
    assert controls.picture.value != blank
