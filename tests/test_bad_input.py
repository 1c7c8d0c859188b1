"Whatever is wrong with what the reader gives: one clear error with the value and the way out."
import functools
import http.server
import json
import math
import os
import re
import socket
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import small_corpus, small_gpt
from minigpt_course import corpus as corpora
from minigpt_course import runs, saved, share
from minigpt_course.bigram import evaluate
from minigpt_course.core import fingerprint, read_about
from minigpt_course.corpus import SHAKESPEARE_SHA256, IdFile, load_corpus, write_ids
from minigpt_course.generate import KVCache, generate
from minigpt_course.gpt import GPTConfig
from minigpt_course.multihead import MultiHeadAttention
from minigpt_course.runs import COLUMNS, LearningCurve, evaluate_test
from minigpt_course.text import CharTokenizer, Corpus, get_batch
from minigpt_course.train import TrainConfig, train

SHORT = TrainConfig(steps=2, batch_size=2, warmup_steps=0, eval_every=2, checkpoint_every=1)


@pytest.fixture
def elsewhere(monkeypatch, tmp_path):
    "The built-in corpora are looked for in an empty cache, not in MINIGPT_DATA; the cache folder."
    monkeypatch.delenv("MINIGPT_DATA", raising=False)
    for name in "NO_PROXY", "no_proxy": monkeypatch.setenv(name, "127.0.0.1")
    monkeypatch.setattr(corpora, "_cache_folder", lambda: tmp_path / "cache")
    return tmp_path / "cache"


@pytest.fixture
def web(tmp_path):
    "The address of a server on this machine, and the folder whose files it serves."
    folder = tmp_path / "web"
    folder.mkdir()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", folder
    server.shutdown()
    server.server_close()


# corpora


@pytest.mark.parametrize("source", ["missing.txt", "."], ids=["missing", "a folder"])
def test_a_corpus_that_is_no_file(tmp_path, source):
    path = tmp_path / source
    said = f'no text file at {re.escape(str(path))}: give the path .* "pydocs"'
    with pytest.raises(FileNotFoundError, match=said): load_corpus(path)


NO_TEXT = {
    "empty": (b"", "is empty: a corpus needs text"),
    "blanks": (b" \n\t\r\n ", "is empty: a corpus needs text"),
    "latin-1": (b"caf\xe9", r"is not UTF-8 text \(byte 3 is 0xe9\): save it as UTF-8"),
    "NUL": (b"PK\0\0", r"is not text \(it holds a NUL character\): give a plain text file"),
}


@pytest.mark.parametrize("content, complaint", NO_TEXT.values(), ids=NO_TEXT)
def test_a_corpus_that_is_no_text(tmp_path, content, complaint):
    path = tmp_path / "corpus.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(str(path)) + " " + complaint): load_corpus(path)


def test_a_copy_of_tiny_shakespeare_with_another_hash(elsewhere, monkeypatch, tmp_path):
    path = tmp_path / "tinyshakespeare.txt"
    path.write_text("To be, or not to be")
    monkeypatch.setenv("MINIGPT_DATA", str(tmp_path))
    said = (f"{re.escape(str(path))} is not tiny Shakespeare: .* expected {SHAKESPEARE_SHA256}; "
            "delete it and fetch it again")
    with pytest.raises(ValueError, match=said): load_corpus("shakespeare")


def test_a_folder_that_has_no_tiny_shakespeare(elsewhere, monkeypatch, tmp_path):
    monkeypatch.setenv("MINIGPT_DATA", str(tmp_path))
    said = f"no tinyshakespeare.txt in {re.escape(str(tmp_path))}, which MINIGPT_DATA names: put it"
    with pytest.raises(FileNotFoundError, match=said): load_corpus("shakespeare")


def test_a_download_with_another_hash_is_refused_and_not_kept(elsewhere, monkeypatch, web):
    address, folder = web
    (folder / "input.txt").write_text("To be, or not to be")
    monkeypatch.setattr(corpora, "SHAKESPEARE_URL", f"{address}/input.txt")
    said = f"(?i)hash.* expected {SHAKESPEARE_SHA256}"
    with pytest.raises(ValueError, match=said): load_corpus("shakespeare")
    assert not [path for path in elsewhere.rglob("*") if path.is_file()]


def test_a_download_that_is_not_there(elsewhere, monkeypatch, web):
    monkeypatch.setattr(corpora, "SHAKESPEARE_URL", f"{web[0]}/missing.txt")
    said = "could not be downloaded from http.*: connect to the network, or .* MINIGPT_DATA"
    with pytest.raises(FileNotFoundError, match=said): load_corpus("shakespeare")


