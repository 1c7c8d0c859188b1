"""A model that is handed on is the same model: in our own folder, whatever happens to it, by its
name, and as a GPT-2 in transformers."""
import copy
import hashlib
import io
import json
import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch

from conftest import say, small_corpus, small_gpt
from minigpt_course import saved, share
from minigpt_course.bigram import evaluate
from minigpt_course.core import fingerprint, read_about, write_about
from minigpt_course.fast import dequantize_rows, quantize_rows
from minigpt_course.generate import KVCache, generate
from minigpt_course.gpt2 import from_transformers, to_transformers
from minigpt_course.runs import (
    RUN_FORMAT, RUN_KINDS, LearningCurve, load_best, load_checkpoint, save_checkpoint,
)
from minigpt_course.saved import notes_of, published
from minigpt_course.share import load, save
from minigpt_course.text import UNKNOWN, CharTokenizer, Corpus
from minigpt_course.train import TrainConfig, train

OPTIONS = [{}, {"output_projection": True}, {"activation": "gelu"}, {"tied_head": True}]
VARIANTS = pytest.mark.parametrize("options", OPTIONS, ids=str)
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
BITS = pytest.mark.parametrize("bits", [None, 8])
STRANGE = "\n\r\t é€😀\u0301\u00a0aA0'\"<\\" + UNKNOWN + "bcdefgh"  # 24 characters


def assert_same(ours, theirs):
    "Two pairs of model and tokenizer hold the same to the last bit."
    (model, tokenizer), (other, others) = ours, theirs
    assert model.config == other.config and tokenizer.chars == others.chars
    assert model.state_dict().keys() == other.state_dict().keys()
    for name, weights in model.state_dict().items():
        assert weights.dtype == other.state_dict()[name].dtype, name
        assert weights.equal(other.state_dict()[name]), name


def damage(path: Path, generator: random.Random):
    "Cut a file off or flip one of its bits, somewhere."
    content = bytearray(path.read_bytes())
    place = generator.randrange(len(content))
    if generator.random() < 0.5: del content[place:]
    else: content[place] ^= 1 << generator.randrange(8)
    path.write_bytes(content)


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(folder.iterdir())}


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
def test_a_crash_while_saving_leaves_the_older_model(
    tmp_path, monkeypatch, model, tokenizer, written
):
    save(model, tokenizer, tmp_path)
    newer = small_gpt(num_blocks=1), CharTokenizer(STRANGE)
    with monkeypatch.context() as patch, pytest.raises(OSError, match="disk full"):
        patch.setattr(os, "fsync", Mock(side_effect=[None] * written + [OSError("disk full")]))
        save(*newer, tmp_path)
    assert_same((model, tokenizer), load(tmp_path))
    save(*newer, tmp_path)
    assert_same(newer, load(tmp_path))
    assert len(contents(tmp_path)) == 2


@BITS
def test_no_damage_makes_another_model(tmp_path, tokenizer, bits):
    model, generator, refused = small_gpt(embed_dim=4, num_blocks=1), random.Random(0), 0
    save(model, tokenizer, tmp_path, bits=bits)
    ours, whole = load(tmp_path), contents(tmp_path)
    for _ in range(500):
        restore(tmp_path, whole)
        damage(generator.choice(list(whole)), generator)
        try: assert_same(ours, load(tmp_path))
        except (ValueError, FileNotFoundError) as error:
            assert str(tmp_path) in str(error) and "\n" not in str(error)
            refused += 1
    assert refused > 450


def as_bytes(state: dict) -> bytes:
    content = io.BytesIO()
    torch.save(state, content)
    return content.getvalue()


def test_no_damage_makes_another_checkpoint(tmp_path, corpus):
    config = TrainConfig(steps=4, batch_size=2, eval_every=4, checkpoint_every=3)
    train(small_gpt(embed_dim=4, num_blocks=1), corpus, config, tmp_path)
    paths, generator = sorted(tmp_path.glob("checkpoint-*")), random.Random(0)
    whole = {path: path.read_bytes() for path in paths}
    states = {path: as_bytes(torch.load(path, weights_only=True)) for path in whole}
    assert len(states) == len(set(states.values())) == 2
    for _ in range(500):
        restore(tmp_path, whole)
        damaged = generator.sample(list(whole), generator.choice([1, 2]))
        for path in damaged: damage(path, generator)
        if len(damaged) == 1:
            intact = next(states[path] for path in whole if path not in damaged)
            assert as_bytes(load_checkpoint(tmp_path)) == intact
        else:
            with pytest.raises(ValueError, match="every checkpoint in .* is damaged"):
                load_checkpoint(tmp_path)


def test_no_damage_to_a_runs_identity_makes_another_model(tmp_path, corpus):
    model, config = small_gpt(embed_dim=4, num_blocks=1), TrainConfig(steps=1, batch_size=2)
    train(model, corpus, config, tmp_path)
    ours, path, generator = load(tmp_path), tmp_path / "run.json", random.Random(0)
    whole = path.read_bytes()
    for _ in range(200):
        path.write_bytes(whole)
        damage(path, generator)
        try: assert_same(ours, load(tmp_path))
        except ValueError as error:
            assert str(tmp_path) in str(error) and "\n" not in str(error)


# a run's folder


