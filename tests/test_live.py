"""The site's live controls, in a real browser: the same numbers as Python's, and everything that
they offer works by mouse, keyboard and touch, under a policy that allows a page's own files only.
"""
import itertools
import shutil
import sys
from pathlib import Path

import pytest
import torch

from minigpt_course.corpus import load_corpus
from minigpt_course.inside import attention_maps
from minigpt_course.text import CharTokenizer

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "tools"))

import heads
from live import LIVE, scripts

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


@pytest.mark.parametrize("name", ["bigram", "attention"])
def test_a_phone_has_room_for_it(opened, name):
    opened(name, width=390)


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
    assert says.text_content() == (
        f"After “t” came “h” {counts[t, h]:,} times of {counts[t].sum():,}. "
        f"Smoothed probability: {100 * probabilities[t, h]:.3g} %.")
    assert tab.input_value("select") == str(chars.index("q"))
    tab.mouse.click(*cell_of(tab, chars, "th"))
    assert tab.input_value("select") == str(t)
    tab.focus(".table")
    tab.keyboard.press("ArrowDown")
    assert says.text_content().startswith("After “u” came “h”")
    tab.keyboard.press("Enter")
    assert tab.input_value("select") == str(chars.index("u"))


def test_a_finger_chooses_a_row_on_a_phone(opened, bigram):
    tab = opened("bigram", width=390, has_touch=True)
    tab.touchscreen.tap(*cell_of(tab, bigram[2], "mn"))
    assert tab.input_value("select") == str(bigram[2].index("m"))
    assert tab.text_content(".says").startswith("After “m” came “n”")


def test_a_bar_appends_its_character(opened):
    tab = opened("bigram")
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
    tab.locator(".unknown", has_text="“7” is not in the model’s vocabulary").wait_for()


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
