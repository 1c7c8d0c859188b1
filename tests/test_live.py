"""The site's live controls, in a real browser: the same numbers as Python's, and everything that
they offer works by mouse, keyboard and touch, under a policy that allows a page's own files only.
"""
import json
import random
import re
import shutil
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from minigpt_course.faults import FAULTS, HEALTHY
from minigpt_course.generate import generate
from minigpt_course.gpt import GPTConfig, parameter_ledger, training_flops, training_memory
from minigpt_course.share import load

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "tools"))

from clues import CLUES
from live import LIVE, data_of, gpt2_note, scripts

HARNESS = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; script-src 'self'; style-src 'self'">
<link rel="stylesheet" href="live.css">
{scripts}
<div class="live" data-live="{name}"></div>
"""


def harness(name: str, folder: Path) -> Path:
    "A page with nothing but one control."
    loaded = "\n".join(f'<script src="{file}"></script>' for file in scripts(name, folder))
    shutil.copy(LIVE / "live.css", folder)
    page = folder / f"{name}.html"
    page.write_text(HARNESS.format(scripts=loaded, name=name), encoding="utf-8")
    return page


@pytest.fixture
def opened(browser, tmp_path):
    """Opens a control: `opened("bigram", width=390, color_scheme="dark")` is a tab of the browser.
    At its end a test fails if a control complained, asked for anything but its own files, or did
    not fit the screen's width."""
    tabs, complaints = [], []

    def open_control(name: str, width: int = 1200, **options):
        page = harness(name, tmp_path)
        tab = browser.new_page(viewport={"width": width, "height": 900}, **options)
        tab.on("console", lambda message: complaints.append(message.text))
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.on("request", lambda asked: complaints.append(asked.url)
               if not asked.url.startswith(tmp_path.as_uri()) else None)
        tabs.append(tab)
        tab.goto(page.as_uri())
        tab.wait_for_selector("[data-ready]")
        return tab

    yield open_control
    assert complaints == []
    for tab in tabs:
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
        tab.close()


def frames(tab) -> None:
    "Waits until what was asked to be drawn is drawn."
    tab.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


# parameters


def random_config(chance: random.Random) -> GPTConfig:
    heads = chance.randint(1, 16)
    return GPTConfig(
        vocab_size=chance.randint(2, 60_000), context_length=chance.randint(1, 2048),
        embed_dim=heads * chance.randint(1, 128), num_heads=heads, num_blocks=chance.randint(1, 24),
        output_projection=chance.random() < 0.5, tied_head=chance.random() < 0.5)


def test_sizes_are_those_of_the_library(opened):
    chance = random.Random(0)
    pairs = [(random_config(chance), chance.randint(1, 512)) for _ in range(30)]
    found = opened("parameters").evaluate("""pairs => pairs.map(([config, batch]) => [
        parameterLedger(config), trainingMemory(config, batch), trainingFlops(config)])""",
        [(asdict(config), batch) for config, batch in pairs])
    assert found == [[parameter_ledger(config), training_memory(config, batch),
                      training_flops(config)] for config, batch in pairs]


def colours(tab) -> dict[str, str]:
    "The colour of each part, wherever it is drawn; `ValueError` if it has two."
    drawn = tab.evaluate("""[...document.querySelectorAll('.part, .key')].map(node => [
        node.closest('[data-part]').dataset.part, getComputedStyle(node).backgroundColor])""")
    assert len(dict(drawn)) == len(set(map(tuple, drawn)))
    return dict(drawn)


OVERFLOWING = """[...document.querySelectorAll('.part > span')].filter(label => {
    const [inner, outer] = [label, label.parentNode].map(node => node.getBoundingClientRect())
    return inner.width > outer.width + 1 || inner.height > outer.height + 1
}).map(label => label.textContent)"""


def test_parts_keep_their_colours_and_labels_fit_while_sliders_move(opened):
    tab = opened("parameters", width=390)
    first, total = colours(tab), tab.locator(".total")
    for name, value in [("num_blocks", 23), ("vocab_size", 10), ("head_dim", 0), ("num_heads", 15)]:
        tab.fill(f"[data-name={name}]", str(value))
        frames(tab)
        assert colours(tab).items() <= first.items() and tab.evaluate(OVERFLOWING) == []
        assert "0.0" not in re.findall(r"[\d.]+(?= [kMGTPE]?(?:B|FLOP))", tab.inner_text(".live"))
    assert total.text_content() != "225,677 parameters"


def test_known_models_have_their_sizes_and_a_larger_one_looks_larger(opened):
    tab = opened("parameters")
    shares = {}
    for name, size in [("full model", "13,162,061"), ("laptop", "225,677")]:
        tab.get_by_role("button", name=name).click()
        tab.locator(".total", has_text=f"{size} parameters").wait_for()
    tab.locator(".changes", has_text="blocks 8 → 2").wait_for()
    for blocks in 9, 19:  # ten and twenty blocks, in one frame
        tab.fill("[data-name=num_blocks]", str(blocks))
        frames(tab)
        square, frame = (tab.locator(f".{part}").bounding_box() for part in ("square", "frame"))
        count = int(tab.text_content(".total").split()[0].replace(",", ""))
        shares[blocks] = square["width"] * square["height"] / count
        assert "15 million" in tab.text_content(".scale") and square["width"] < frame["width"]
    assert shares[9] == pytest.approx(shares[19], rel=0.02)  # area is size


