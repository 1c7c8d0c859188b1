"""A model as a page, in a real browser: the same numbers as PyTorch's, and everything on it works.

The browser is Chromium or Chrome (on Debian: `apt install chromium`); without one these tests are
skipped, and say so.
"""
import json
import re

import pytest
import torch

from conftest import rounded, small_gpt
from minigpt_course import pages
from minigpt_course.generate import KVCache, generate, next_probabilities
from minigpt_course.gpt import GPT
from minigpt_course.inside import attention_maps, logit_lens
from minigpt_course.pages import PAGE, page_weights, to_page
from minigpt_course.text import CharTokenizer

SETTINGS = {"temperature": 0.8, "topK": 5, "topP": 0.9}


@pytest.fixture
def script(browser):
    "Runs code beside the page's forward pass: `script(model, code)`; the model is `gpt`."
    tab = browser.new_page()
    tab.add_script_tag(content=(PAGE / "gpt.js").read_text() + (PAGE / "writer.js").read_text())

    def run(model: GPT, code: str, **values):
        tensors, content = page_weights(model.state_dict())
        about = {"config": vars(model.config), "tensors": tensors, "bytes": [*content], **values}
        return tab.evaluate("""about => {
            const bytes = Uint8Array.from(about.bytes).buffer
            const gpt = new GPT(about.config, unpack(about.tensors, bytes))
            """ + code + "}", about)
    yield run
    tab.close()


@pytest.fixture
def opened(browser, tmp_path, published):
    "The published model's page, and what it complained of or asked a network for."
    path, complaints = tmp_path / "page.html", []
    to_page(*published, path, prompt="Return the ")
    tab = browser.new_page(viewport={"width": 1200, "height": 900})
    tab.on("console", lambda message: complaints.append(message.text))
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on("request", lambda asked: complaints.append(asked.url)
           if not asked.url.startswith(("file:", "blob:")) else None)
    tab.goto(path.as_uri())
    tab.wait_for_selector("html[data-ready]")
    yield tab
    assert complaints == []
    tab.close()


FEED = """const logits = about.ids.map(id => [...gpt.feed(id)])
    return logits"""


@pytest.mark.parametrize("changes", [
    {}, {"activation": "gelu"}, {"output_projection": True}, {"tied_head": True},
    {"embed_dim": 18, "num_heads": 3}], ids=str)
def test_logits_are_those_of_pytorch(script, changes):
    model, ids = rounded(small_gpt(**changes)), torch.randint(24, (16,))
    found = torch.tensor(script(model, FEED, ids=ids.tolist()))
    with torch.no_grad(): torch.testing.assert_close(found, model(ids[None])[0], rtol=0, atol=1e-4)


def test_logits_of_trained_weights_and_attention_that_sums_to_one(script, published):
    model, tokenizer = published
    ids = tokenizer.encode("Return the length of the list, and raise a ValueError if it is empty")
    found = script(model, FEED.replace("return logits", """const sums = gpt.blocks.map(
        block => block.attention.map(map => map.slice(40 * gpt.T, 41 * gpt.T)
            .reduce((a, b) => a + b)))
    return [logits, sums, [...gpt.lens(63)[gpt.blocks.length]]]"""), ids=ids[:64].tolist())
    with torch.no_grad(): wanted = model(ids[None, :64])[0]
    torch.testing.assert_close(torch.tensor(found[0]), wanted, rtol=0, atol=1e-4)
    assert torch.tensor(found[1]).allclose(torch.ones(2, 4), atol=1e-5)
    assert torch.tensor(found[2]).allclose(wanted[-1].softmax(-1), atol=1e-5)


def test_greedy_text_is_that_of_generate_also_after_the_window_is_full(script, published):
    model, tokenizer = published
    written = script(model, """const writer = new Writer(gpt, about.chars)
        writer.begin("Return the ")
        for (let i = 0; i < 150; i++) {
            writer.append(writer.draw({temperature: 0, topK: 77, topP: 1}, Math.random))
        }
        return writer.text""", chars=tokenizer.chars)
    assert written == generate(model, tokenizer, "Return the ", 150, temperature=0)