def test_a_download_from_a_machine_that_does_not_answer(elsewhere, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as closed: port = closed.getsockname()[1]
    monkeypatch.setattr(corpora, "SHAKESPEARE_URL", f"http://127.0.0.1:{port}/input.txt")
    said = f"could not be downloaded from http://127.0.0.1:{port}/.* MINIGPT_DATA"
    with pytest.raises(FileNotFoundError, match=said): load_corpus("shakespeare")


@pytest.mark.parametrize("length", [1, 15, 16])
def test_a_text_shorter_than_a_window(length):
    said = (f"{length} characters hold no window of 16 .*: give a longer text or a smaller "
            "context_length")
    with pytest.raises(ValueError, match=said):
        get_batch(torch.zeros(length, dtype=torch.long), 4, 16)


@pytest.mark.parametrize("length", [0, 1])
def test_a_text_without_a_target_cannot_be_judged(model, length):
    said = f"{length} characters hold no input with a target: give a longer text"
    with pytest.raises(ValueError, match=said):
        evaluate(model.train(), torch.zeros(length, dtype=torch.long), 16)
    assert model.training


SCRAPS = [
    (10, True, "the training set of scrap has 8 characters"),
    (10, False, "the training set of scrap has 9 characters"),
    (100, True, "the validation set of scrap has 10 characters"),
    (100, False, "the validation set of scrap has 10 characters"),
]


@pytest.mark.parametrize("length, has_test, said", SCRAPS)
def test_training_on_a_text_shorter_than_a_window(length, has_test, said):
    corpus = Corpus.from_text(small_corpus().text[:length], "scrap", has_test)
    wanted = f"{said}, too few .*: give a text of at least 170 characters"
    with pytest.raises(ValueError, match=wanted):
        train(small_gpt(), corpus, SHORT)


def test_a_test_set_of_a_corpus_that_has_none(tokenizer, model, capsys):
    corpus = Corpus.from_text(small_corpus().text, "hamlet", has_test=False)
    with pytest.raises(ValueError, match="hamlet has no test set: it is judged by validation"):
        evaluate_test(model, corpus, tokenizer)
    assert not capsys.readouterr().out


# characters and ids


def test_a_character_outside_the_vocabulary():
    said = (r"no character '€' \(at position 2\) and no unknown symbol: leave .* or fit the "
            "tokenizer")
    with pytest.raises(ValueError, match=said): CharTokenizer("ab").encode("ab€")


@pytest.mark.parametrize("chars", ["", "aa"])
def test_a_vocabulary_of_nothing_or_twice_the_same(chars):
    with pytest.raises(ValueError, match=f"at least one character and each once, not {chars!r}"):
        CharTokenizer(chars)


@pytest.mark.parametrize("vocab_size", [-1, 0, 1, 50_001])
def test_a_vocabulary_size_that_cannot_be_had(vocab_size):
    said = f"vocab_size={vocab_size} cannot be had: .* 2, and 50,000 is the most"
    with pytest.raises(ValueError, match=said): CharTokenizer.fit("ab", vocab_size)


@pytest.mark.parametrize("bad", [-1, 24])
def test_ids_out_of_range(model, tokenizer, bad):
    why, idx = "0 to 23: was another tokenizer used", torch.tensor([[0, bad]])
    with pytest.raises(ValueError, match=f"{bad}.* this vocabulary has {why}"):
        tokenizer.decode([0, bad])
    for forward in model, KVCache(model).feed:
        with pytest.raises(ValueError, match=f"{bad}.* this model knows {why}"): forward(idx)


def test_more_positions_than_the_context(model):
    cache, idx = KVCache(model), torch.zeros(1, 17, dtype=torch.long)
    complaint = "17 positions are more than this model's context_length=16: give it the last part"
    with pytest.raises(ValueError, match=complaint): model(idx)
    with pytest.raises(ValueError, match=complaint): cache.feed(idx)
    cache.feed(idx[:, :16])
    with pytest.raises(ValueError, match=complaint): cache.feed(idx[:, :1])


@pytest.mark.parametrize("content", [
    "", "{", "[]", "{}", '"ab"', '{"model": {"type": "BPE"}}', '{"chars": 5}', '{"chars": ""}',
    '{"chars": "aa"}', '{"chars": ["a", "b"]}', '{"chars": {"a": 0}}',
])
def test_a_tokenizer_file_that_is_something_else(tmp_path, content):
    path = tmp_path / "tokenizer.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=re.escape(str(path))): CharTokenizer.load(path)


def test_a_tokenizer_file_that_is_missing(tmp_path):
    path = tmp_path / "tokenizer.json"
    with pytest.raises(FileNotFoundError, match=re.escape(str(path))): CharTokenizer.load(path)


# sizes and training configurations


@pytest.mark.parametrize("kind", [MultiHeadAttention, GPTConfig])
def test_heads_that_do_not_divide(kind):
    said = "heads must divide embed_dim: 384 % 5 = 4; try num_heads=6"
    with pytest.raises(ValueError, match=said): kind(embed_dim=384, num_heads=5)


@pytest.mark.parametrize("value", [0, -1])
@pytest.mark.parametrize(
    "field", ["vocab_size", "context_length", "embed_dim", "num_heads", "num_blocks"]
)
def test_sizes_of_nothing_in_a_model(field, value):
    with pytest.raises(ValueError, match=f"{field}={value} must be a whole number of at least 1"):
        GPTConfig(**{field: value})


@pytest.mark.parametrize("value", [0, -1])
@pytest.mark.parametrize("field", ["steps", "batch_size", "eval_every", "checkpoint_every"])
def test_sizes_of_nothing_in_a_training_configuration(field, value):
    with pytest.raises(ValueError, match=f"{field}={value} must be a whole number of at least 1"):
        TrainConfig(**{field: value})


@pytest.mark.parametrize("field, value, complaint", [
    ("learning_rate", 0, "must be a number above 0"),
    ("learning_rate", -0.1, "must be a number above 0"),
    ("grad_clip", 0, "must be a number above 0"),
    ("warmup_steps", -1, "must be a whole number of at least 0"),
    ("warmup_steps", 1.5, "must be a whole number of at least 0"),
    ("seed", "a", "must be a whole number of at least 0"),
    ("min_lr_ratio", -0.1, "must be a number of at least 0"),
    ("weight_decay", "x", "must be a number of at least 0"),
    ("betas", (0.9, 1.0), "must be two numbers"),
    ("betas", (0.9,), "must be two numbers"),
    ("optimizer", "lion", "is unknown; there are adamw, muon"),
    ("optimizer", None, "is unknown; there are adamw, muon"),
])
def test_what_makes_no_sense_in_a_training_configuration(field, value, complaint):
    with pytest.raises(ValueError, match=re.escape(f"{field}={value!r} {complaint}")):
        TrainConfig(**{field: value})


@pytest.mark.parametrize("kind, field, value", [
    (TrainConfig, "learning_rate", np.float64(0.01)), (TrainConfig, "steps", np.int64(2)),
    (TrainConfig, "betas", (np.float64(0.9), 0.99)), (GPTConfig, "dropout", np.float64(0.1)),
])
def test_a_number_of_numpys_which_no_checkpoint_could_hold(kind, field, value):
    said = f"^{field}=.* must hold Python's own numbers, not NumPy's"
    with pytest.raises(ValueError, match=said): kind(**{field: value})


def test_a_model_without_weights_is_judged():
    class Uniform(torch.nn.Module):
        def forward(self, idx): return torch.zeros(*idx.shape, 24)
    assert evaluate(Uniform(), torch.randint(24, (100,)), 16) == pytest.approx(math.log(24))


# generating


@pytest.mark.parametrize("option, value, complaint", [
    ("temperature", -0.5, "temperature=-0.5 must be a number of at least 0: 0 is greedy"),
    ("temperature", float("nan"), "temperature=nan"),
    ("top_k", 0, "top_k=0 must be from 1 to the 24 characters"),
    ("top_k", 25, "top_k=25 must be from 1 to the 24 characters"),
    ("top_p", 0, "top_p=0 must be above 0 and at most 1"),
    ("top_p", 1.1, "top_p=1.1 must be above 0 and at most 1"),
    ("prompt", "", "the prompt is empty: give at least one character"),
    ("num_chars", -1, "num_chars=-1 must be a whole number of at least 0"),
    ("tokenizer", CharTokenizer("ab"),
     "the tokenizer has 2 characters, the model 24: use the tokenizer"),
])
def test_sampling_that_makes_no_sense(model, tokenizer, option, value, complaint):
    sensible = {"model": model, "tokenizer": tokenizer, "prompt": "To be"}
    with pytest.raises(ValueError, match=complaint): generate(**sensible | {option: value})


# runs


MUON = TrainConfig(**vars(SHORT) | {"optimizer": "muon"})
TWICE = Corpus.from_text(small_corpus().text * 2, "twice")
UNTESTED = Corpus.from_text(small_corpus().text, "hamlet", has_test=False)


@pytest.mark.parametrize("what, change, complaint", [
    ("model", {"model": small_gpt(num_blocks=1)}, "there num_blocks=2, here num_blocks=1"),
    ("training", {"config": TrainConfig(steps=3)}, "there steps=2,.* here steps=3"),
    ("training", {"config": MUON}, "there optimizer='adamw', here optimizer='muon'"),
    ("corpus", {"corpus": TWICE}, "there name='hamlet',.* here name='twice'"),
    ("corpus", {"corpus": UNTESTED}, "there training=1376, here training=1548"),
])
def test_a_run_of_something_else(tmp_path, corpus, what, change, complaint):
    ours = {"model": small_gpt(), "corpus": corpus, "config": SHORT, "run_dir": tmp_path}
    train(**ours)
    said = (f"{re.escape(str(tmp_path))} is the run of another {what}: {complaint}.*"
            "choose another run_dir")
    with pytest.raises(ValueError, match=said): train(**ours | change, resume=True)


@pytest.mark.parametrize("name, other_python", [("pydocs", True), ("hamlet", False)])
def test_only_a_run_of_another_manual_is_said_to_be_of_another_python(tmp_path, name, other_python):
    ours = {"model": small_gpt(), "corpus": Corpus.from_text(small_corpus().text, name),
            "config": SHORT, "run_dir": tmp_path}
    train(**ours)
    manual = Corpus.from_text(small_corpus().text[::-1], "pydocs")
    with pytest.raises(ValueError, match="is the run of another corpus") as refused:
        train(**ours | {"corpus": manual}, resume=True)
    assert ("that run's is of another Python" in str(refused.value)) == other_python


def test_a_refused_run_leaves_a_model_without_its_characters(tmp_path, corpus):
    train(small_gpt(), corpus, SHORT, tmp_path / "run")
    model, shouted = small_gpt(), Corpus.from_text(corpus.text.swapcase(), "shouted")
    with pytest.raises(ValueError, match="holds a run already"):
        train(model, corpus, SHORT, tmp_path / "run")
    train(model, shouted, SHORT, tmp_path / "new")
    assert model.chars == shouted.fit_tokenizer(24).chars


def test_a_whole_number_is_the_same_with_a_point(tmp_path, corpus):
    for number in 0, 0.0:
        config = TrainConfig(**vars(SHORT) | {"weight_decay": number})
        train(small_gpt(dropout=number), corpus, config, tmp_path, resume=True)


def test_a_run_dir_in_use_is_not_overwritten(tmp_path, corpus):
    train(small_gpt(), corpus, SHORT, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    said = (f"{re.escape(str(tmp_path))} holds a run already: go on with resume=True, "
            "or choose another")
    with pytest.raises(ValueError, match=said): train(small_gpt(), corpus, SHORT, tmp_path)
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir()}


def test_training_with_a_tokenizer_of_another_size(corpus):
    said = "the tokenizer has 2 characters, the model 24: .* make a model of that size"
    with pytest.raises(ValueError, match=said):
        train(small_gpt(), corpus, SHORT, tokenizer=CharTokenizer("ab"))


# formats of other versions


def as_format(path, version: int | None) -> None:
    "Rewrite a JSON file as another version would have written it; None: without saying which."
    about = json.loads(path.read_text())
    del about["format"], about["sha256"]
    if version is not None: about["format"] = version
    path.write_text(json.dumps(about | {"sha256": fingerprint(about)}))


def said_of_format(path, version: int, ours: int) -> str:
    older = (f"{path} is of format {version}, and this version reads {ours}: train again in "
             "another folder, or use the version that wrote it")
    newer = (f"{path} is of format {version}, newer than this version's {ours}: "
             "install a newer minigpt_course")
    return f"^{re.escape(newer if version > ours else older)}$"


@pytest.mark.parametrize("version", [None, 1, runs.RUN_FORMAT + 1])
def test_a_run_of_another_version(tmp_path, corpus, version):
    train(small_gpt(), corpus, SHORT, tmp_path)
    path = tmp_path / "run.json"
    as_format(path, version)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    said = said_of_format(path, version or 1, runs.RUN_FORMAT)
    with pytest.raises(ValueError, match=said):
        train(small_gpt(), corpus, SHORT, tmp_path, resume=True)
    with pytest.raises(ValueError, match=said): share.load(tmp_path)
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir()}