def test_a_runs_folder_gives_its_best_model_and_not_its_last(tmp_path, corpus):
    config = TrainConfig(steps=8, batch_size=2, warmup_steps=1, eval_every=2, checkpoint_every=8)
    model = small_gpt()
    train(model, corpus, config, tmp_path)
    state = load_checkpoint(tmp_path)
    torch.manual_seed(1)
    kept = state["best"]["model"]
    state["best"]["model"] = {name: torch.randn_like(weight) for name, weight in kept.items()}
    for path in tmp_path.glob("checkpoint-*"): path.unlink()
    save_checkpoint(tmp_path, state, state["step"])
    best = small_gpt().eval()
    assert load_best(best, tmp_path) == (state["best"]["step"], state["best"]["loss"])
    loaded, tokenizer = load(tmp_path)
    assert_same((best, corpus.fit_tokenizer(24)), (loaded, tokenizer))
    assert not loaded.training and not loaded.lm_head.weight.equal(model.lm_head.weight)


def test_the_best_model_has_the_lowest_validation_loss_also_when_a_run_goes_on(
    tmp_path, monkeypatch, corpus
):
    losses, judged = iter([3.0, 1.0, 2.0, 4.0]), []
    def judge(model, ids, context_length):
        judged.append(copy.deepcopy(model.state_dict()))
        return next(losses)
    monkeypatch.setattr("minigpt_course.runs.evaluate", judge)
    config = TrainConfig(steps=6, batch_size=2, warmup_steps=1, eval_every=2)
    train(small_gpt(), corpus, config, tmp_path, on_step=lambda model, curve: len(curve.rows) == 5)
    train(small_gpt(), corpus, config, tmp_path, resume=True)
    best = small_gpt()
    assert load_best(best, tmp_path) == (2, 1.0)
    assert all(weight.equal(judged[1][name]) for name, weight in best.state_dict().items())


def test_a_run_without_a_checkpoint_says_what_to_do(tmp_path, corpus):
    train(small_gpt(), corpus, TrainConfig(steps=1, batch_size=2), tmp_path)
    for path in tmp_path.glob("checkpoint-*"): path.unlink()
    complaint = f"{re.escape(str(tmp_path))} holds no checkpoint: train with run_dir="
    with pytest.raises(ValueError, match=complaint): load(tmp_path)


# 8 bits a weight


@VARIANTS
def test_a_model_in_8_bits_is_the_rounded_one(tmp_path, tokenizer, options):
    model = small_gpt(dropout=0.3, **options)
    save(model, tokenizer, tmp_path, bits=8)
    loaded, theirs = load(tmp_path)
    assert loaded.config == model.config and theirs.chars == tokenizer.chars
    assert not any(part.training for part in loaded.modules())
    assert (loaded.token_embedding.weight is loaded.lm_head.weight) == model.config.tied_head
    for name, weight in model.state_dict().items():
        other = loaded.state_dict()[name]
        assert other.dtype == torch.float32
        if weight.dim() != 2: assert other.equal(weight), name
        else:
            scale = weight.abs().amax(1, keepdim=True) / 127
            assert ((other - weight).abs() <= 0.5001 * scale).all(), name
            assert not other.equal(weight), name


def test_a_rows_largest_error_is_half_its_scale():
    weight = torch.randn(200, 300, generator=torch.Generator().manual_seed(0))
    weight *= torch.logspace(-9, 20, 200)[:, None]
    numbers, scale = quantize_rows(weight)
    assert numbers.dtype == torch.int8 and scale.shape == (200, 1)
    errors = (dequantize_rows(numbers, scale) - weight).abs() / scale
    assert errors.max() <= 0.5001 and errors.max() > 0.4
    assert (numbers.abs().amax(1) == 127).all()  # the whole range is used


def test_a_row_of_zeros_stays_zeros(tmp_path, model, tokenizer):
    torch.nn.init.zeros_(model.lm_head.weight[3])
    save(model, tokenizer, tmp_path, bits=8)
    weight = load(tmp_path)[0].lm_head.weight
    assert not weight[3].any() and weight.isfinite().all() and weight[2].any()


def test_8_bits_are_about_a_quarter_of_the_size_and_the_same_each_time(tmp_path, tokenizer):
    model, sizes = small_gpt(embed_dim=64, num_blocks=2), {}
    for name, bits in {"whole": None, "small": 8, "again": 8}.items():
        save(model, tokenizer, tmp_path / name, bits=bits)
        sizes[name] = next((tmp_path / name).glob("weights-*")).stat().st_size
    assert 0.25 < sizes["small"] / sizes["whole"] < 0.3
    small, again = ([path.read_bytes() for path in sorted((tmp_path / name).iterdir())]
                    for name in ("small", "again"))
    assert small == again


def test_saving_again_what_was_loaded_changes_nothing(tmp_path, model, tokenizer):
    save(model, tokenizer, tmp_path / "first", bits=8)
    loaded = load(tmp_path / "first")
    save(*loaded, tmp_path / "second", bits=8)
    for name, weight in load(tmp_path / "second")[0].state_dict().items():
        torch.testing.assert_close(weight, loaded[0].state_dict()[name], rtol=1e-6, atol=0)


@pytest.mark.parametrize("bits", [4, 16, 0, "8", True])
def test_bits_that_cannot_be_had(tmp_path, model, tokenizer, bits):
    complaint = f"bits={bits!r} cannot be had: 8, or None for the weights as they are"
    with pytest.raises(ValueError, match=complaint):
        save(model, tokenizer, tmp_path / "new", bits=bits)
    assert not (tmp_path / "new").exists()


def test_8_bits_cost_a_trained_model_little(tmp_path, trained):
    model, tokenizer = trained
    ids = tokenizer.encode(small_corpus().text[:1000])
    save(model, tokenizer, tmp_path, bits=8)
    before, after = (evaluate(one, ids, 64) for one in (model, load(tmp_path)[0]))
    assert 0 < abs(after - before) < 0.02 and before < 1.5