def test_probabilities_are_those_of_the_library(script, model):
    logits = torch.randn(24)
    found = script(model, "return [...nextProbabilities(about.logits, about.settings)]",
                   logits=logits.tolist(), settings=SETTINGS)
    wanted = next_probabilities(logits, temperature=0.8, top_k=5, top_p=0.9)
    assert torch.tensor(found).allclose(wanted, atol=1e-6)


@pytest.mark.parametrize("top_p", [0.05, 0.5, 0.9])
def test_top_p_cuts_as_in_the_library(script, model, top_p):
    logits = torch.randn(24)
    found = script(model, "return [...nextProbabilities(about.logits, about.settings)]",
                   logits=logits.tolist(),
                   settings={"temperature": 1, "topK": 24, "topP": top_p})
    wanted = next_probabilities(logits, temperature=1.0, top_p=top_p)
    assert torch.tensor(found, dtype=torch.float).allclose(wanted, atol=1e-6)


def test_characters_are_drawn_with_their_probabilities(script, model):
    counts = script(model, """const writer = new Writer(gpt, about.chars), random = seeded(0)
        const counts = new Array(24).fill(0)
        writer.append(0)
        for (let i = 0; i < 20000; i++) counts[writer.draw(about.settings, random)]++
        return counts""", chars="abcdefghijklmnopqrstuvwx",
                    settings={"temperature": 1, "topK": 24, "topP": 1})
    wanted = KVCache(rounded(model)).feed(torch.tensor([[0]]))[0, 0].softmax(-1)
    assert (torch.tensor(counts) / 20_000).allclose(wanted, atol=0.02)


def test_heads_and_lens_of_a_chosen_position_are_those_of_pytorch(script, model):
    ids = torch.randint(24, (20,))  # the window of 16 was full: the last seven are seen
    start, position, rows, lens = script(model, """const writer = new Writer(gpt, about.chars)
        for (const id of about.ids) writer.append(id)
        const {start, position, rows, lens} = writer.state(about.settings, 15)
        return [start, position, rows.map(heads => heads.map(row => [...row])),
            lens.map(shares => [...shares])]""", ids=ids.tolist(), settings=SETTINGS,
                                         chars="abcdefghijklmnopqrstuvwx")
    same, seen = rounded(model), ids[None, 13:]
    with torch.no_grad(): maps, logits = attention_maps(same, seen), logit_lens(same, seen)
    assert (start, position) == (13, 15)
    wanted = maps[0, :, :, 2, :3], logits[:, 0, 2].softmax(-1)
    for found, right in zip((rows, lens), wanted):
        torch.testing.assert_close(torch.tensor(found), right, rtol=0, atol=1e-4)


def test_a_top_p_of_one_cuts_nothing(script, model):
    found = script(model, "return [...nextProbabilities(about.logits, about.settings)]",
                   logits=[0, -50, -60], settings={"temperature": 1, "topK": 3, "topP": 1})
    assert min(found) > 0


def test_greedy_looks_for_the_likeliest_once(script, model):
    assert script(model, """let calls = 0
        const largest = Math.max
        Math.max = (...all) => { calls++; return largest(...all) }
        nextProbabilities(new Float32Array(100), {temperature: 0, topK: 100, topP: 1})
        Math.max = largest
        return calls""") == 1


def test_losses_of_the_characters_are_those_of_the_model(script, model):
    ids = torch.randint(24, (12,))
    found = script(model, """const writer = new Writer(gpt, about.chars)
        for (const id of about.ids) writer.append(id)
        return writer.nll""", ids=ids.tolist(), chars="abcdefghijklmnopqrstuvwx")
    logits = KVCache(rounded(model)).feed(ids[None])[0]
    wanted = torch.nn.functional.cross_entropy(logits[:-1], ids[1:], reduction="none")
    assert found[0] is None and torch.tensor(found[1:]).allclose(wanted, atol=1e-4)


TEXTS = ["to be", "to be or not", "to be or not to be, that is", "to be or not to b", "to bet",
         "to be", "", "or"]


