"""The site's live controls, in a real browser: the same numbers as Python's, and everything that
they offer works by mouse, keyboard and touch, under a policy that allows a page's own files only.
"""
import itertools
import json
import random
import re
import shutil
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from minigpt_course.corpus import load_corpus
from minigpt_course.faults import FAULTS, HEALTHY
from minigpt_course.generate import generate
from minigpt_course.gpt import GPTConfig, parameter_ledger, training_flops, training_memory
from minigpt_course.inside import attention_maps
from minigpt_course.text import CharTokenizer

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "tools"))

import heads
from clues import CLUES
from live import LIVE, MAKERS, data_of, gpt2_note, scripts

HARNESS = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; script-src 'self'; style-src 'self'">
<link rel="stylesheet" href="live.css">
{scripts}
{controls}
"""


def harness(names: tuple[str, ...], folder: Path) -> Path:
    "A page with nothing but controls."
    files = dict.fromkeys(file for name in names for file in scripts(name, folder))
    loaded = "\n".join(f'<script src="{file}"></script>' for file in files)
    controls = "\n".join(f'<div class="live" data-live="{name}"></div>' for name in names)
    shutil.copy(LIVE / "live.css", folder)
    page = folder / "page.html"
    page.write_text(HARNESS.format(scripts=loaded, controls=controls), encoding="utf-8")
    return page


@pytest.fixture
def opened(browser, tmp_path):
    """Opens controls: `opened("bigram", width=390, color_scheme="dark")` is a tab of the browser.
    At its end a test fails if a control complained, asked for anything but its own files, or did
    not fit the screen's width."""
    tabs, complaints = [], []

    def open_controls(*names: str, width: int = 1200, **options):
        page = harness(names, tmp_path)
        tab = browser.new_page(viewport={"width": width, "height": 900}, **options)
        tab.on("console", lambda message: complaints.append(message.text))
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.on("request", lambda asked: complaints.append(asked.url)
               if not asked.url.startswith(tmp_path.as_uri()) else None)
        tabs.append(tab)
        tab.goto(page.as_uri())
        tab.wait_for_function(
            "count => document.querySelectorAll('[data-ready]').length === count", arg=len(names))
        frames(tab)  # some draw first in a frame of their own
        return tab

    yield open_controls
    assert complaints == []
    for tab in tabs:
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
        tab.close()


def test_all_controls_stand_side_by_side_and_fit_a_phone(opened):
    tab = opened(*MAKERS, width=390)
    assert len(MAKERS) == 5 and tab.evaluate("matchMedia('(max-width: 390px)').matches")


PIXELS = "() => [...document.querySelectorAll('canvas')].map(canvas => canvas.toDataURL())"


def test_pictures_take_the_colours_of_the_theme(opened):
    tab = opened("bigram", "attention", color_scheme="light")
    before = tab.evaluate(PIXELS)
    tab.evaluate("() => { document.body.dataset.theme = 'dark' }")
    assert all(one != other for one, other in zip(before, tab.evaluate(PIXELS), strict=True))


# 02: the bigram table


@pytest.fixture(scope="module")
def bigram() -> tuple[torch.Tensor, torch.Tensor, str]:
    "Counts, probabilities and vocabulary, as in notebook 02."
    corpus = load_corpus("pydocs")
    tokenizer = corpus.fit_tokenizer()
    train_ids, _ = corpus.encode(tokenizer)
    V = tokenizer.vocab_size
    counts = torch.bincount(train_ids[:-1] * V + train_ids[1:], minlength=V * V).view(V, V)
    unigram = train_ids.bincount(minlength=V) / len(train_ids)
    return counts, (counts + 4 * unigram) / (counts.sum(dim=1, keepdim=True) + 4), tokenizer.chars


ALL_BARS = """() => {
    const chosen = document.querySelector("select")
    return [...chosen.options].map(option => {
        chosen.value = option.value
        chosen.dispatchEvent(new Event("change"))
        const bars = [...document.querySelectorAll(".bars .bar")]
        return bars.map(bar => parseFloat(bar.style.width) / 100)
    })
}"""


def test_the_table_is_that_of_notebook_02(opened, bigram):
    tab, (_, probabilities, _) = opened("bigram"), bigram
    wanted = probabilities.topk(10).values
    torch.testing.assert_close(torch.tensor(tab.evaluate(ALL_BARS)), wanted, rtol=0, atol=1e-6)


ALPHAS = """() => {
    const canvas = document.querySelector("canvas"), {width, height} = canvas
    const {data} = canvas.getContext("2d").getImageData(0, 0, width, height)
    return Array.from({length: width * height}, (_, i) => data[4 * i + 3])
}"""