@BITS
def test_notes_survive(tmp_path, model, tokenizer, bits):
    notes = {"corpus": "hamlet é", "validation loss": 1.25, "steps": [1, 2], "more": {"a": None}}
    save(model, tokenizer, tmp_path, bits=bits, notes=notes)
    about = read_about(tmp_path / "minigpt.json", saved.FORMAT, saved.KINDS)
    assert about["notes"] == notes and about["bits"] == bits
    save(model, tokenizer, tmp_path)
    assert read_about(tmp_path / "minigpt.json", saved.FORMAT, saved.KINDS)["notes"] == {}


def test_notes_are_kept_as_json_keeps_them(tmp_path, model, tokenizer):
    save(model, tokenizer, tmp_path, notes={"losses": {300: 1.9, 1200: 1.5}})
    about = read_about(tmp_path / "minigpt.json", saved.FORMAT, saved.KINDS)
    assert about["notes"] == {"losses": {"300": 1.9, "1200": 1.5}} and load(tmp_path)


@pytest.mark.parametrize("bad, said", [
    ({"notes": {"loss": torch.ones(1)}}, "notes must hold what JSON can"),
    ({"notes": "mine"}, "notes='mine' must be a dict"),
    ({"bits": 8.0}, "bits=8.0 cannot be had"),
])
def test_what_cannot_be_read_again_is_not_written(tmp_path, model, tokenizer, bad, said):
    with pytest.raises(ValueError, match=said): save(model, tokenizer, tmp_path, **bad)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64], ids=str)
def test_8_bits_come_back_in_float32_in_whatever_order(tmp_path, monkeypatch, tokenizer, dtype):
    save(small_gpt().to(dtype), tokenizer, tmp_path, bits=8)
    read = share.read_saved
    def norms_first(name):
        config, chars, weights = read(name)
        return config, chars, dict(sorted(weights.items(), key=lambda item: item[1].dim()))
    monkeypatch.setattr(share, "read_saved", norms_first)
    assert {weight.dtype for weight in load(tmp_path)[0].parameters()} == {torch.float32}


def test_the_best_weights_bring_their_characters_and_fit_no_other_model(tmp_path, corpus):
    train(small_gpt(), corpus, TrainConfig(steps=1, batch_size=2), tmp_path)
    model = small_gpt()
    load_best(model, tmp_path)
    assert model.chars == corpus.fit_tokenizer(24).chars
    for change in {"num_heads": 4}, {"activation": "gelu"}, {"embed_dim": 32}:
        with pytest.raises(ValueError, match=f"holds a model with {[*change][0]}="):
            load_best(small_gpt(**change), tmp_path)


def test_a_model_that_diverged_does_not_take_the_place_of_a_good_one(tmp_path, model, tokenizer):
    save(model, tokenizer, tmp_path)
    good = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    torch.nn.init.constant_(model.norm.weight, torch.nan)
    with pytest.raises(ValueError, match="norm.weight holds numbers that are not finite"):
        save(model, tokenizer, tmp_path)
    assert good == {path.name: path.read_bytes() for path in tmp_path.iterdir()}


# models that come with the library


@pytest.fixture
def weights(tmp_path, monkeypatch, tokenizer) -> Path:
    "A library that comes with one model, and a file that is none; the present folder is empty."
    folder, here = tmp_path / "weights", tmp_path / "here"
    notes = {"validation loss": 1.5, "corpus sha256": small_corpus().sha256, "python": "3.11.7"}
    save(small_gpt(num_blocks=1), tokenizer, folder / "pydocs", bits=8, notes=notes)
    (folder / "results.json").write_text("{}")
    (folder / "empty").mkdir()
    here.mkdir()
    monkeypatch.setattr(saved, "WEIGHTS", folder)
    monkeypatch.chdir(here)
    return folder


def test_your_own_model_of_another_text_is_said_to_be_one(weights, corpus, capsys):
    train(small_gpt(), corpus, TrainConfig(steps=1, batch_size=2), "runs/laptop")
    capsys.readouterr()
    share.load_course_model(Corpus.from_text("another text " * 50, "another"))
    said = capsys.readouterr().out
    assert "that you trained" in said and "may overlap with what it has read" in said
    share.load_course_model(corpus)
    assert "overlap" not in capsys.readouterr().out


def test_a_published_model_is_loaded_by_its_name(weights):
    assert_same(load("pydocs"), load(weights / "pydocs"))
    about = published()
    assert list(about) == ["pydocs"] and about["pydocs"]["notes"]["validation loss"] == 1.5


def test_a_folder_of_that_name_wins_and_is_said_to(weights, corpus, tokenizer, capsys):
    ours = small_gpt(num_blocks=2).eval()
    save(ours, tokenizer, "pydocs")
    said = "taking the pydocs that is here, not the published one\n"
    assert_same((ours, tokenizer), load("pydocs"))
    notes_of("pydocs")
    assert capsys.readouterr().out == said  # once
    shutil.rmtree("pydocs")
    train(small_gpt(), corpus, TrainConfig(steps=1, batch_size=2), "pydocs")  # a run is one, too
    load("pydocs")
    assert capsys.readouterr().out.endswith(said)
    load(weights / "pydocs")
    assert not capsys.readouterr().out


def test_an_empty_folder_of_that_name_is_not_passed_over(weights):
    Path("pydocs").mkdir()
    with pytest.raises(FileNotFoundError, match="no saved model in pydocs"): load("pydocs")


