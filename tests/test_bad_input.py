"Whatever is wrong with what the reader gives: one clear error that names the value and the way out."
import functools, http.server, json, re, socket, threading

import pytest
import torch

from conftest import small_corpus, small_gpt
from minigpt_course import text
from minigpt_course.generate import generate
from minigpt_course.generate import KVCache
from minigpt_course.gpt import GPTConfig
from minigpt_course.multihead import MultiHeadAttention
from minigpt_course.corpus import SHAKESPEARE_SHA256, load_corpus
from minigpt_course.text import CharTokenizer, Corpus, get_batch
from minigpt_course.train import train
from minigpt_course.runs import COLUMNS, LearningCurve
from minigpt_course.train import TrainConfig

SHORT = TrainConfig(steps=2, batch_size=2, warmup_steps=0, eval_every=2, checkpoint_every=1)


@pytest.fixture
def elsewhere(monkeypatch, tmp_path):
    "The built-in corpora are looked for in an empty cache and not in MINIGPT_DATA; the cache folder."
    monkeypatch.delenv("MINIGPT_DATA", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(text, "_cache_folder", lambda: tmp_path / "cache")
    return tmp_path / "cache"


@pytest.fixture
def web(tmp_path):
    "The address of a server on this machine, and the folder whose files it serves."
    folder = tmp_path / "web"
    folder.mkdir()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder))
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", folder
    server.shutdown()
    server.server_close()


# corpora


@pytest.mark.parametrize("source", ["missing.txt", "."], ids=["missing", "a folder"])
def test_a_corpus_that_is_no_file(tmp_path, source):
    with pytest.raises(FileNotFoundError, match=f'no text file at {re.escape(str(tmp_path / source))}: give the path .* "pydocs"'):
        load_corpus(tmp_path / source)


@pytest.mark.parametrize("content, complaint", [
    (b"", "is empty: a corpus needs text"),
    (b" \n\t\r\n ", "is empty: a corpus needs text"),
    (b"caf\xe9", r"is not UTF-8 text \(byte 3 is 0xe9\): save it as UTF-8"),
    (b"PK\0\0", r"is not text \(it holds a NUL character\): give a plain text file"),
], ids=["empty", "blanks", "latin-1", "NUL"])
def test_a_corpus_that_is_no_text(tmp_path, content, complaint):
    path = tmp_path / "corpus.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(str(path)) + " " + complaint): load_corpus(path)


def test_a_copy_of_tiny_shakespeare_with_another_hash(elsewhere, monkeypatch, tmp_path):
    path = tmp_path / "tinyshakespeare.txt"
    path.write_text("To be, or not to be")
    monkeypatch.setenv("MINIGPT_DATA", str(tmp_path))
    with pytest.raises(ValueError, match=f"{re.escape(str(path))} is not tiny Shakespeare: .* expected {SHAKESPEARE_SHA256}; delete it and fetch it again"):
        load_corpus("shakespeare")


def test_a_download_with_another_hash_is_refused_and_not_kept(elsewhere, monkeypatch, web):
    address, folder = web
    (folder / "input.txt").write_text("To be, or not to be")
    monkeypatch.setattr(text, "SHAKESPEARE_URL", f"{address}/input.txt")
    with pytest.raises(ValueError, match=f"(?i)hash.* expected {SHAKESPEARE_SHA256}"): load_corpus("shakespeare")
    assert not [path for path in elsewhere.rglob("*") if path.is_file()]


def test_a_download_that_is_not_there(elsewhere, monkeypatch, web):
    monkeypatch.setattr(text, "SHAKESPEARE_URL", f"{web[0]}/missing.txt")
    with pytest.raises(FileNotFoundError, match="could not be downloaded from http.*: connect to the network, or .* MINIGPT_DATA"): load_corpus("shakespeare")