def test_the_coloured_cells_are_the_pairs_that_occur(opened, bigram):
    counts = bigram[0]
    alphas = torch.tensor(opened("bigram").evaluate(ALPHAS)).view_as(counts)
    assert torch.equal(alphas > 0, counts > 0)


def cell_of(tab, chars: str, pair: str) -> tuple[float, float]:  # x and y
    "The middle of a pair's cell on the screen."
    box = tab.locator(".border").bounding_box()
    row, column = (box["width"] * (chars.index(char) + 0.5) / len(chars) for char in pair)
    return box["x"] + column, box["y"] + row


def test_the_table_answers_mouse_and_keyboard(opened, bigram):
    tab, (counts, probabilities, chars) = opened("bigram"), bigram
    t, h = chars.index("t"), chars.index("h")
    tab.mouse.move(*cell_of(tab, chars, "th"))
    says = tab.locator(".says")
    assert says.inner_text().replace("\N{NO-BREAK SPACE}", " ") == (
        f"After “t” came “h” {counts[t, h]:,} times of {counts[t].sum():,}. "
        f"Smoothed probability: {100 * probabilities[t, h]:.3g} %.")
    tab.mouse.click(*cell_of(tab, chars, "mn"))
    assert tab.input_value("select") == str(chars.index("m"))
    tab.focus(".table")
    tab.keyboard.press("ArrowDown")
    assert says.text_content().startswith("After “n” came “n”")
    tab.keyboard.press("Enter")
    assert tab.input_value("select") == str(chars.index("n"))


def test_a_finger_chooses_a_row_on_a_phone(opened, bigram):
    tab = opened("bigram", width=390, has_touch=True)
    tab.touchscreen.tap(*cell_of(tab, bigram[2], "mn"))
    assert tab.input_value("select") == str(bigram[2].index("m"))
    assert tab.text_content(".says").startswith("After “m” came “n”")


def test_a_bar_appends_its_character(opened):
    tab = opened("bigram")
    tab.get_by_role("button", name="after q").click()
    tab.locator(".bars button").first.click()
    assert tab.text_content(".paper") == "qu"
    assert tab.locator(".visited").count() == 1


def test_the_same_seed_writes_the_same_text(opened, bigram):
    tab, (_, probabilities, chars) = opened("bigram", reduced_motion="reduce"), bigram
    texts = []
    for seed in "1", "0", "0":
        tab.get_by_role("button", name="after q").click()
        tab.fill(".seed", seed)
        tab.click(".write")
        texts.append(tab.text_content(".paper"))
    assert texts[0] != texts[1] == texts[2] and len(texts[1]) == 41
    ids = CharTokenizer(chars).encode(texts[2])
    loss = -probabilities[ids[:-1], ids[1:]].log().mean()
    assert f"{loss:.2f} nats per character" in tab.text_content(".loss")


def test_the_walk_is_drawn_step_by_step_and_can_be_stopped(opened):
    tab = opened("bigram")
    tab.click(".write")
    tab.wait_for_function("() => document.querySelector('.paper').textContent.length > 3")
    tab.locator(".write", has_text="Stop").click()
    tab.locator(".write", has_text="Write").wait_for()
    assert 3 < len(tab.text_content(".paper")) < 41
    assert tab.locator(".path").get_attribute("points").count(",") == 6


# 03 and 11: attention

SHARES = """letters => letters.map(
    letter => parseFloat(letter.style.getPropertyValue("--share")) / 100)"""


def shares(tab) -> torch.Tensor:  # (T,)
    return torch.tensor(tab.eval_on_selector_all(".letters > span", SHARES))


def test_attention_is_that_of_pytorch_in_every_head(opened, published):
    tab, (model, tokenizer) = opened("attention"), published
    for preset in heads.presets(model, tokenizer, load_corpus("pydocs").validation, windows=10):
        tab.get_by_role("button", name=preset["name"], exact=True).click()
        maps = attention_maps(model, tokenizer.encode(preset["text"])[None])[0]
        wanted = maps[:, :, preset["position"]]
        chosen = tab.locator(".maps [aria-pressed=true]").element_handle()
        for block, head in itertools.product(range(2), range(4)):
            button = tab.get_by_role("group", name=f"block {block}").get_by_role("button").nth(head)
            if (block, head) == (preset["block"], preset["head"]):
                assert button.element_handle().evaluate("(one, other) => one === other", chosen)
            button.click()
            torch.testing.assert_close(shares(tab), wanted[block, head], rtol=0, atol=1e-4)


def place(tab) -> int:
    "Where the framed character stands."
    return tab.evaluate("""() => [...document.querySelectorAll(".letters > span")]
        .findIndex(letter => letter.className === "chosen")""")