def test_gpt2_small_is_explained_by_the_ledger():
    assert "124,439,808: 27,648 biases" in gpt2_note() and "no 50,257" in gpt2_note()


# sampling


def written(tab, which: str = "Write") -> list[str]:
    "The texts after a press of that button."
    tab.get_by_role("button", name=which, exact=True).click()
    tab.get_by_role("button", name=which, exact=True).wait_for()
    return tab.locator(".text").all_text_contents()


def test_greedy_text_in_the_browser_is_that_of_generate(opened):
    tab = opened("sampling")
    tab.fill("[data-name=temperature]", "0")
    tab.fill("[data-name=prompt]", "Return the ")
    model, tokenizer = load("pydocs")
    wanted = generate(model.eval(), tokenizer, "Return the ", 200, temperature=0)
    assert written(tab)[0] == wanted


def test_a_seed_gives_its_text_again_and_temperatures_differ(opened):
    tab = opened("sampling", width=390, color_scheme="dark")
    first = written(tab)[0]
    assert written(tab)[0] == first and "the same text" in tab.text_content(".note")
    tab.fill("[data-name=seed]", "1")
    assert written(tab)[0] != first
    low, middle, high = written(tab, "Write at 0.2, 0.8, 1.5")[1:]
    assert len({low, middle, high}) == 3 and low.startswith("This is a co")
    assert middle == written(tab)[0]  # the same temperature, cuts and seed


def bars(tab, kind: str) -> list[float]:
    "In per cent of an axis that ends at 100."
    return tab.eval_on_selector_all(f"tbody .bar.{kind}", """bars => bars.map(bar =>
        100 * bar.getBoundingClientRect().width / bar.parentNode.clientWidth)""")


def test_temperature_and_cuts_are_seen_on_a_fixed_axis(opened):
    tab = opened("sampling")
    own = bars(tab, "own")
    tab.fill("[data-name=temperature]", "0.4")
    tab.fill("[data-name=topK]", "5")
    frames(tab)
    chosen = bars(tab, "chosen")
    assert bars(tab, "own") == own and chosen[0] > own[0] + 10
    assert sum(chosen) == pytest.approx(100, abs=2) and chosen[5:] == [0] * 8
    assert tab.locator("tr.cut").count() == 8 and tab.locator("tr.cut").first.is_visible()


# faults


def diagnose(tab, name: str) -> None:
    tab.locator(".choices").get_by_role("button", name=name, exact=True).click()


def shown(tab, cases: list[dict]) -> dict:
    "The case before the player's eyes."
    text, loss = tab.text_content("pre"), tab.text_content(".key tr:nth-child(2) td:last-child")
    found, = [case for case in cases if case["text"] == text
              and loss.startswith(f"{case['validations'][-1][1]:.2f}")]
    return found


def test_every_fault_is_in_the_quiz_with_its_evidence():
    data = json.loads(data_of("faults"))
    assert {case["name"]: case["diagnosis"] for case in data["cases"]} == {
        **{name: name for name in FAULTS}, **dict.fromkeys(HEALTHY, "no mistake in the code")}
    notebook = json.loads((ROOT / "nbs" / "09_diagnose.ipynb").read_text(encoding="utf-8"))
    lines = "".join("".join(cell["source"]) + "\n" for cell in notebook["cells"]).splitlines()
    assert all(f"## {clue.section}" in lines for clue in CLUES.values())
    assert [case["name"] for case in data["cases"] if case["name"] in FAULTS
            and not any(each["telling"] for each in case["findings"])] == []
    assert len(data_of("faults")) < 300_000


def test_a_full_correct_play_gives_the_full_score(opened):
    tab, cases = opened("faults"), json.loads(data_of("faults"))["cases"]
    played = []
    for _ in cases:
        case = shown(tab, cases)
        played.append(case["name"])
        diagnose(tab, case["diagnosis"])
        tab.locator(".verdict.right", has_text="✓ Right").wait_for()
        tab.keyboard.press("Enter")  # the button that goes on has the focus
    assert sorted(played) == sorted(case["name"] for case in cases)
    assert tab.text_content(".score") == "Score: 16 of 16 at the first try"


def test_a_wrong_diagnosis_looks_wrong_costs_the_point_and_is_named_at_the_end(opened):
    tab, cases = opened("faults", width=390), json.loads(data_of("faults"))["cases"]
    missed = shown(tab, cases)["diagnosis"]
    diagnose(tab, next(name for name in FAULTS if name != missed))
    said = tab.locator(".verdict.wrong")
    assert "✕ Not" in said.text_content() and CLUES[missed].look in said.text_content()
    wrong = said.locator("b").first.evaluate("node => getComputedStyle(node).color")
    for _ in cases:
        diagnose(tab, shown(tab, cases)["diagnosis"])
        right = tab.locator(".verdict b").first.evaluate("node => getComputedStyle(node).color")
        tab.locator("button.main").click()
    assert right != wrong and "15 of 16" in tab.text_content(".score")
    tab.locator("li", has_text=missed).locator("a[href^='09_diagnose.html#']").wait_for()


def test_a_seed_gives_the_same_order(opened):
    tab = opened("faults")
    first = tab.text_content("pre")
    tab.fill("input[type=number]", "2")
    tab.get_by_role("button", name="New order").click()
    other = tab.text_content("pre")
    tab.fill("input[type=number]", "1")
    tab.get_by_role("button", name="New order").click()
    assert tab.text_content("pre") == first != other