@pytest.mark.parametrize("version", [None, 1, saved.FORMAT + 1])
def test_a_saved_model_of_another_version(tmp_path, model, tokenizer, version):
    share.save(model, tokenizer, tmp_path)
    path = tmp_path / "minigpt.json"
    as_format(path, version)
    said = said_of_format(path, version or 1, saved.FORMAT)
    with pytest.raises(ValueError, match=said): share.load(tmp_path)


@pytest.mark.parametrize("content", [
    "", "{", "[]", "3", '"a"', "[[1, 2]]", "{}", '{"sha256": 1}', '{"format": "2"}', "NaN",
    '{"format": 1e999}', "[" * 100_000, '{"a": ' * 50_000, "9" * 10_000, b"\xff\xfe{}", b"\0",
])
def test_a_description_that_is_something_else(tmp_path, content):
    path = tmp_path / "minigpt.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))} is damaged, .*: copy it again"):
        read_about(path, saved.FORMAT, saved.KINDS)


# learning curves


HEADER = ",".join(COLUMNS)
NO_CURVES = {
    "empty": "",
    "other columns": "a,b\n1,2\n",
    "a word": HEADER + "\nzero,1,2,3,4,5,6\n",
    "a row cut off": HEADER + "\n0,16,0.5\n",
    "a row too long": HEADER + "\n0,16,1,1,1,1,1,1\n",
    "one long line": json.dumps({"text": "a" * 200_000}),
    "NUL": "\0\0",
}