@pytest.mark.parametrize("name", ["nobody", "empty", "../weights/results.json", ""])
def test_a_name_that_is_not_published(weights, name):
    with pytest.raises((FileNotFoundError, ValueError)): load(name)


def test_a_library_without_weights_still_says_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(saved, "WEIGHTS", tmp_path / "nowhere")
    assert published() == {}
    with pytest.raises(FileNotFoundError, match="no saved model in pydocs"): load("pydocs")


def test_the_full_model_is_the_best_of_seed_0_and_8_bits_cost_it_little():
    about, folder = published()["shakespeare"], saved.WEIGHTS / "shakespeare"
    path = Path(__file__).parents[1] / "kaggle" / "reference" / "seed0.csv"
    best = min(LearningCurve.from_csv(path).validation(), key=lambda validation: validation[1])
    assert (about["notes"]["step"], about["notes"]["validation loss"]) == best
    assert about["bits"] == 8 and abs(about["notes"]["8 bits cost"]) < 0.002
    assert sum(file.stat().st_size for file in folder.iterdir()) < 14_000_000


def test_08_tells_of_reciting_what_the_models_card_says():
    card = (saved.WEIGHTS / "shakespeare" / "README.md").read_text(encoding="utf-8")
    page = (Path(__file__).parents[1] / "nbs" / "08_generate.ipynb").read_text(encoding="utf-8")
    told = re.search(r"in its training text has (\d+); of 20,000 real ones, .*?, (\d+) \(", page)
    assert list(told.groups()) == re.findall(r"\| longest .* \| (\d+) characters: ", card)


def test_the_course_model_is_yours_or_the_published_one(weights, corpus, capsys):
    assert_same(share.load_course_model(corpus), load("pydocs"))
    said = capsys.readouterr().out
    assert "the published laptop model" in said and "1.500" in said and "overlap" not in said
    share.load_course_model(Corpus.from_text("another text " * 50, "another"))
    assert "this text may overlap with what it has read" in capsys.readouterr().out
    train(small_gpt(), corpus, TrainConfig(steps=1, batch_size=2), "runs/laptop")
    assert_same(share.load_course_model(corpus), load("runs/laptop"))
    assert "the model that you trained, from runs/laptop" in capsys.readouterr().out


def test_what_really_comes_with_the_library_can_be_loaded():
    for name, about in published().items():
        model, tokenizer = load(saved.WEIGHTS / name)
        assert len(generate(model, tokenizer, "the", 20, seed=0)) == 23
        assert {"corpus", "corpus sha256", "validation loss", "python"} <= about["notes"].keys()


# refused


def rewrite(folder: Path, **changes):
    "A saved model that says something else, with a hash that is right."
    say(folder, json.loads((folder / "minigpt.json").read_text()) | changes)


def test_a_folder_of_a_newer_version(tmp_path, model, tokenizer):
    save(model, tokenizer, tmp_path)
    rewrite(tmp_path, format=3)
    complaint = (f"{re.escape(str(tmp_path))}.* format 3, newer than this version's 2: "
                 "install a newer minigpt_course")
    with pytest.raises(ValueError, match=complaint): load(tmp_path)


def test_a_folder_of_the_first_edition_is_refused_with_what_to_do(tmp_path, model, tokenizer):
    save(model, tokenizer, tmp_path)
    rewrite(tmp_path, format=1)
    complaint = (f"{re.escape(str(tmp_path))}.* of format 1, and this version reads 2: "
                 "train again in another folder, or use the version that wrote it")
    with pytest.raises(ValueError, match=complaint): load(tmp_path)


def test_a_run_of_the_first_edition_is_refused_with_what_to_do(tmp_path, corpus):
    train(small_gpt(), corpus, TrainConfig(steps=1, batch_size=2), tmp_path)
    about = json.loads((tmp_path / "run.json").read_text())
    about = {name: value for name, value in about.items() if name not in ("format", "sha256")}
    (tmp_path / "run.json").write_text(json.dumps(about | {"sha256": fingerprint(about)}))
    complaint = (f"{re.escape(str(tmp_path))}.* of format 1, and this version reads 3: "
                 "train again in another folder, or use the version that wrote it")
    with pytest.raises(ValueError, match=complaint): load(tmp_path)


CHANGES = [{"embed_dim": 8}, {"num_blocks": 3}, {"num_blocks": 1}, {"context_length": 8},
           {"output_projection": True}]


@BITS
@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_weights_of_another_shape(tmp_path, model, tokenizer, change, bits):
    save(model, tokenizer, tmp_path, bits=bits)
    rewrite(tmp_path, config=vars(model.config) | change)
    complaint = (f"{re.escape(str(tmp_path))}.* has the shape .* and should have .*: "
                 "it belongs to another model")
    with pytest.raises(ValueError, match=complaint): load(tmp_path)


@pytest.mark.parametrize("written, said", [(8, None), (None, 8)])
def test_weights_in_other_bits_than_they_say(tmp_path, model, tokenizer, written, said):
    save(model, tokenizer, tmp_path, bits=written)
    rewrite(tmp_path, bits=said)
    if said: assert_same((model, tokenizer), load(tmp_path))  # nothing to unpack
    else:
        with pytest.raises(ValueError, match="it belongs to another model"): load(tmp_path)


def test_a_folder_without_its_weights(tmp_path, model, tokenizer):
    save(model, tokenizer, tmp_path)
    next(tmp_path.glob("*.safetensors")).unlink()
    complaint = r"weights-\w+.safetensors is missing: copy the whole folder again"
    with pytest.raises(FileNotFoundError, match=complaint): load(tmp_path)