def test_a_text_that_is_edited_is_read_as_if_it_were_new(script, model):
    same, others = script(model, """const edited = new Writer(gpt, about.chars), apart = []
        for (const text of about.texts) {
            edited.begin(text)
            const state = edited.ids.length && [edited.text, [...edited.nll], [...edited.logits]]
            const fresh = new Writer(new GPT(about.config, gpt.weights), about.chars)
            fresh.begin(text)
            const wanted = fresh.ids.length && [fresh.text, [...fresh.nll], [...fresh.logits]]
            apart.push([state, wanted])
        }
        return [apart.map(pair => pair[0]), apart.map(pair => pair[1])]""",
                          texts=TEXTS, chars="\ufffd abcdefghijklmnopqrstu,")
    assert same == others and len(same[2][1]) == 27  # longer than the window of 16


def test_typing_writing_and_stopping(opened):
    opened.fill("#prompt", "import ")
    opened.locator("#about", has_text="Position 6").wait_for()
    assert opened.locator("#paper span").count() == 7
    opened.fill("#count", "30")
    opened.click("#write")
    opened.locator("#note", has_text="characters a second").wait_for()
    first = opened.input_value("#prompt")
    assert len(first) == 37 and first.startswith("import ")
    opened.fill("#prompt", "import ")
    opened.click("#write")  # the same seed
    opened.locator("#about", has_text="Position 36").wait_for()
    assert opened.input_value("#prompt") == first
    opened.locator("#count").evaluate("field => { field.max = 1e6 }")
    opened.fill("#count", "1000000")
    opened.click("#write")
    opened.locator("#write", has_text="Stop").click()
    opened.locator("#write", has_text="Write").wait_for()
    assert len(opened.input_value("#prompt")) < 1_000_037


def test_a_text_that_grows_while_it_is_edited_is_not_lost(opened):
    opened.fill("#count", "30")
    opened.focus("#prompt")
    opened.keyboard.press("Control+Enter")
    opened.locator("#note", has_text="characters a second").wait_for()
    assert len(opened.input_value("#prompt")) == 41
    assert opened.locator("#prompt").evaluate("own => own === document.activeElement")
    opened.fill("#count", "5000")
    opened.locator("#write").dblclick()  # the second click stops
    opened.locator("#paper span").nth(41).wait_for(state="attached")
    opened.locator("#write", has_text="Write").wait_for()
    stopped = opened.input_value("#prompt")
    opened.wait_for_timeout(200)
    assert opened.input_value("#prompt") == stopped and len(stopped) < 5041


def test_what_is_typed_while_it_writes_is_kept(opened):
    opened.fill("#count", "5000")
    opened.focus("#prompt")
    opened.keyboard.press("Control+Enter")
    opened.locator("#write", has_text="Stop").wait_for()
    opened.keyboard.press("Control+End")
    opened.keyboard.type("qq")
    opened.locator("#write", has_text="Write").wait_for()
    typed = opened.input_value("#prompt")
    assert typed.endswith("qq")
    opened.locator("#about", has_text=f"Position {len(typed) - 1},").wait_for()
    read = opened.locator("#paper").evaluate("paper => paper.textContent")
    assert read.replace("⏎\n", "\n") == typed


def test_the_unknown_symbol_may_stand_anywhere(script, model):
    ids = script(model, "return [...'abz'].map(x => new Writer({T: 8}, about.chars).idOf(x))",
                 chars="ab\ufffd")
    assert ids == [0, 1, 2]


def widths(tab) -> list[float]:
    "The bars of the next characters, in per cent of their fixed axis."
    found = tab.eval_on_selector_all("#next .bar", "bars => bars.map(bar => bar.style.width)")
    return [float(width.rstrip("%")) for width in found]


def test_temperature_is_seen_on_a_fixed_axis(opened):
    flat = widths(opened)
    opened.fill("#temperature", "0.1")
    opened.locator("#temperature-value", has_text="0.1").wait_for()
    opened.wait_for_function("""flat =>
        parseFloat(document.querySelector("#next .bar").style.width) > flat + 10""", arg=flat[0])
    assert sum(flat) <= 100.5