def test_a_download_from_a_machine_that_does_not_answer(elsewhere, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as closed: port = closed.getsockname()[1]
    monkeypatch.setattr(text, "SHAKESPEARE_URL", f"http://127.0.0.1:{port}/input.txt")
    with pytest.raises(FileNotFoundError, match=f"could not be downloaded from http://127.0.0.1:{port}/.* MINIGPT_DATA"): load_corpus("shakespeare")


@pytest.mark.parametrize("length", [1, 15, 16])
def test_a_text_shorter_than_a_window(length):
    with pytest.raises(ValueError, match=f"{length} characters hold no window of 16 .*: give a longer text or a smaller context_length"):
        get_batch(torch.zeros(length, dtype=torch.long), 4, 16)


@pytest.mark.parametrize("length, part", [(10, "training"), (100, "validation")])
def test_training_on_a_text_shorter_than_a_window(length, part):
    corpus = Corpus.from_text(small_corpus().text[:length], "scrap")
    with pytest.raises(ValueError, match=f"the {part} part of scrap has {length * 9 // 10 if part == 'training' else 10} characters.*: give a longer text"):
        train(small_gpt(), corpus, SHORT)


# characters and ids


def test_a_character_outside_the_vocabulary():
    with pytest.raises(ValueError, match=r"no character '€' \(at position 2\) and no unknown symbol: leave .* or fit the tokenizer"):
        CharTokenizer("ab").encode("ab€")


@pytest.mark.parametrize("chars", ["", "aa"])
def test_a_vocabulary_of_nothing_or_twice_the_same(chars):
    with pytest.raises(ValueError, match=f"at least one character and each once, not {chars!r}"): CharTokenizer(chars)


@pytest.mark.parametrize("vocab_size", [-1, 0, 1, 50_001])
def test_a_vocabulary_size_that_cannot_be_had(vocab_size):
    with pytest.raises(ValueError, match=f"vocab_size={vocab_size} cannot be had: .* 2, and 50,000 is the most"): CharTokenizer.fit("ab", vocab_size)


@pytest.mark.parametrize("bad", [-1, 24])
def test_ids_out_of_range(model, tokenizer, bad):
    with pytest.raises(ValueError, match=f"{bad}.* this vocabulary has 0 to 23: was another tokenizer used"): tokenizer.decode([0, bad])
    with pytest.raises(ValueError, match=f"{bad}.* this model knows 0 to 23: was another tokenizer used"): model(torch.tensor([[0, bad]]))
    with pytest.raises(ValueError, match=f"{bad}.* this model knows 0 to 23: was another tokenizer used"): KVCache(model).feed(torch.tensor([[0, bad]]))


def test_more_positions_than_the_context(model):
    cache, idx = KVCache(model), torch.zeros(1, 17, dtype=torch.long)
    complaint = "17 positions are more than this model's context_length=16: give it the last part"
    with pytest.raises(ValueError, match=complaint): model(idx)
    with pytest.raises(ValueError, match=complaint): cache.feed(idx)
    cache.feed(idx[:, :16])
    with pytest.raises(ValueError, match=complaint): cache.feed(idx[:, :1])


@pytest.mark.parametrize("content", [
    "", "{", "[]", "{}", '"ab"', '{"model": {"type": "BPE"}}', '{"chars": 5}', '{"chars": ""}', '{"chars": "aa"}', '{"chars": ["a", "b"]}', '{"chars": {"a": 0}}',
])
def test_a_tokenizer_file_that_is_something_else(tmp_path, content):
    path = tmp_path / "tokenizer.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=re.escape(str(path))): CharTokenizer.load(path)


def test_a_tokenizer_file_that_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match=re.escape(str(tmp_path / "tokenizer.json"))): CharTokenizer.load(tmp_path / "tokenizer.json")


# sizes and recipes


@pytest.mark.parametrize("build", [lambda: MultiHeadAttention(384, 5), lambda: GPTConfig(embed_dim=384, num_heads=5)], ids=["heads", "config"])
def test_heads_that_do_not_divide(build):
    with pytest.raises(ValueError, match="heads must divide embed_dim: 384 % 5 = 4; try num_heads=6"): build()


@pytest.mark.parametrize("value", [0, -1])
@pytest.mark.parametrize("field", ["vocab_size", "context_length", "embed_dim", "num_heads", "num_blocks"])
def test_sizes_of_nothing_in_a_model(field, value):
    with pytest.raises(ValueError, match=f"{field}={value} must be a whole number of at least 1"): GPTConfig(**{field: value})


@pytest.mark.parametrize("value", [0, -1])
@pytest.mark.parametrize("field", ["steps", "batch_size", "eval_every", "checkpoint_every"])
def test_sizes_of_nothing_in_a_recipe(field, value):
    with pytest.raises(ValueError, match=f"{field}={value} must be a whole number of at least 1"): TrainConfig(**{field: value})