@BITS
def test_damaged_weights_are_known_by_their_hash(tmp_path, model, tokenizer, bits):
    save(model, tokenizer, tmp_path, bits=bits)
    path = next(tmp_path.glob("*.safetensors"))
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    complaint = f"{re.escape(str(path))} is damaged .*with another hash.*: copy it again"
    with pytest.raises(ValueError, match=complaint): load(tmp_path)


@pytest.mark.parametrize("kind", [str, Path])
def test_a_folder_that_is_missing(tmp_path, kind):
    missing = tmp_path / "missing"
    complaint = f"no saved model in {re.escape(str(missing))}: there is no minigpt.json"
    with pytest.raises(FileNotFoundError, match=complaint): load(kind(missing))


def test_a_tokenizer_of_another_size(tmp_path, model):
    complaint = "the tokenizer has 2 characters, the model 24: use the tokenizer"
    with pytest.raises(ValueError, match=complaint):
        save(model, CharTokenizer("ab"), tmp_path / "new")
    assert not (tmp_path / "new").exists()


# transformers


@pytest.fixture(scope="module")
def transformers(): return pytest.importorskip("transformers")


@pytest.fixture
def twins(tmp_path, transformers):
    "Writes a model and opens it in transformers."
    def export(model, tokenizer):
        to_transformers(model, tokenizer, tmp_path)
        twin = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype="auto")
        return twin, transformers.AutoTokenizer.from_pretrained(tmp_path)
    return export


@pytest.fixture(scope="module")
def trained() -> tuple:
    "A model that writes something, with a bias in its head; and its tokenizer."
    text = small_corpus().text * 2
    model, corpus = small_gpt(context_length=256, embed_dim=32), Corpus.from_text(text, "twice")
    train(model, corpus, TrainConfig(steps=60, batch_size=4, warmup_steps=5))
    assert model.lm_head.bias.abs().mean() > 0.1
    return model.eval(), corpus.fit_tokenizer(24)


def assert_same_logits(ours, theirs):
    "Their logits may be a named tuple; ours must not be almost nothing."
    assert ours.dtype == theirs.dtype and ours.std() > 0.5
    within = {torch.float32: 2e-5, torch.float64: 1e-12}[ours.dtype]
    torch.testing.assert_close(ours, theirs, rtol=0, atol=within)


@DTYPES
@VARIANTS
@torch.no_grad()
def test_the_logits_are_the_same_in_transformers_and_when_they_come_back(
    tmp_path, twins, tokenizer, options, dtype
):
    model = small_gpt(context_length=256, embed_dim=32, dropout=0.3, **options).eval().to(dtype)
    idx = torch.randint(24, (2, 256))
    twin, _ = twins(model, tokenizer)
    assert_same_logits(model(idx), twin(idx).logits)
    back, theirs = from_transformers(tmp_path)
    assert back.config == model.config and theirs.chars == tokenizer.chars and not back.training
    assert_same_logits(model(idx), back(idx))


@DTYPES
@torch.no_grad()
def test_a_trained_models_logits_are_the_same(twins, trained, dtype):
    model = small_gpt(context_length=256, embed_dim=32).eval().to(dtype)
    idx = torch.randint(24, (2, 256))
    model.load_state_dict(trained[0].state_dict())
    assert_same_logits(model(idx), twins(model, trained[1])[0](idx).logits)


ALONE = """
import sys
from transformers import AutoModelForCausalLM, AutoTokenizer
kinds = AutoModelForCausalLM, AutoTokenizer
model, tokenizer = (kind.from_pretrained(sys.argv[1]) for kind in kinds)
start = tokenizer("To be", return_tensors="pt")
ids = model.generate(**start, max_new_tokens=200, do_sample=False)
assert "minigpt_course" not in sys.modules
sys.stdout.buffer.write(tokenizer.decode(ids[0]).encode())
"""


def test_transformers_writes_the_same_text_without_our_code(tmp_path, transformers, trained):
    to_transformers(*trained, tmp_path)
    alone = [sys.executable, "-c", ALONE, str(tmp_path)]
    theirs = subprocess.run(alone, capture_output=True, cwd=tmp_path, check=True)
    text = generate(*trained, "To be", 200, temperature=0)
    assert theirs.stdout.decode() == text and len(text) == 205 and len(set(text)) > 5


@pytest.mark.parametrize("chars", [STRANGE, STRANGE.replace(UNKNOWN, "i")],
                         ids=["unknown symbol", "no unknown symbol"])
def test_the_tokenizers_agree(twins, chars):
    ours = CharTokenizer(chars)
    _, theirs = twins(small_gpt(embed_dim=32), ours)
    for text in chars, chars[::-1], "\r\n\n  \r\t", "  a  'a", "e\u0301" * 3, "a":
        assert theirs(text).input_ids == ours.encode(text).tolist()
        assert theirs.decode(ours.encode(text)) == text
    if UNKNOWN in chars:
        text = "aZ中" + UNKNOWN
        same = ours.encode("a" + 3 * UNKNOWN).tolist()
        assert theirs(text).input_ids == ours.encode(text).tolist() == same
    else:
        with pytest.raises(Exception, match="UNK"): theirs("aZ")


def test_the_tokenizer_hands_over_nothing_but_characters(tmp_path, twins, tokenizer):
    # else version 4 adds token_type_ids, and a GPT-2 their embedding to each character's
    twins(small_gpt(embed_dim=32), tokenizer)
    about = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert about["model_input_names"] == ["input_ids", "attention_mask"]