def test_a_character_is_chosen_by_click_mouse_and_keyboard(opened):
    opened.locator("#next button").first.click()
    opened.locator("#about", has_text="Position 11").wait_for()
    opened.locator("#paper span").nth(4).hover()
    opened.locator("#about", has_text="Position 4").wait_for()
    opened.focus("#paper")
    opened.keyboard.press("ArrowRight")
    opened.locator("#about", has_text="Position 5").wait_for()
    opened.locator("#maps button").nth(2).click()
    opened.locator("#about", has_text="head 2").wait_for()
    opened.select_option("#block", "1")
    opened.locator("#about", has_text="Block 1").wait_for()
    assert opened.locator("#lens tr").count() == 3
    assert opened.locator("#maps canvas").count() == 4


def test_a_click_chooses_the_character_on_which_the_mouse_rests(opened):
    letter = opened.locator("#paper span").nth(4)
    letter.hover()
    opened.locator("#about", has_text="Position 4,").wait_for()
    opened.focus("#paper")
    opened.keyboard.press("ArrowRight")
    opened.locator("#about", has_text="Position 5,").wait_for()
    letter.click()
    opened.locator("#about", has_text="Position 4,").wait_for()


def test_what_is_typed_while_a_long_text_is_read_is_read_at_once(opened):
    opened.fill("#prompt", "a" * 3000)
    opened.locator("#about", has_text="Position 2999,").wait_for()
    opened.evaluate("""() => {
        const post = worker.postMessage.bind(worker)
        window.texts = 0
        worker.postMessage = asked => { texts += asked.text !== undefined; post(asked) }
        document.getElementById("prompt").setSelectionRange(0, 0)
    }""")
    opened.focus("#prompt")
    opened.keyboard.type("hello world")
    opened.locator("#about", has_text="Position 3010,").wait_for()
    assert opened.evaluate("texts") < 6


def test_what_is_pressed_keeps_the_focus(opened):
    for selector in "#next button", "#maps button":
        opened.locator(selector).nth(1).focus()
        opened.keyboard.press("Enter")
        opened.keyboard.press("Enter")
        assert opened.locator(selector).nth(1).evaluate("own => own === document.activeElement")
    opened.locator("#about", has_text="Position 12").wait_for()  # two characters were appended


def test_no_text_leaves_nothing_behind(opened):
    opened.fill("#prompt", "")
    opened.locator("#about", has_text="Nothing yet").wait_for()
    for selector in "#next li", "#maps canvas", "#lens tr":
        assert opened.locator(selector).count() == 0


def test_numbers_out_of_range_are_brought_into_it(opened):
    for field, typed, read in ("#top-k", "0", "1"), ("#top-k", "500", "77"), ("#count", "-5", "1"):
        opened.fill(field, typed)
        opened.press(field, "Tab")
        assert opened.input_value(field) == read


def test_what_the_model_no_longer_sees_is_said_to_be_so(opened):
    assert opened.text_content("#sight") == ""
    opened.fill("#prompt", "a" * 70)
    opened.locator("#sight", has_text="It sees at most 64 characters").wait_for()
    assert opened.locator("#paper .forgotten").count() > 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone(browser, tmp_path, published, scheme):
    to_page(*published, tmp_path / "page.html")
    tab = browser.new_page(viewport={"width": 360, "height": 740}, color_scheme=scheme)
    tab.goto((tmp_path / "page.html").as_uri())
    tab.wait_for_selector("html[data-ready]")
    assert tab.evaluate("document.documentElement.scrollWidth") <= 360
    tab.close()


def test_a_screen_reader_hears_no_flood_and_the_names_of_blanks(opened):
    opened.fill("#prompt", "Return the")
    opened.locator("#about", has_text="Position 9,").wait_for()
    labels = opened.eval_on_selector_all("#next button", "all => all.map(each => each.ariaLabel)")
    assert any(label.startswith("append a space,") for label in labels)
    opened.fill("#count", "5000")
    opened.click("#write")
    opened.locator("#about[aria-live=off]").wait_for()
    opened.click("#write")
    opened.locator("#about[aria-live=polite]").wait_for()


