"A text of the reader's own: whatever its line ends, characters and length."
import random
import subprocess
import sys

import pytest
import torch

from minigpt_course import corpus as texts
from minigpt_course.corpus import (
    IdFile, load_corpus, open_corpus, remarks, unknown_share, write_ids,
)
from minigpt_course.counted import baselines, counted_models
from minigpt_course.text import CharTokenizer, Corpus

PLAIN = "To be, or not to be:\nthat is the question.\n\n" * 40
ENDS = {"unix": "\n", "windows": "\r\n", "old mac": "\r"}


@pytest.mark.parametrize("ends", ENDS.values(), ids=ENDS)
def test_line_ends_make_no_other_text(tmp_path, ends):
    path = tmp_path / "text.txt"
    path.write_bytes(PLAIN.replace("\n", ends).encode())
    assert load_corpus(path).text == PLAIN
    write_ids(path, tmp_path / "ids", 24)
    kept = IdFile(tmp_path / "ids")
    assert kept.sha256 == load_corpus(path).sha256 == texts.text_digest(path)


def test_a_large_text_of_another_system_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(texts, "LARGE", 100)
    path = tmp_path / "text.txt"
    path.write_bytes(PLAIN.replace("\n", "\r\n").encode())
    for _ in range(2): assert isinstance(open_corpus(str(path), tmp_path / "run", 12), IdFile)
    with pytest.raises(ValueError, match="written with a vocab_size of 12: delete it, or choose"):
        open_corpus(str(path), tmp_path / "run", 13)
    characters = CharTokenizer.fit(PLAIN, 12)
    assert open_corpus(str(path), tmp_path / "run", 13, characters).tokenizer.vocab_size == 12


def said_of(text: str, vocab_size: int) -> list[str]:
    corpus = Corpus.from_text(text, "mine")
    tokenizer = CharTokenizer.fit(text, vocab_size)
    unknown = unknown_share(corpus, tokenizer, tokenizer.encode(corpus.train))
    return [*filter(None, [unknown]), *remarks(corpus, tokenizer)]


def test_an_ordinary_text_gets_no_remark():
    assert said_of(PLAIN * 300, 24) == []


def test_a_text_of_many_characters_is_told_the_size_that_would_do():
    many = "".join(chr(0x4E00 + i % 997 * (i % 13)) for i in range(500_000))
    [said] = said_of(many, 77)
    assert "mine is outside the vocabulary of 77 characters" in said
    size = int(said.split("a vocab_size of ")[1].split()[0].replace(",", ""))
    assert said_of(many, size) == []
    tokenizer = CharTokenizer.fit(many, size)
    assert (tokenizer.encode(many) == 0).double().mean() <= 0.001


def test_a_short_validation_set_is_said_to_be_short():
    [said] = said_of(PLAIN * 3, 24)
    assert "has 528 characters: its loss is known to about 0.09 only" in said


def test_a_last_part_unlike_the_rest():
    [said] = said_of(PLAIN * 300 + "0123456789\n" * 10_000, 34)
    assert "the validation set of mine is unlike its training set" in said


def drawn(characters: int) -> str:
    "A text in which nothing follows from anything."
    alphabet = [chr(0x4E00 + i) for i in range(characters)]
    return "".join(random.Random(0).choices(alphabet, k=40_000))


def test_a_python_without_lzma_has_the_other_baselines(monkeypatch):
    for name in "lzma", "_lzma": monkeypatch.setitem(sys.modules, name, None)
    text = drawn(16)
    losses = baselines(Corpus.from_text(text, "drawn"), CharTokenizer.fit(text, 24))
    assert "gzip" in losses and "xz" not in losses


@pytest.mark.parametrize("vocab_size", [255, 300, 2000])
def test_baselines_of_a_large_vocabulary(vocab_size):
    text = drawn(1999)
    losses = baselines(Corpus.from_text(text, "many"), CharTokenizer.fit(text, vocab_size))
    assert ("counted trigram" in losses) == (vocab_size < 369)
    assert all(0 < loss < 11 for loss in losses.values())


def test_a_wider_byte_changes_no_baseline():
    # 256 characters are one byte each, 257 two: the compressors must not charge for that
    corpus = Corpus.from_text(drawn(16), "drawn")
    one, two = (baselines(corpus, CharTokenizer.fit(corpus.text, size)) for size in (256, 257))
    assert two["xz"] == pytest.approx(one["xz"], rel=0.1)
    assert two["gzip"] == pytest.approx(one["gzip"], rel=0.25)


def test_counted_models_stay_in_memory():
    ids = torch.randint(50_000, (1000,))
    assert set(counted_models(ids, 50_000)) == {"frequencies"}


WITHOUT = """
import sys
sys.modules["lzma"] = sys.modules["_lzma"] = None
from minigpt_course.cli import main
sys.argv = ["minigpt", "generate", "pydocs", "--length", "9"]
main()
"""


def test_a_python_without_lzma_runs_the_command(tmp_path):
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True)
    assert done.returncode == 0 and len(done.stdout) >= 9, done.stderr


def test_how_long_a_text_must_be_is_said():
    from conftest import small_gpt
    from minigpt_course.core import check_fit
    corpus = Corpus.from_text(PLAIN[:100], "short")
    model = small_gpt(context_length=64, vocab_size=24)
    with pytest.raises(ValueError, match="give a text of at least 650 characters, or a smaller"):
        check_fit(model, corpus, corpus.fit_tokenizer(24))
    long_enough = Corpus.from_text((PLAIN * 9)[:650], "long enough")
    check_fit(model, long_enough, long_enough.fit_tokenizer(24))