def test_a_character_is_chosen_by_mouse_click_and_keyboard(opened):
    tab = opened("attention")
    letters, framed = tab.locator(".letters > span"), tab.locator(".letters .chosen b")
    before = place(tab)
    letters.nth(4).hover()
    assert place(tab) == 4 and framed.text_content() == "r"
    assert letters.nth(3).locator("small").text_content() == "100"
    assert tab.locator(".future").count() == letters.count() - 5
    tab.mouse.move(0, 0)
    assert place(tab) == before
    letters.nth(4).click()
    tab.mouse.move(0, 0)
    assert place(tab) == 4
    tab.focus(".letters")
    tab.keyboard.press("ArrowLeft")
    assert place(tab) == 3


def test_what_is_typed_is_read_up_to_the_context_length(opened, published):
    tab, (model, tokenizer) = opened("attention"), published
    for text in "Raise an error", "Raise error (see <b>7", "x" * 70, "":
        tab.fill("textarea", text)
        seen = tokenizer.encode(text[:64])
        tab.wait_for_function(
            "count => document.querySelector('.letters').children.length === count", arg=len(seen))
        if not text: continue
        wanted = attention_maps(model, seen[None])[0, 0, 3, -1]
        torch.testing.assert_close(shares(tab), wanted, rtol=0, atol=1e-4)
    assert tab.text_content(".says").startswith("Nothing to look at yet")
    tab.fill("textarea", "7")
    tab.locator(".unknown", has_text="Not in the model’s vocabulary, and read as �: 7").wait_for()


def test_what_is_said_of_heads_is_so(published):
    model, tokenizer = published
    ids = tokenizer.encode(load_corpus("pydocs").validation[:19_200]).view(-1, 64)
    maps, texts = attention_maps(model, ids), [tokenizer.decode(window) for window in ids]
    for head, back in (3, 1), (1, 2), (2, 3):
        assert heads.back(maps[:, 0, head], back).head > 0.9
    closing = heads.brackets(maps[:, 1, 0], texts)
    starts = heads.first_letters(maps[:, 1, 1], texts)
    assert closing.head > 0.6 and closing.even < 0.1
    assert starts.head > 0.5 and starts.even < 0.25
    text = tokenizer.encode("Read the file again (in text mode")
    whole, without = heads.next_with_and_without(model, text, tokenizer.chars.index(")"), 1, 0)
    assert whole > 0.25 and without < 0.03
    assert attention_maps(model, text[None])[0, 1, 0, -1, 20] > 0.95  # on the open bracket


def test_shares_by_hand():
    weights = torch.tensor([[[1.0, 0, 0], [0.75, 0.25, 0], [0.5, 0.25, 0.25]]])
    share = heads.back(weights, 1)
    assert share.head == (0.75 + 0.25) / 2 and share.even == pytest.approx((1 / 2 + 1 / 3) / 2)
    assert heads.bracket_pairs("a (b (cde)) (f)") == [(5, 9), (2, 10)]


def frames(tab) -> None:
    "Waits until what was asked to be drawn is drawn."
    tab.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


# 06: the size of a GPT


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


# 08: sampling


def written(tab, which: str = "Write") -> list[str]:
    "The texts after a press of that button."
    tab.get_by_role("button", name=which, exact=True).click()
    tab.get_by_role("button", name=which, exact=True).wait_for()
    return tab.locator(".text").all_text_contents()


def test_greedy_text_in_the_browser_is_that_of_generate(opened, published):
    tab = opened("sampling")
    tab.fill("[data-name=temperature]", "0")
    tab.fill("[data-name=prompt]", "Return the ")
    wanted = generate(*published, "Return the ", 200, temperature=0)
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


# 09: the quiz


def diagnose(tab, name: str) -> None:
    tab.locator(".choices").get_by_role("button", name=name, exact=True).click()


def shown(tab, cases: list[dict]) -> dict:
    "The case before the player's eyes."
    text, loss = tab.text_content("pre"), tab.text_content(".key tr:nth-child(2) td:last-child")
    found, = [case for case in cases if case["text"] == text
              and loss.startswith(f"{case['validations'][-1][1]:.2f}")]
    return found


def test_the_evidence_is_marked_only_after_the_answer(opened):
    tab, cases = opened("faults"), json.loads(data_of("faults"))["cases"]
    diagnose(tab, shown(tab, cases)["diagnosis"])
    assert tab.locator(".solved").count() == 1
    tab.locator("button.go").click()
    assert tab.locator(".solved").count() == 0


def test_browsers_that_know_no_light_dark_have_plain_colours():
    css = (LIVE / "live.css").read_text(encoding="utf-8")
    plain = re.sub(r"@supports[^{]*\{(?:[^{}]*\{[^}]*\})*\s*\}", "", css)
    assert "light-dark" not in plain and "--accent: #0b5fa5" in plain


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
        tab.locator("button.go").click()
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