@pytest.mark.parametrize("content", NO_CURVES.values(), ids=NO_CURVES)
def test_a_learning_curve_that_is_something_else(tmp_path, content):
    path = tmp_path / "curve.csv"
    path.write_text(content)
    with pytest.raises(ValueError, match=f"{re.escape(str(path))} is not a learning curve"):
        LearningCurve.from_csv(path)


def test_a_learning_curve_that_is_missing(tmp_path):
    path = tmp_path / "curve.csv"
    said = f"no learning curve at {re.escape(str(path))}: a run writes curve.csv"
    with pytest.raises(FileNotFoundError, match=said): LearningCurve.from_csv(path)


# ids on a disk


@pytest.fixture
def ids(tmp_path):
    "A folder with the ids of a text."
    (tmp_path / "play.txt").write_text(small_corpus().text)
    write_ids(tmp_path / "play.txt", tmp_path / "ids", 24)
    return tmp_path / "ids"


def test_a_flipped_bit_in_a_file_of_ids(ids):
    content = bytearray((ids / "ids.bin").read_bytes())
    content[700] ^= 1
    (ids / "ids.bin").write_bytes(content)
    said = f"{re.escape(str(ids / 'ids.bin'))} is damaged, its hash is another: delete .*ids and"
    with pytest.raises(ValueError, match=said): IdFile(ids)


