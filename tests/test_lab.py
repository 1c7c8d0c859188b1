"""Controls in a real JupyterLab: they move, and a notebook that was saved shows their pictures and
words on the next day, when no kernel knows them.

The browser is Chromium or Chrome; without one, or without JupyterLab, this is skipped, and says so.
"""
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

PROJECT = Path(__file__).parents[1]
CELLS = """
import torch
from minigpt_course.faults import load_zoo
from minigpt_course.share import load
from minigpt_course.widgets import (
    attention_viewer, find_the_fault, sampling_controls, window_stepper)
---
window_stepper("To be, or not to be: that is the question.", context_length=16)
---
attention_viewer(lambda text: torch.eye(len(text)), "To be")
---
sampling_controls(*load("pydocs"))
---
find_the_fault(load_zoo(), seed=1)
""".split("---")
STEPPER, VIEWER, SAMPLING, QUIZ = range(4)
KEPT = """() => [...document.querySelectorAll(".jp-RenderedImage img")].map(image => image.src)"""
CUT = """() => [...document.querySelectorAll(".minigpt-live .widget-label")]
    .filter(label => label.scrollWidth > label.clientWidth).map(label => label.textContent)"""
READY = "() => jupyterapp.shell.currentWidget.context.sessionContext.ready.then(() => true)"


class Lab:
    "A JupyterLab server in a folder."
    def __init__(self, folder: Path):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        own = {f"JUPYTER_{kind}_DIR": str(folder / kind) for kind in ("CONFIG", "DATA", "RUNTIME")}
        own |= {"IPYTHONDIR": str(folder / "ipython"), "PYTHONPATH": str(PROJECT)}
        self.url = f"http://127.0.0.1:{port}"
        self.server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root",
             "--log-level=ERROR", "--expose-app-in-browser", "--IdentityProvider.token=secret",
             f"--ServerApp.port={port}", f"--ServerApp.root_dir={folder}"], env=os.environ | own)

    def ask(self, path: str, method: str = "GET"):
        request = Request(f"{self.url}/api{path}", None, {"Authorization": "token secret"},
                          method=method)
        with urlopen(request) as answer: return json.loads(answer.read() or "null")

    def wait(self, seconds: float = 60) -> None:
        "Until it answers."
        end = time.monotonic() + seconds
        while True:
            try: return self.ask("/")
            except URLError:
                if time.monotonic() > end: raise
            time.sleep(0.1)

    def open(self, browser):
        "The notebook in a new tab, its kernel ready."
        tab = browser.new_page(viewport={"width": 1200, "height": 3000})
        tab.set_default_timeout(180_000)
        tab.goto(f"{self.url}/lab/tree/controls.ipynb?token=secret&reset")
        tab.wait_for_selector(".jp-Cell")
        tab.evaluate(READY)
        return tab


@pytest.fixture
def lab(browser, tmp_path):
    pytest.importorskip("jupyterlab")
    cells = [new_code_cell(source.strip()) for source in CELLS]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python"}}
    nbformat.write(new_notebook(cells=cells, metadata=kernel), tmp_path / "controls.ipynb")
    started = Lab(tmp_path)
    started.wait()
    yield started
    started.server.terminate()
    started.server.wait()


def run(tab) -> None:
    tab.evaluate("() => { jupyterapp.commands.execute('notebook:run-all-cells') }")
    tab.wait_for_function("() => document.querySelectorAll('.minigpt-live img').length == 4")


def pictures(tab) -> list[str]:
    "What is seen of them."
    return [each.get_attribute("src") for each in tab.locator(".jp-OutputArea-output img").all()
            if each.is_visible()]


def slide(control):
    control.locator(".noUi-handle").first.press("ArrowRight")


def type_text(control):
    control.locator("input").first.fill("To be or not")


def click_on_temperature(control):
    control.locator(".noUi-base").nth(1).click(position={"x": 20, "y": 2})


def redraws(tab, number: int, move) -> None:
    "The picture changes, the kept one as well, and keeps its size."
    control = tab.locator(".minigpt-live").nth(number)
    live, kept = control.locator("img"), tab.evaluate(KEPT)[number]
    size = live.bounding_box()
    move(control)
    tab.wait_for_function(f"([number, kept]) => ({KEPT})()[number] != kept", arg=[number, kept])
    assert live.bounding_box() | {"y": 0} == size | {"y": 0}
    assert len(pictures(tab)) == 4  # none is seen twice


def answer(tab) -> dict[str, str]:
    "Sign and color of what is said, from diagnosis to diagnosis until one is right."
    quiz, colors = tab.locator(".minigpt-live").nth(QUIZ), {}
    for choice in quiz.locator("option").all_inner_texts()[1:]:
        quiz.locator("select").select_option(choice)
        said = quiz.locator("b", has_text=choice.replace("\xa0", " "))  # as a menu writes a space
        colors[said.inner_text()[0]] = said.evaluate(
            "said => getComputedStyle(said.parentElement).borderLeftColor")
        if "✓" in colors: break
    return colors


def test_controls_move_and_a_saved_notebook_shows_them_on_the_next_day(lab, browser):
    tab = lab.open(browser)
    run(tab)
    assert tab.evaluate(CUT) == []
    redraws(tab, STEPPER, slide)
    redraws(tab, VIEWER, type_text)
    redraws(tab, SAMPLING, click_on_temperature)
    colors = answer(tab)
    assert colors.keys() == {"✗", "✓"} and len(set(colors.values())) == 2
    tab.locator(".minigpt-still", has_text="✓ Right").wait_for(state="attached")

    kept = tab.evaluate(KEPT)
    tab.evaluate("() => jupyterapp.commands.execute('docmanager:save').then(() => true)")
    tab.close()
    for session in lab.ask("/sessions"): lab.ask(f"/sessions/{session['id']}", "DELETE")
    later = lab.open(browser)
    later.get_by_text("Error displaying widget").nth(3).wait_for(state="attached")
    assert not any(each.is_visible() for each in later.get_by_text("Error displaying").all())
    assert pictures(later) == kept and len(kept) == 4
    assert later.get_by_text("✓ Right").is_visible()
    assert later.get_by_text("Run this cell to move the controls.").last.is_visible()
