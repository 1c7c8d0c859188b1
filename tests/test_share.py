"A model that is handed on is the same model: in our own folder, whatever happens to it, and as a GPT-2 in transformers."
import io, json, os, random, re, subprocess, sys
from pathlib import Path
from unittest.mock import Mock

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch

from conftest import small_corpus, small_gpt
from minigpt_course.generate import generate
from minigpt_course.gpt2 import from_transformers, to_transformers
from minigpt_course.share import load, save
from minigpt_course.text import UNKNOWN, CharTokenizer, Corpus
from minigpt_course.train import train
from minigpt_course.core import fingerprint
from minigpt_course.runs import load_checkpoint
from minigpt_course.train import TrainConfig

VARIANTS = pytest.mark.parametrize("options", [{}, {"output_projection": True}, {"activation": "gelu"}, {"tied_head": True}], ids=str)
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
STRANGE = "\n\r\t é€😀\u0301\u00a0aA0'\"<\\" + UNKNOWN + "bcdefgh"  # 24 characters


def assert_same(ours, theirs):
    "Two pairs of model and tokenizer hold the same to the last bit."
    (model, tokenizer), (other, others) = ours, theirs
    assert model.config == other.config and tokenizer.chars == others.chars
    assert model.state_dict().keys() == other.state_dict().keys()
    for name, weights in model.state_dict().items(): assert weights.dtype == other.state_dict()[name].dtype and weights.equal(other.state_dict()[name])


def damage(path: Path, generator: random.Random):
    "Cut a file off or flip one of its bits, somewhere."
    content = bytearray(path.read_bytes())
    place = generator.randrange(len(content))
    if generator.random() < 0.5: del content[place:]
    else: content[place] ^= 1 << generator.randrange(8)
    path.write_bytes(content)


def contents(folder: Path) -> dict[Path, bytes]: return {path: path.read_bytes() for path in sorted(folder.iterdir())}


def restore(folder: Path, files: dict[Path, bytes]):
    for path in folder.iterdir(): path.unlink()
    for path, content in files.items(): path.write_bytes(content)


# our own folder


@DTYPES
@VARIANTS
def test_what_is_loaded_is_what_was_saved(tmp_path, tokenizer, options, dtype):
    model = small_gpt(dropout=0.3, **options).to(dtype)
    save(model, tokenizer, tmp_path)
    loaded, theirs = load(tmp_path)
    assert_same((model, tokenizer), (loaded, theirs))
    assert not any(part.training for part in loaded.modules())
    assert (loaded.token_embedding.weight is loaded.lm_head.weight) == model.config.tied_head


def test_saving_over_an_older_model_leaves_the_new_one_and_two_files(tmp_path, model, tokenizer):
    save(small_gpt(num_blocks=1), CharTokenizer(STRANGE), tmp_path)
    save(model, tokenizer, tmp_path)
    assert_same((model, tokenizer), load(tmp_path))
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".safetensors"]


@pytest.mark.parametrize("written", [0, 1])
def test_a_crash_while_saving_leaves_the_older_model(tmp_path, monkeypatch, model, tokenizer, written):
    save(model, tokenizer, tmp_path)
    newer = small_gpt(num_blocks=1), CharTokenizer(STRANGE)
    with monkeypatch.context() as patch, pytest.raises(OSError, match="disk full"):
        patch.setattr(os, "fsync", Mock(side_effect=[None] * written + [OSError("disk full")]))
        save(*newer, tmp_path)
    assert_same((model, tokenizer), load(tmp_path))
    save(*newer, tmp_path)
    assert_same(newer, load(tmp_path))
    assert len(contents(tmp_path)) == 2


def test_no_damage_makes_another_model(tmp_path, tokenizer):
    model, generator, refused = small_gpt(embed_dim=4, num_blocks=1), random.Random(0), 0
    save(model, tokenizer, tmp_path)
    whole = contents(tmp_path)
    for _ in range(500):
        restore(tmp_path, whole)
        damage(generator.choice(list(whole)), generator)
        try: assert_same((model, tokenizer), load(tmp_path))
        except (ValueError, FileNotFoundError) as error:
            assert str(tmp_path) in str(error) and "\n" not in str(error)
            refused += 1
    assert refused > 450


def as_bytes(state: dict) -> bytes:
    content = io.BytesIO()
    torch.save(state, content)
    return content.getvalue()


def test_no_damage_makes_another_checkpoint(tmp_path, corpus):
    train(small_gpt(embed_dim=4, num_blocks=1), corpus, TrainConfig(steps=4, batch_size=2, eval_every=4, checkpoint_every=3), tmp_path)
    generator, whole = random.Random(0), {path: path.read_bytes() for path in sorted(tmp_path.glob("checkpoint-*"))}
    states = {path: as_bytes(torch.load(path, weights_only=True)) for path in whole}
    assert len(states) == len(set(states.values())) == 2
    for _ in range(500):
        restore(tmp_path, whole)
        damaged = generator.sample(list(whole), generator.choice([1, 2]))
        for path in damaged: damage(path, generator)
        if len(damaged) == 1: assert as_bytes(load_checkpoint(tmp_path)) == next(states[path] for path in whole if path not in damaged)
        else:
            with pytest.raises(ValueError, match="every checkpoint in .* is damaged"): load_checkpoint(tmp_path)