def test_a_bias_that_gpt2_cannot_hold_is_refused_with_the_reason(
    tmp_path, transformers, model, tokenizer
):
    reason = ("no exact image in GPT-2: .* its 24 rows of 16 numbers are not independent; "
              "train one with embed_dim of at least 24, or keep lm_head.bias at zero")
    with pytest.raises(ValueError, match=reason):
        to_transformers(model, tokenizer, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    torch.nn.init.zeros_(model.lm_head.bias)
    to_transformers(model, tokenizer, tmp_path / "new")


@pytest.mark.parametrize("change, reason", [
    (lambda twin: twin.transformer.h[1].attn.c_attn.bias.data.fill_(0.1),
     "has biases for queries, keys and values"),
    (lambda twin: setattr(twin.config, "layer_norm_epsilon", 1e-6),
     "has layer_norm_epsilon=1e-06; one of this course's models has 1e-05"),
    (lambda twin: setattr(twin.config, "activation_function", "gelu_new"),
     "activation='gelu_new' is unknown; there are relu, gelu"),
])
def test_a_gpt2_that_is_none_of_ours(tmp_path, twins, tokenizer, change, reason):
    twin, _ = twins(small_gpt(embed_dim=32), tokenizer)
    change(twin)
    twin.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=reason): from_transformers(tmp_path)


def test_tokens_that_are_words(tmp_path, twins, tokenizer):
    twins(small_gpt(embed_dim=32), tokenizer)
    about = json.loads((tmp_path / "tokenizer.json").read_text())
    vocabulary = about["model"]["vocab"].items()
    about["model"]["vocab"] = {token.replace("b", "words"): i for token, i in vocabulary}
    (tmp_path / "tokenizer.json").write_text(json.dumps(about))
    complaint = "not single characters, for example 'words'"
    with pytest.raises(ValueError, match=complaint): from_transformers(tmp_path)


def test_a_model_of_another_kind(tmp_path, transformers, twins, tokenizer):
    twins(small_gpt(embed_dim=32), tokenizer)
    config = transformers.GPTNeoXConfig(vocab_size=24, hidden_size=16, num_hidden_layers=1,
                                        num_attention_heads=2, intermediate_size=16)
    transformers.GPTNeoXForCausalLM(config).save_pretrained(tmp_path)
    complaint = "this is a gpt_neox; only a GPT-2"
    with pytest.raises(ValueError, match=complaint): from_transformers(tmp_path)


def test_a_transformers_folder_that_is_missing(tmp_path, transformers):
    missing = tmp_path / "missing"
    complaint = f"no transformers model in {re.escape(str(missing))}: there is no config.json"
    with pytest.raises(FileNotFoundError, match=complaint): from_transformers(missing)


@pytest.mark.parametrize("chars", [STRANGE, STRANGE.replace(UNKNOWN, "i")],
                         ids=["unknown symbol", "no unknown symbol"])
def test_what_a_receiver_types_first(tmp_path, transformers, chars):
    to_transformers(small_gpt(embed_dim=32), CharTokenizer(chars), tmp_path)
    write = transformers.pipeline("text-generation", model=str(tmp_path))
    [written] = write("a" * 5)
    assert written["generated_text"].startswith("a" * 5)
    assert write.tokenizer.model_max_length == write.model.generation_config.max_length == 16
    if UNKNOWN in chars: assert len(write(["a", "abcde"], batch_size=2)) == 2


def test_padding_in_front_changes_nothing(twins, trained):
    model, tokenizer = twins(*trained)
    alone, padded = tokenizer(["To be"]), tokenizer(["To be", "To be or not"], padding=True)
    texts = [model.generate(**batch.convert_to_tensors("pt"), do_sample=False, max_length=40)[0]
             for batch in (alone, padded)]
    assert tokenizer.decode(texts[0])[:20] == tokenizer.decode(texts[1])[7:27]


ASCII = """
import sys
from minigpt_course.gpt2 import from_transformers, to_transformers
from minigpt_course.share import load
model, tokenizer = load(sys.argv[1])
to_transformers(model, tokenizer, sys.argv[2])
assert from_transformers(sys.argv[2])[1].chars == tokenizer.chars
"""


def test_an_export_in_a_locale_without_utf8(tmp_path, transformers):
    save(small_gpt(embed_dim=32), CharTokenizer(STRANGE), tmp_path / "ours")
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-c", ASCII, tmp_path / "ours", tmp_path / "theirs"]
    subprocess.run(command, check=True, env=os.environ | plain)


def test_the_model_card_says_what_it_is(tmp_path, transformers, tokenizer):
    to_transformers(small_gpt(embed_dim=32), tokenizer, tmp_path, {"validation loss": 1.234})
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "| validation loss | 1.234 |" in card and "pipeline_tag: text-generation" in card


def test_an_export_does_not_replace_the_readme_of_another(tmp_path, transformers, tokenizer):
    (tmp_path / "README.md").write_text("my project")
    with pytest.raises(ValueError, match="is not from here and would be lost"):
        to_transformers(small_gpt(embed_dim=32), tokenizer, tmp_path)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["my project"]


def test_an_export_with_the_tokenizer_of_another_is_refused(tmp_path, transformers):
    with pytest.raises(ValueError, match="the tokenizer has 3 characters, the model 24"):
        to_transformers(small_gpt(embed_dim=32), CharTokenizer("abc"), tmp_path)
    assert not [*tmp_path.iterdir()]


def test_a_model_that_came_back_is_trained_on_with_its_characters(tmp_path, twins, tokenizer):
    twins(small_gpt(embed_dim=32), tokenizer)
    back, _ = from_transformers(tmp_path)
    zoo = Corpus.from_text("zebras sleep in zoos. " * 100, "zoo")
    train(back, zoo, TrainConfig(steps=1, batch_size=2))
    assert back.chars == tokenizer.chars