def test_no_field_is_so_small_that_a_phone_zooms_in(opened):
    sizes = opened.eval_on_selector_all(
        "textarea, select, input[type=number]",
        "all => all.map(each => parseFloat(getComputedStyle(each).fontSize))")
    assert min(sizes) >= 16


def test_every_field_has_a_name_for_a_screen_reader(opened):
    unnamed = opened.evaluate("""[...document.querySelectorAll('input, select, textarea')]
        .filter(field => !field.labels.length).map(field => field.id)""")
    assert unnamed == []


def test_a_page_asks_no_network_for_anything():
    source = (PAGE / "page.html").read_text(encoding="utf-8")
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', source)
    assert policy[1].startswith("default-src 'none'") and "http" not in policy[1]


HOSTILE = "</script><script>throw 1</script>&\"'<!--"


def test_what_a_corpus_holds_stays_text(browser, tmp_path):
    chars = "".join(sorted(set(HOSTILE)))
    model = small_gpt(vocab_size=len(chars))
    to_page(model, CharTokenizer(chars), tmp_path / "page.html", HOSTILE, HOSTILE,
            {"corpus": HOSTILE})
    tab, errors = browser.new_page(), []
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.goto((tmp_path / "page.html").as_uri())
    tab.wait_for_selector("html[data-ready]")
    assert tab.text_content("h1") == HOSTILE and tab.input_value("#prompt") == HOSTILE
    assert tab.locator("#paper").text_content() == HOSTILE and errors == []
    tab.close()


# what is refused


def test_a_tokenizer_of_another_size(tmp_path, model):
    with pytest.raises(ValueError, match="the tokenizer has 2 characters, the model 24"):
        to_page(model, CharTokenizer("ab"), tmp_path / "page.html")


def test_a_weight_that_is_not_finite(tmp_path, model, tokenizer):
    model.norm.weight.data[0] = torch.nan
    with pytest.raises(ValueError, match="norm.weight holds numbers that are not finite"):
        to_page(model, tokenizer, tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_a_model_that_is_too_large(tmp_path, model, tokenizer, monkeypatch):
    monkeypatch.setattr(pages, "LARGEST", 1000)
    with pytest.raises(ValueError, match="a page holds at most 1,000 parameters"):
        to_page(model, tokenizer, tmp_path / "page.html")


def test_weights_stand_where_the_list_says(model):
    tensors, content = page_weights(model.state_dict())
    assert {tensor["name"] for tensor in tensors} == model.state_dict().keys()
    assert all(tensor["at"] % 4 == 0 for tensor in tensors)
    assert len(content) < 2 * sum(weight.numel() for weight in model.parameters())
    assert json.loads(pages.for_script({"a": "</script>"})) == {"a": "</script>"}


STRENGTHS = """spans => spans.map(span => [+span.style.getPropertyValue("--strength"),
    parseFloat(span.title.split(": ").at(-1)) || 0])"""


def test_colour_is_the_loss_or_what_the_chosen_position_looks_at(opened):
    for strength, nll in opened.eval_on_selector_all("#paper span", STRENGTHS):
        assert strength == pytest.approx(min(1, nll / 5), abs=0.002)
    opened.check("[value=attention]")
    shares = [share for share, _ in opened.eval_on_selector_all("#paper span", STRENGTHS)]
    assert sum(shares) == pytest.approx(1, abs=0.01)


def test_the_maps_are_those_of_the_chosen_block(opened):
    pixels = "() => [...document.querySelectorAll('#maps canvas')].map(map => map.toDataURL())"
    first = opened.evaluate(pixels)
    opened.select_option("#block", "1")
    opened.locator("#about", has_text="Block 1").wait_for()
    assert all(one != other for one, other in zip(first, opened.evaluate(pixels), strict=True))


def test_another_seed_writes_another_text(opened):
    texts = []
    for seed in "0", "1":
        opened.fill("#prompt", "Return the ")
        opened.locator("#about", has_text="Position 10,").wait_for()
        opened.fill("#seed", seed)
        opened.click("#write")
        opened.locator("#note", has_text="characters a second").wait_for()
        texts.append(opened.input_value("#prompt"))
    assert texts[0] != texts[1] and len(texts[0]) == len(texts[1]) == 211