def test_no_damage_to_a_runs_identity_makes_another_model(tmp_path, corpus):
    train(small_gpt(embed_dim=4, num_blocks=1), corpus, TrainConfig(steps=1, batch_size=2), tmp_path)
    ours, path, generator = load_any(tmp_path), tmp_path / "run.json", random.Random(0)
    whole = path.read_bytes()
    for _ in range(200):
        path.write_bytes(whole)
        damage(path, generator)
        try: assert_same(ours, load_any(tmp_path))
        except ValueError as error: assert str(tmp_path) in str(error) and "\n" not in str(error)


# refused


def rewrite(folder: Path, **changes):
    "A saved model that says something else, with a hash that is right."
    about = json.loads((folder / "minigpt.json").read_text()) | changes
    del about["sha256"]
    (folder / "minigpt.json").write_text(json.dumps(about | {"sha256": fingerprint(about)}))


def test_a_folder_of_a_newer_version(tmp_path, model, tokenizer):
    save(model, tokenizer, tmp_path)
    rewrite(tmp_path, format=2)
    with pytest.raises(ValueError, match=f"{re.escape(str(tmp_path))}.* format 2, newer than this version's 1: install a newer minigpt_course"): load(tmp_path)


@pytest.mark.parametrize("change", [{"embed_dim": 8}, {"num_blocks": 3}, {"num_blocks": 1}, {"context_length": 8}, {"output_projection": True}], ids=str)
def test_weights_of_another_shape(tmp_path, model, tokenizer, change):
    save(model, tokenizer, tmp_path)
    rewrite(tmp_path, config=vars(model.config) | change)
    with pytest.raises(ValueError, match=f"{re.escape(str(tmp_path))}.* has the shape .* and should have .*: it belongs to another model"): load(tmp_path)


def test_a_folder_without_its_weights(tmp_path, model, tokenizer):
    save(model, tokenizer, tmp_path)
    next(tmp_path.glob("*.safetensors")).unlink()
    with pytest.raises(FileNotFoundError, match=r"weights-\w+.safetensors is missing: copy the whole folder again"): load(tmp_path)


@pytest.mark.parametrize("read", [load, load_any])
def test_a_folder_that_is_missing(tmp_path, read):
    with pytest.raises(FileNotFoundError, match=f"no saved model in {re.escape(str(tmp_path / 'missing'))}: there is no minigpt.json"): read(tmp_path / "missing")


def test_a_tokenizer_of_another_size(tmp_path, model):
    with pytest.raises(ValueError, match="the tokenizer has 2 characters, the model 24: use the tokenizer"): save(model, CharTokenizer("ab"), tmp_path / "new")
    assert not (tmp_path / "new").exists()


# transformers


@pytest.fixture(scope="module")
def transformers(): return pytest.importorskip("transformers")


@pytest.fixture
def twins(tmp_path, transformers):
    "Writes a model and opens it in transformers."
    def export(model, tokenizer):
        to_transformers(model, tokenizer, tmp_path)
        return transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype="auto"), transformers.AutoTokenizer.from_pretrained(tmp_path)
    return export


@pytest.fixture(scope="module")
def trained() -> tuple:
    "A model that writes something, with a bias in its head; and its tokenizer."
    model, corpus = small_gpt(context_length=256, embed_dim=32), Corpus.from_text(small_corpus().text * 2, "hamlet twice")
    train(model, corpus, TrainConfig(steps=60, batch_size=4, warmup_steps=5))
    assert model.lm_head.bias.abs().mean() > 0.1
    return model.eval(), corpus.fit_tokenizer(24)


def assert_same_logits(ours, theirs):
    "Their logits may be a named tuple; ours must not be almost nothing."
    assert ours.dtype == theirs.dtype and ours.std() > 0.5
    torch.testing.assert_close(ours, theirs, rtol=0, atol={torch.float32: 2e-5, torch.float64: 1e-12}[ours.dtype])


@DTYPES
@VARIANTS
@torch.no_grad()
def test_the_logits_are_the_same_in_transformers_and_when_they_come_back(tmp_path, twins, tokenizer, options, dtype):
    model, idx = small_gpt(context_length=256, embed_dim=32, dropout=0.3, **options).eval().to(dtype), torch.randint(24, (2, 256))
    twin, _ = twins(model, tokenizer)
    assert_same_logits(model(idx), twin(idx).logits)
    back, theirs = from_transformers(tmp_path)
    assert back.config == model.config and theirs.chars == tokenizer.chars and not back.training
    assert_same_logits(model(idx), back(idx))


