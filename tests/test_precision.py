"""The number format of a run: tried where nobody knows it, said once, remembered, and the same for
training, Muon's products and validation. What a machine would choose decides no test."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from conftest import assert_same_end, small_corpus, small_gpt
from minigpt_course import devices, runs
from minigpt_course.cache import can_cache
from minigpt_course.corpus import IdFile, write_ids
from minigpt_course.devices import (
    NARROW, PRECISIONS, Compute, answering_in, faster_precision, feed_forward_pass,
    native_precision,
)
from minigpt_course.gpt import GPT, GPTConfig
from minigpt_course.optimizers import muon
from minigpt_course.runs import LearningCurve, load_checkpoint, near
from minigpt_course.text import get_batch
from minigpt_course.train import TrainConfig, train

CPU = torch.device("cpu")
CONFIG = TrainConfig(steps=8, batch_size=4, warmup_steps=2, eval_every=4, checkpoint_every=100)
WITH_MUON = TrainConfig(**vars(CONFIG) | {"optimizer": "muon"})


def a_machine_of(monkeypatch, faster: str) -> None:
    "From here on this machine is faster in that format, and tries it for any model."
    monkeypatch.setattr(devices, "NARROW", 0)
    monkeypatch.setattr(devices, "faster_precision", lambda embed_dim, rows: faster)


def run(run_dir, config=CONFIG, rows=None, **options) -> LearningCurve:
    "A run with dropout; one that stops after so many rows, if any."
    def stop(model, curve): return len(curve.rows) == rows
    return train(small_gpt(dropout=0.2), small_corpus(), config, run_dir, on_step=stop, **options)


# the choice


def test_a_narrow_model_is_not_tried_and_stays_in_float32(monkeypatch):
    monkeypatch.setattr(devices, "faster_precision", None)
    assert GPTConfig.laptop().embed_dim < NARROW <= GPTConfig.kaggle().embed_dim
    assert native_precision(CPU, NARROW - 1, 4096) == torch.float32
    assert Compute().prepare(small_gpt(), CONFIG).precision == torch.float32


def test_a_wide_model_is_tried_at_its_own_width_and_batch(monkeypatch):
    asked = []
    monkeypatch.setattr(devices, "faster_precision", lambda *size: asked.append(size) or "bfloat16")
    model = GPT(GPTConfig(embed_dim=NARROW, num_heads=2, num_blocks=1, context_length=8))
    ways = Compute(), Compute(accumulate=2), Compute(precision="float32")
    found = [way.prepare(model, CONFIG).precision for way in ways]
    assert found == [torch.bfloat16, torch.bfloat16, torch.float32]
    assert asked == [(NARROW, 32), (NARROW, 16)]


@pytest.mark.parametrize("fast, slow", [("float32", "bfloat16"), ("bfloat16", "float32")])
def test_the_faster_is_found_by_trying_and_said_once(monkeypatch, capsys, fast, slow):
    clock = [0.0]
    def wait(embed_dim, rows):
        def one_pass(precision): clock[0] += 0.03 if precision == PRECISIONS[slow] else 0.01
        return one_pass
    monkeypatch.setattr(devices, "feed_forward_pass", wait)
    monkeypatch.setattr(devices.time, "perf_counter", lambda: clock[0])
    faster_precision.cache_clear()
    try: assert [faster_precision(384, 64) for _ in range(2)] == [fast] * 2
    finally: faster_precision.cache_clear()
    said = capsys.readouterr().out
    assert said.startswith(f"number format: {fast}, ") and said.count("\n") == 1
    assert said.endswith(f" times as fast as {slow} here\n")


def test_trying_computes_in_that_format_and_draws_nothing(monkeypatch):
    seen, before, one_pass = [], torch.get_rng_state(), feed_forward_pass(8, 16)
    monkeypatch.setattr(
        Tensor, "relu", lambda x: seen.append((x.dtype, *x.shape)) or torch.relu(x))
    gradients = [one_pass(PRECISIONS[name]) for name in ("float32", "bfloat16")]
    assert seen == [(torch.float32, 16, 32), (torch.bfloat16, 16, 32)]
    assert [g.shape for g in gradients[1]] == [(16, 8), (32, 8), (8, 32)]
    for exact, rough in zip(*gradients): torch.testing.assert_close(exact, rough, rtol=0.02, atol=0)
    assert torch.equal(torch.get_rng_state(), before)


# what a run remembers


@pytest.mark.parametrize("config", [CONFIG, WITH_MUON], ids=["adamw", "muon"])
def test_a_run_goes_on_in_its_format_wherever_it_is_bit_for_bit(
    monkeypatch, tmp_path, capsys, config
):
    a_machine_of(monkeypatch, "bfloat16")
    run(tmp_path / "whole", config)
    run(tmp_path / "parts", config, rows=5)
    a_machine_of(monkeypatch, "float32")
    run(tmp_path / "parts", config, resume=True)
    assert_same_end(tmp_path / "parts", tmp_path / "whole", CONFIG.steps)
    assert load_checkpoint(tmp_path / "parts")["precision"] == "bfloat16"
    assert capsys.readouterr().out.count("validation: in ") == 2  # not compared a second time


def test_another_format_that_is_asked_for_is_taken_and_said(monkeypatch, tmp_path, capsys):
    a_machine_of(monkeypatch, "bfloat16")
    run(tmp_path, rows=5)
    capsys.readouterr()
    run(tmp_path, rows=6, resume=True, compute=Compute(precision="float32"))
    assert "number format: float32; this run was in bfloat16 so far\n" in capsys.readouterr().out
    state = load_checkpoint(tmp_path)  # the comparison was one of bfloat16
    assert (state["precision"], state["validates_in"]) == ("float32", None)
    run(tmp_path, rows=7, resume=True)
    assert "number format" not in capsys.readouterr().out


def product_dtypes(run_dir) -> list[torch.dtype]:
    groups = load_checkpoint(run_dir)["optimizer"]["param_groups"]
    return [group["product_dtype"] for group in groups if group["use_muon"]]


@pytest.mark.parametrize("name", ["bfloat16", "float32"])
def test_muons_products_are_in_the_format_of_the_run(monkeypatch, tmp_path, name):
    a_machine_of(monkeypatch, name)
    run(tmp_path / "by name", WITH_MUON, rows=1)
    run(tmp_path / "by hand", rows=1, optimizer=muon)
    assert product_dtypes(tmp_path / "by name") == [PRECISIONS[name]]
    assert product_dtypes(tmp_path / "by hand") == [torch.float32]


# validation


def in_bfloat16(run_dir, **options) -> LearningCurve:
    return run(run_dir, compute=Compute(precision="bfloat16"), **options)


def test_validation_is_in_the_format_that_says_the_same(tmp_path, capsys):
    in_bfloat16(tmp_path)
    assert "validation: in bfloat16; the loss in bfloat16 is 0.000" in capsys.readouterr().out
    state, model = load_checkpoint(tmp_path), small_gpt()
    model.load_state_dict(state["model"])
    corpus = small_corpus()
    ids, exact = corpus.encode(corpus.fit_tokenizer(24))[1], LearningCurve(state["curve"])
    with answering_in(model, CPU, torch.bfloat16): rough = runs.evaluate(model, ids, 16)
    assert exact.last("validation_loss") == rough != runs.evaluate(model, ids, 16)


def test_validation_stays_in_float32_where_the_format_says_something_else(
    monkeypatch, tmp_path, capsys
):
    formats, evaluate = [], runs.evaluate
    def differing(*given):
        formats.append(torch.is_autocast_enabled("cpu"))
        return evaluate(*given) + 0.0011 * formats[-1]
    monkeypatch.setattr(runs, "evaluate", differing)
    in_bfloat16(tmp_path)
    assert "validation: in float32; the loss in bfloat16 is 0.001" in capsys.readouterr().out
    assert formats == [False, False, True, False]  # before the first step, compared, at the end
    state = load_checkpoint(tmp_path)
    assert state["validates_in"] == "float32" and 0.001 < state["rounding"] < 0.002


def test_a_model_answers_in_float32_and_is_left_as_it_was():
    model, ids = small_gpt().eval(), torch.arange(16)[None]
    exact, dtypes = model(ids), []
    watch = model.blocks[0].register_forward_hook(lambda *given: dtypes.append(given[2].dtype))
    with pytest.raises(KeyError), answering_in(model, CPU, torch.bfloat16):
        rough = model(ids)
        raise KeyError
    watch.remove()
    assert rough.dtype == torch.float32 and not torch.equal(rough, exact)
    torch.testing.assert_close(rough, exact, rtol=0.05, atol=0.2)
    assert can_cache(model) and torch.equal(model(ids), exact) and not torch.is_autocast_enabled()


# ids


def test_batches_are_cut_where_the_ids_are_and_hold_the_same_numbers(tmp_path):
    ids, elsewhere = torch.arange(1000), torch.device("meta")
    there = near(ids, elsewhere)
    assert there.device == elsewhere and near(ids, CPU) is ids
    assert all(part.device == elsewhere for part in get_batch(there, 4, 16, None, elsewhere))
    (tmp_path / "text.txt").write_text("to be or not to be\n" * 100)
    write_ids(tmp_path / "text.txt", tmp_path / "ids", 24)
    on_disk = IdFile(tmp_path / "ids").train
    assert near(on_disk, elsewhere) is on_disk
    in_memory = on_disk[torch.arange(len(on_disk))]
    (x, y), (also_x, also_y) = (
        get_batch(source, 4, 16, torch.Generator().manual_seed(0))
        for source in (on_disk, in_memory))
    assert torch.equal(x, also_x) and torch.equal(y, also_y)


def test_a_run_has_its_ids_where_it_computes(monkeypatch):
    asked = []
    monkeypatch.setattr(runs, "near", lambda ids, device: asked.append((len(ids), device)) or ids)
    train(small_gpt(), small_corpus(), CONFIG, on_step=lambda model, curve: True)
    corpus = small_corpus()
    assert asked == [(len(corpus.train), CPU), (len(corpus.validation), CPU)]


@pytest.mark.parametrize("about, name", [
    ("model name\t: Xeon\nflags\t\t: fpu avx2 avx512f\n", "Xeon (avx2, avx512f)"),
    ("model name\t: Old\nflags\t\t: fpu\n", "Old")])
def test_a_cpu_is_named_with_the_instructions_that_decide_its_speed(monkeypatch, about, name):
    file = SimpleNamespace(is_file=lambda: True, read_text=lambda: about)
    monkeypatch.setattr(devices, "Path", lambda path: file)
    assert devices.cpu_name() == name


def test_ids_that_do_not_fit_stay_where_they_are():
    many = torch.zeros(1, dtype=torch.long).expand(2**27 + 1)  # in no memory at all
    assert near(many, torch.device("meta")) is many