def test_ids_without_their_file(ids):
    (ids / "ids.bin").unlink()
    with pytest.raises(ValueError, match=r"ids.bin does not have the .* ids that it should"):
        IdFile(ids)


def test_what_a_killed_writer_of_ids_left_goes_and_other_files_stay(ids):
    left, mine = ids / ".ids.bin.999999999.minigpt-partial", ids / ".film.partial"
    for path in left, mine: path.write_text("half")
    write_ids(ids.parent / "play.txt", ids, 24)
    assert not left.exists() and mine.exists() and IdFile(ids).name == "play.txt"


def test_ids_are_on_the_disk_before_they_have_their_name(ids, monkeypatch):
    done = []
    monkeypatch.setattr(os, "fsync", lambda file: done.append("fsync"))
    monkeypatch.setattr(os, "replace", lambda old, new: done.append(Path(new).name))
    write_ids(ids.parent / "play.txt", ids, 24)
    assert done == ["fsync", "ids.bin", "fsync", "ids.json"]


# a folder that a run cannot have


def test_a_run_dir_that_is_a_file(tmp_path, corpus):
    (tmp_path / "notes").write_text("mine")
    with pytest.raises(ValueError, match="notes is a file: choose a folder as run_dir"):
        train(small_gpt(), corpus, SHORT, tmp_path / "notes")
    assert (tmp_path / "notes").read_text() == "mine"


def test_a_refused_run_leaves_no_folder(tmp_path, corpus):
    with pytest.raises(ValueError, match="the tokenizer has 2 characters, the model 24"):
        train(small_gpt(), corpus, SHORT, tmp_path / "a" / "run", tokenizer=CharTokenizer("ab"))
    assert not (tmp_path / "a" / "run").exists()