@DTYPES
@torch.no_grad()
def test_a_trained_models_logits_are_the_same(twins, trained, dtype):
    model, idx = small_gpt(context_length=256, embed_dim=32).eval().to(dtype), torch.randint(24, (2, 256))
    model.load_state_dict(trained[0].state_dict())
    assert_same_logits(model(idx), twins(model, trained[1])[0](idx).logits)


ALONE = """
import sys
from transformers import AutoModelForCausalLM, AutoTokenizer
model, tokenizer = (kind.from_pretrained(sys.argv[1]) for kind in (AutoModelForCausalLM, AutoTokenizer))
ids = model.generate(**tokenizer("To be", return_tensors="pt"), max_new_tokens=200, do_sample=False)
assert "minigpt_course" not in sys.modules
sys.stdout.buffer.write(tokenizer.decode(ids[0]).encode())
"""


def test_transformers_writes_the_same_text_without_our_code(tmp_path, transformers, trained):
    to_transformers(*trained, tmp_path)
    theirs = subprocess.run([sys.executable, "-c", ALONE, str(tmp_path)], capture_output=True, cwd=tmp_path, check=True)
    text = generate(*trained, "To be", 200, temperature=0)
    assert theirs.stdout.decode() == text and len(text) == 205 and len(set(text)) > 5


@pytest.mark.parametrize("chars", [STRANGE, STRANGE.replace(UNKNOWN, "i")], ids=["unknown symbol", "no unknown symbol"])
def test_the_tokenizers_agree(twins, chars):
    ours = CharTokenizer(chars)
    _, theirs = twins(small_gpt(embed_dim=32), ours)
    for text in chars, chars[::-1], "\r\n\n  \r\t", "  a  'a", "e\u0301" * 3, "a":
        assert theirs(text).input_ids == ours.encode(text).tolist() and theirs.decode(ours.encode(text)) == text
    if UNKNOWN in chars: assert theirs("aZ中" + UNKNOWN).input_ids == ours.encode("aZ中" + UNKNOWN).tolist() == ours.encode("a" + 3 * UNKNOWN).tolist()
    else:
        with pytest.raises(Exception, match="UNK"): theirs("aZ")


def test_the_tokenizer_hands_over_nothing_but_characters(tmp_path, twins, tokenizer):
    twins(small_gpt(embed_dim=32), tokenizer)  # else version 4 adds token_type_ids, and a GPT-2 their embedding to each character's
    assert json.loads((tmp_path / "tokenizer_config.json").read_text())["model_input_names"] == ["input_ids", "attention_mask"]


def test_a_bias_that_gpt2_cannot_hold_is_refused_with_the_reason(tmp_path, transformers, model, tokenizer):
    reason = "no exact image in GPT-2: .* its 24 rows of 16 numbers are not independent; train one with embed_dim of at least 24, or set lm_head.bias to zero"
    with pytest.raises(ValueError, match=reason): to_transformers(model, tokenizer, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    torch.nn.init.zeros_(model.lm_head.bias)
    to_transformers(model, tokenizer, tmp_path / "new")


@pytest.mark.parametrize("change, reason", [
    (lambda twin: twin.transformer.h[1].attn.c_attn.bias.data.fill_(0.1), "has biases for queries, keys and values"),
    (lambda twin: setattr(twin.config, "layer_norm_epsilon", 1e-6), "has layer_norm_epsilon=1e-06; one of this course's models has 1e-05"),
    (lambda twin: setattr(twin.config, "activation_function", "gelu_new"), "activation='gelu_new' is unknown; there are relu, gelu"),
])
def test_a_gpt2_that_is_none_of_ours(tmp_path, twins, tokenizer, change, reason):
    twin, _ = twins(small_gpt(embed_dim=32), tokenizer)
    change(twin)
    twin.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=reason): from_transformers(tmp_path)


def test_tokens_that_are_words(tmp_path, twins, tokenizer):
    twins(small_gpt(embed_dim=32), tokenizer)
    about = json.loads((tmp_path / "tokenizer.json").read_text())
    about["model"]["vocab"] = {token.replace("b", "words"): i for token, i in about["model"]["vocab"].items()}
    (tmp_path / "tokenizer.json").write_text(json.dumps(about))
    with pytest.raises(ValueError, match="not single characters, for example 'words'"): from_transformers(tmp_path)


def test_a_model_of_another_kind(tmp_path, transformers, twins, tokenizer):
    twins(small_gpt(embed_dim=32), tokenizer)
    config = transformers.GPTNeoXConfig(vocab_size=24, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    transformers.GPTNeoXForCausalLM(config).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="this is a gpt_neox; only a GPT-2"): from_transformers(tmp_path)


def test_a_transformers_folder_that_is_missing(tmp_path, transformers):
    complaint = f"no transformers model in {re.escape(str(tmp_path / 'missing'))}: there is no config.json"
    with pytest.raises(FileNotFoundError, match=complaint): from_transformers(tmp_path / "missing")