@pytest.mark.parametrize("field, value, complaint", [
    ("learning_rate", 0, "must be a number above 0"), ("learning_rate", -0.1, "must be a number above 0"), ("grad_clip", 0, "must be a number above 0"),
    ("warmup_steps", -1, "must be a whole number of at least 0"), ("warmup_steps", 1.5, "must be a whole number of at least 0"), ("seed", "a", "must be a whole number of at least 0"),
    ("min_lr_ratio", -0.1, "must be a number of at least 0"), ("weight_decay", "x", "must be a number of at least 0"),
    ("betas", (0.9, 1.0), "must be two numbers"), ("betas", (0.9,), "must be two numbers"),
])
def test_numbers_that_make_no_sense_in_a_recipe(field, value, complaint):
    with pytest.raises(ValueError, match=re.escape(f"{field}={value!r} {complaint}")): TrainConfig(**{field: value})


# generating


@pytest.mark.parametrize("option, value, complaint", [
    ("temperature", -0.5, "temperature=-0.5 must be a number of at least 0: 0 is greedy"),
    ("temperature", float("nan"), "temperature=nan"),
    ("top_k", 0, "top_k=0 must be from 1 to the 24 characters"),
    ("top_k", 25, "top_k=25 must be from 1 to the 24 characters"),
    ("top_p", 0, "top_p=0 must be above 0 and at most 1"),
    ("top_p", 1.1, "top_p=1.1 must be above 0 and at most 1"),
    ("prompt", "", "the prompt is empty: give at least one character"),
    ("num_chars", -1, "num_chars=-1 must not be negative"),
    ("tokenizer", CharTokenizer("ab"), "the tokenizer has 2 characters, the model 24: use the tokenizer"),
])
def test_sampling_that_makes_no_sense(model, tokenizer, option, value, complaint):
    with pytest.raises(ValueError, match=complaint): generate(**{"model": model, "tokenizer": tokenizer, "prompt": "To be", option: value})


# runs


@pytest.mark.parametrize("what, change, complaint", [
    ("model", {"model": small_gpt(num_blocks=1)}, "there num_blocks=2, here num_blocks=1"),
    ("recipe", {"config": TrainConfig(steps=3)}, "there steps=2,.* here steps=3"),
    ("corpus", {"corpus": Corpus.from_text(small_corpus().text * 2, "twice")}, "there name='hamlet',.* here name='twice'"),
])
def test_a_run_of_something_else(tmp_path, corpus, what, change, complaint):
    ours = {"model": small_gpt(), "corpus": corpus, "config": SHORT, "run_dir": tmp_path}
    train(**ours)
    with pytest.raises(ValueError, match=f"{re.escape(str(tmp_path))} is the run of another {what}: {complaint}.*choose another run_dir"):
        train(**ours | change, resume=True)


def test_a_run_dir_in_use_is_not_overwritten(tmp_path, corpus):
    train(small_gpt(), corpus, SHORT, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match=f"{re.escape(str(tmp_path))} holds a run already: go on with resume=True, or choose another"):
        train(small_gpt(), corpus, SHORT, tmp_path)
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir()}


def test_training_with_a_tokenizer_of_another_size(corpus):
    with pytest.raises(ValueError, match="the tokenizer has 2 characters, the model vocab_size=24: make them equal"):
        train(small_gpt(), corpus, SHORT, tokenizer=CharTokenizer("ab"))


HEADER = ",".join(COLUMNS)


@pytest.mark.parametrize("content", [
    "", "a,b\n1,2\n", HEADER + "\nzero,1,2,3,4,5,6\n", HEADER + "\n0,16,0.5\n", HEADER + "\n0,16,1,1,1,1,1,1\n", json.dumps({"text": "a" * 200_000}), "\0\0",
], ids=["empty", "other columns", "a word", "a row cut off", "a row too long", "one long line", "NUL"])
def test_a_learning_curve_that_is_something_else(tmp_path, content):
    path = tmp_path / "curve.csv"
    path.write_text(content)
    with pytest.raises(ValueError, match=f"{re.escape(str(path))} is not a learning curve"): LearningCurve.from_csv(path)


def test_a_learning_curve_that_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"no learning curve at {re.escape(str(tmp_path))}.*: a run writes curve.csv"): LearningCurve.from_csv(tmp_path / "curve.csv")