def change_json(path: Path, change):
    about = json.loads(path.read_text(encoding="utf-8"))
    change(about)
    path.write_text(json.dumps(about), encoding="utf-8")


@pytest.mark.parametrize("file, change, reason", [
    ("tokenizer.json", lambda it: it["model"]["vocab"].update(a=99), "are not 0 to 23"),
    ("tokenizer.json", lambda it: it["model"]["vocab"].update(a=3), "are not 0 to 23"),
    ("config.json", lambda it: it.update(n_layer=3), "has no weights for transformer.h.2"),
    ("config.json", lambda it: it.update(n_layer=10**9), "too many for .* bytes of weights"),
    ("config.json", lambda it: it.update(n_positions=10**12), "too many for .* bytes of weights"),
    ("config.json", lambda it: it.update(n_embd=10**12 + 39), "heads must divide|too many"),
], ids=["a gap", "a double", "a layer lost", "many layers", "many positions", "wide"])
def test_a_damaged_gpt2_is_refused_before_it_takes_memory(
    tmp_path, twins, tokenizer, file, change, reason
):
    twins(small_gpt(embed_dim=32), tokenizer)
    change_json(tmp_path / file, change)
    with pytest.raises(ValueError, match=reason): from_transformers(tmp_path)


# wrapped, or changed


def test_a_wrapped_model_is_saved_plain(tmp_path, model, tokenizer):
    wrapped = torch.compile(torch.nn.DataParallel(model), backend="eager")
    save(wrapped, tokenizer, tmp_path)
    assert_same((model, tokenizer), load(tmp_path))
    texts = [generate(some, tokenizer, "a", 9, seed=0) for some in (wrapped, model)]
    assert texts[0] == texts[1]


@pytest.mark.parametrize("wrap", [torch.nn.DataParallel,
                                  lambda model: torch.compile(model, backend="eager")])
def test_a_wrapped_model_is_not_trained(tmp_path, model, corpus, wrap):
    with pytest.raises(ValueError, match="is wrapped in .*: give the plain one to train"):
        train(wrap(model), corpus, TrainConfig(steps=1), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_transposed_weight_is_saved(tmp_path, model, tokenizer):
    layer = model.blocks[0].feed_forward.up_proj
    layer.weight = torch.nn.Parameter(layer.weight.detach().T.contiguous().T)
    save(model, tokenizer, tmp_path)
    assert_same((model, tokenizer), load(tmp_path))


def test_a_model_with_another_number_of_blocks_is_not_saved(tmp_path, model, tokenizer):
    model.blocks.append(copy.deepcopy(model.blocks[0]))
    with pytest.raises(ValueError, match="blocks.2.* should have of nothing"):
        save(model, tokenizer, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_the_cache_goes_through_blocks_that_were_added(tokenizer):
    model = small_gpt(context_length=64).eval()
    model.blocks.append(copy.deepcopy(model.blocks[0]))
    torch.nn.init.normal_(model.lm_head.weight)
    texts = [generate(model, tokenizer, "a", 40, seed=0, use_cache=cache) for cache in (0, 1)]
    assert texts[0] == texts[1]


def test_a_cache_holds_one_text(model):
    with pytest.raises(ValueError, match="a cache holds one text, .* feed it ids of shape"):
        KVCache(model.eval()).feed(torch.zeros(2, 3, dtype=torch.long))


# hostile: everything has the right hash, and makes no sense


@pytest.mark.parametrize("changes, complaint", [
    ({"bits": "8"}, "says bits='8', which makes no sense"),
    ({"chars": 5}, "says chars='5', which makes no sense"),
    ({"weights": None}, "says weights='None', which makes no sense"),
    ({"config": [1]}, r"says config='\[1\]', which makes no sense"),
    ({"config": {"num_experts": 8}}, "speaks of 'num_experts', which this version does not know"),
    ({"config": {"embed_dim": "16"}}, "makes no sense: embed_dim='16' must be a whole number"),
    ({"config": {"dropout": "0"}}, "makes no sense: dropout='0' must be"),
    ({"config": {"embed_dim": 10**12 + 39, "num_heads": 1}}, "too many for .* bytes of weights"),
    ({"config": {"embed_dim": 10**12 + 39}}, "heads must divide embed_dim"),
    ({"config": {"num_blocks": 10**9}}, "too many for .* bytes of weights"),
    ({"config": {"context_length": 10**15}}, "too many for .* bytes of weights"),
    ({"config": {"vocab_size": 10**15}}, "too many for .* bytes of weights"),
    ({"chars": "aa"}, "names at least one character and each once"),
    ({"chars": "ab"}, "the tokenizer has 2 characters, the model 24"),
], ids=str)
def test_a_saved_model_that_makes_no_sense(tmp_path, model, tokenizer, changes, complaint):
    save(model, tokenizer, tmp_path)
    if "config" in changes and isinstance(changes["config"], dict):
        changes = {"config": vars(model.config) | changes["config"]}
    rewrite(tmp_path, **changes)
    with pytest.raises(ValueError, match=complaint): load(tmp_path)


def test_what_is_not_said_of_a_model_takes_its_default(tmp_path, model, tokenizer):
    save(model, tokenizer, tmp_path)
    config = {name: value for name, value in vars(model.config).items() if name != "tied_head"}
    rewrite(tmp_path, config=config)
    assert_same((model, tokenizer), load(tmp_path))


HEADERS = [b"", b"{", b"[]", b"null", b"{}", b'{"a": 1}', b'{"a": {"dtype": "F99"}}',
           b'{"a": {"dtype": "F32", "shape": [99999999999], "data_offsets": [0, 4]}}',
           b'{"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}',
           b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}', b"[" * 9999,
           b'{"lm_head.bias": {"dtype": "I64", "shape": [24], "data_offsets": [0, 192]}}']


@pytest.mark.parametrize("header", HEADERS, ids=lambda header: header[:60].decode())
@pytest.mark.parametrize("length", [None, 2**63, 2**40])
def test_weights_with_a_malformed_header(tmp_path, model, tokenizer, header, length):
    save(model, tokenizer, tmp_path)
    numbers = 40_000
    size = (len(header) if length is None else length).to_bytes(8, "little")
    content = size + header + bytes(numbers)
    digest = hashlib.sha256(content).hexdigest()
    (tmp_path / "weights-bad.safetensors").write_bytes(content)
    rewrite(tmp_path, weights="weights-bad.safetensors", weights_sha256=digest)
    with pytest.raises(ValueError, match="does not hold weights|it belongs to another model"):
        load(tmp_path)


def test_weights_outside_the_folder_are_not_read(tmp_path, model, tokenizer):
    save(model, tokenizer, tmp_path / "model")
    inside = next((tmp_path / "model").glob("*.safetensors"))
    inside.rename(tmp_path / inside.name)
    rewrite(tmp_path / "model", weights=f"../{inside.name}")
    with pytest.raises(FileNotFoundError, match="is missing: copy the whole folder again"):
        load(tmp_path / "model")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize("name", ["minigpt.json", "weights"])
def test_a_pipe_in_place_of_a_file_is_not_waited_for(tmp_path, model, tokenizer, name):
    save(model, tokenizer, tmp_path)
    path = next(tmp_path.glob(f"{name}*"))
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(FileNotFoundError): load(tmp_path)


NONSENSE = {
    "no dictionary": lambda state: [1, 2],
    "empty": lambda state: {},
    "no best": lambda state: state | {"best": None},
    "a best without weights": lambda state: state | {"best": {"step": 1, "loss": 1.0}},
    "a best of text": lambda state: state | {"best": {"step": 1, "loss": "1", "model": {}}},
    "weights of nothing": lambda state: state | {"best": state["best"] | {"model": {}}},
    "weights that are text": lambda state: state | {
        "best": state["best"] | {"model": dict.fromkeys(state["model"], "a")}},
    "weights of another model": lambda state: state | {
        "best": state["best"] | {"model": small_gpt(embed_dim=32).state_dict()}},
    "a step of text": lambda state: state | {"step": "5"},
    "a curve of text": lambda state: state | {"curve": "rows"},
    "no number format": lambda state: state | {"precision": None},
    "an optimizer of nothing": lambda state: state | {"optimizer": None},
}


@pytest.mark.parametrize("change", NONSENSE.values(), ids=NONSENSE)
def test_a_checkpoint_of_nonsense_with_a_right_hash(tmp_path, corpus, change):
    train(small_gpt(), corpus, TrainConfig(steps=2, batch_size=2), tmp_path)
    state = load_checkpoint(tmp_path)
    for path in tmp_path.glob("checkpoint-*.pt"): path.unlink()
    save_checkpoint(tmp_path, change(state), 3)
    with pytest.raises(ValueError, match=re.escape(str(tmp_path))) as refused: load(tmp_path)
    assert "\n" not in str(refused.value)


def test_a_runs_model_of_absurd_size_is_refused_before_it_takes_memory(tmp_path, corpus):
    train(small_gpt(), corpus, TrainConfig(steps=2, batch_size=2), tmp_path)
    about = read_about(tmp_path / "run.json", RUN_FORMAT, RUN_KINDS)
    for size in {"num_blocks": 10**9}, {"context_length": 10**15}, {"embed_dim": 10**12 + 39}:
        write_about(tmp_path / "run.json", about | {"model": about["model"] | size}, RUN_FORMAT)
        with pytest.raises(ValueError, match="too many for|heads must divide"): load(tmp_path)


@pytest.mark.parametrize("state", [{"model": {}}, {"optimizer": {"state": 1, "param_groups": 2}},
                                   {"optimizer": {}}], ids=str)
def test_going_on_from_nonsense(tmp_path, corpus, state):
    config = TrainConfig(steps=2, batch_size=2)
    train(small_gpt(), corpus, config, tmp_path, on_step=lambda *_: True)
    kept = load_checkpoint(tmp_path) | state
    for path in tmp_path.glob("checkpoint-*.pt"): path.unlink()
    save_checkpoint(tmp_path, kept, 1)
    with pytest.raises(ValueError, match="of another model|with another optimizer"):
        train(small_gpt(), corpus, config, tmp_path, resume=True)


def test_transformers_own_ways_to_generate_agree(twins, trained):
    # a cache or none, several texts at once, a text that is given in two parts
    model, tokenizer = twins(*trained)
    start = tokenizer("To be", return_tensors="pt")
    plain = model.generate(**start, do_sample=False, max_length=60)
    assert model.generate(**start, do_sample=False, max_length=60, use_cache=False).equal(plain)
    torch.manual_seed(0)
    several = model.generate(**start, do_sample=True, max_length=60, num_return_sequences=3)
    assert several.shape == (3, 60) and len({tuple(text.tolist()) for text in several}) == 3
    half = {"input_ids": plain[:, :30], "attention_mask": torch.ones_like(plain[:, :30])}
    assert model.generate(**half, do_sample=False, max_length=60).equal(plain)
