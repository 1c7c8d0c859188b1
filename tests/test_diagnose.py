"""`diagnose` names a fault only on its own evidence, leaves healthy models in peace, and takes any
module from ids to logits."""
import copy
import dataclasses
import functools
import math
import runpy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from conftest import small_gpt
from minigpt_course.block import GPTDecoderBlock
from minigpt_course.diagnose import diagnose
from minigpt_course.faults import (
    FAULTS, HEALTHY, SMALL, AlwaysDropout, add_up, faulty_model, load_zoo, train_faulty, twin_of,
)
from minigpt_course.gpt import GPT
from minigpt_course.optimizers import make_optimizer
from minigpt_course.probes import (
    gradient_check, loss_on, monitor, overlap, plain_step, start_findings, stepped, text_findings,
)
from minigpt_course.train import TrainConfig, train_step

BRIEF = TrainConfig(steps=20, batch_size=4, warmup_steps=2, eval_every=10, checkpoint_every=5)
MUON = TrainConfig(optimizer="muon", learning_rate=0.02)
UNSEEN = runpy.run_path(Path(__file__).parents[1] / "benchmarks" / "unseen_faults.py")["FAULTS"]


def batch_of(V: int = 24, B: int = 4, T: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    windows = torch.randint(V, (B, T + 1))
    return windows[:, :-1], windows[:, 1:]


def same_weights(model, kept: dict) -> bool:
    return all(torch.equal(weights, kept[name]) for name, weights in model.state_dict().items())


def quiet(report) -> bool: return not report.suspects and not report.unusual


# it changes nothing


@pytest.mark.parametrize("config", [BRIEF, MUON], ids=["adamw", "muon"])
def test_an_examination_changes_nothing(config):
    model = small_gpt(dropout=0.1).train()
    fresh, optimizer = copy.deepcopy(model), make_optimizer(model, config)
    batch, step = batch_of(), functools.partial(train_step, grad_clip=1.0)
    before, generator = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    diagnose(model, batch, fresh, optimizer, step=step)
    assert same_weights(model, before) and same_weights(fresh, before)
    assert model.training and not optimizer.state_dict()["state"]
    assert all(weight.grad is None for weight in model.parameters())
    assert torch.equal(torch.get_rng_state(), generator)
    assert not model._forward_pre_hooks and not model._forward_hooks


# the faults it knows


OF_THE_MODEL = [name for name, fault in FAULTS.items() if not fault.training]


@pytest.mark.parametrize("fault", OF_THE_MODEL)
@pytest.mark.parametrize("seed", [1, 2])
def test_a_fault_of_the_model_is_named_before_any_training(fault, seed):
    assert diagnose(faulty_model(fault, seed), batch_of(77, T=64)).suspects == [fault]


def test_two_faults_at_once_are_both_named():
    model = faulty_model("scale missing")
    model.blocks[1].attention.__class__ = type(faulty_model("mask off by one").blocks[1].attention)
    model.blocks[0].feed_forward.activation = nn.Identity()
    assert set(diagnose(model, batch_of(77)).suspects) == {
        "scale missing", "mask off by one", "activation function missing"}


def test_the_monitor_leaves_the_random_numbers_alone():
    model, batch = small_gpt(dropout=0.1).train(), batch_of(24)
    optimizer, before = torch.optim.AdamW(model.parameters()), torch.get_rng_state()
    monitor(model, batch, optimizer)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("faults", [
    "mask off by one + trained in evaluation mode", "trained in evaluation mode + mask off by one",
    "validation set overlaps + mask off by one + trained in evaluation mode",
    "mask off by one + trained in evaluation mode + validation set overlaps"])
def test_a_fault_that_gives_another_model_keeps_the_others(faults):
    model = faulty_model(faults)
    assert all(type(block.attention).__name__ == "MaskOffByOne" for block in model.blocks)
    assert model.config.dropout == 0.2 and not model.training


def test_an_unknown_fault_is_told():
    complaint = "no fault is called 'flu'; there are: mask off by one"
    with pytest.raises(ValueError, match=complaint):
        train_faulty("positions missing + flu", torch.zeros(9), torch.zeros(9))


def test_the_zoo_has_three_seeds_of_every_fault_and_more_of_the_healthy():
    runs = load_zoo()["runs"]
    assert {*FAULTS, *HEALTHY} < {*runs}
    assert all(len(runs[name]) >= 3 for name in [*FAULTS, *HEALTHY]) and len(runs["healthy"]) >= 8


def test_the_zoo_quotes_what_the_tables_of_the_benchmark_say():
    benchmark = Path(__file__).parents[1] / "benchmarks"
    limits = load_zoo()["limits"]
    for name, kinds in ("diagnose_after.md", ["unseen", "known", "healthy"]), (
            "diagnose_blind.md", ["blind"]):
        text = (benchmark / name).read_text(encoding="utf-8")
        for kind in kinds:
            runs, *counts = limits[kind]
            words = "unseen" if kind == "blind" else kind
            assert f"| {words}: {runs} | {' | '.join(map(str, counts))} |" in text


def test_targets_are_compared_with_the_next_inputs(model):
    inputs, targets = batch_of()
    def suspects(targets): return diagnose(model, (inputs, targets)).suspects
    assert suspects(inputs) == ["targets not shifted"]
    twice = targets.roll(-1, 1).masked_fill(torch.arange(16) == 15, -100)
    assert suspects(twice) == ["targets shifted twice"]
    report = diagnose(model, (inputs, targets.flip(1)))
    assert report.suspects == [] and report.unusual[0] == "share of targets that come next"
    assert quiet(diagnose(model, (inputs, targets.masked_fill(torch.rand(4, 16) < 0.3, -100))))


def steps_of(model, step) -> list[str]:
    "What is suspected of a training step."
    return diagnose(model, batch_of(), optimizer=make_optimizer(model, BRIEF), step=step).suspects


def cleared_after(model, optimizer, inputs, targets):
    F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten()).backward()
    optimizer.step()
    optimizer.zero_grad()


def never_cleared(model, optimizer, inputs, targets):
    F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten()).backward()
    optimizer.step()


def test_a_missing_zero_grad_is_found_and_one_at_the_end_is_none():
    model = small_gpt(dropout=0.1).train()
    assert steps_of(model, never_cleared) == ["zero_grad missing"]
    assert steps_of(model, cleared_after) == []
    assert steps_of(model, functools.partial(train_step, grad_clip=1.0)) == []


def test_a_model_that_is_trained_in_evaluation_mode_is_found():
    assert steps_of(small_gpt(dropout=0.1).eval(), cleared_after) == ["trained in evaluation mode"]
    assert steps_of(small_gpt(dropout=0.1).train(), cleared_after) == []
    assert steps_of(small_gpt(dropout=0.0).eval(), cleared_after) == []


# numbers that are not finite


@pytest.mark.parametrize("number", ["nan", "inf"])
def test_the_first_weight_that_is_not_finite_is_named(model, number):
    with torch.no_grad():
        model.blocks[0].norm1.weight[0] = float(number)
        model.lm_head.weight[0, 0] = math.nan
    assert diagnose(model, batch_of()).suspects == [f"{number}, first in blocks.0.norm1.weight"]


def test_the_first_answer_that_is_not_finite_is_named(model):
    with torch.no_grad():
        model.blocks[1].norm2.weight.zero_()
        model.blocks[1].norm2.bias.fill_(1)
        model.blocks[1].feed_forward.up_proj.weight.fill_(1e38)
    found = diagnose(model, batch_of()).suspects
    assert found == ["inf, first in what blocks.1.feed_forward.up_proj gives"]


# what it does not know


def unlike(fault: str) -> GPT:
    torch.manual_seed(0)
    model = GPT(SMALL)
    return UNSEEN[fault]["model"](model) or model


@pytest.mark.parametrize("fault", ["activation after the second matrix", "stream detached",
                                   "keys mixed instead of values", "first position everywhere"])
def test_what_it_has_no_name_for_is_unusual_and_not_named(fault):
    report = diagnose(unlike(fault), batch_of(77, T=64))
    assert report.suspects == [] and report.unusual
    assert "suspected: nothing\nunusual, for a reason unknown:\n  " in str(report)


@pytest.mark.parametrize("fault", [
    "no residual around attention", "no residual around feed-forward", "no activation",
    "no final norm", "softmax twice", "scores divided by the root of C", "LayerNorm over time"])
def test_what_has_evidence_of_its_own_is_named(fault):
    assert diagnose(unlike(fault), batch_of(77, T=64)).suspects == UNSEEN[fault]["names"]


@pytest.mark.parametrize("fault", [
    "rate 100 times too low", "blocks frozen", "optimizer of a copy",
    "gradients zeroed before the step", "norms not in the optimizer"])
def test_a_training_that_is_unlike_others_is_unusual(fault):
    change, model = UNSEEN[fault], unlike(fault) if "model" in UNSEEN[fault] else GPT(SMALL)
    config = TrainConfig(**{"learning_rate": 6e-3} | change.get("config", {}))
    optimizer = change.get("optimizer", make_optimizer)(model, config)
    step = change.get("step", train_step)
    report = diagnose(model, batch_of(77), copy.deepcopy(model), optimizer,
                      step=lambda *given: step(*given, 1.0))
    assert report.suspects == [] and report.unusual


def test_a_gradient_that_is_not_the_loss_s_slope_is_seen(model):
    batch = batch_of()
    F.cross_entropy(model(batch[0]).flatten(0, 1), batch[1].flatten()).backward()
    kept = copy.deepcopy(model.state_dict())
    assert gradient_check(model, batch) == pytest.approx(1, abs=0.01)
    assert all(torch.allclose(kept[name], now) for name, now in model.state_dict().items())
    for weight in model.parameters(): weight.grad.mul_(3)
    assert gradient_check(model, batch) < 0.9


def test_the_monitor_measures_what_it_says(model):
    batch, optimizer = batch_of(), torch.optim.AdamW(model.parameters(), lr=1e-3)
    with torch.no_grad():
        for block in model.blocks: block.attention.qkv.weight.zero_()  # all scores are equal
        model.blocks[0].feed_forward.up_proj.bias.fill_(-1e3)
    numbers = monitor(model, batch, optimizer)
    assert all(weight.grad is None for weight in model.parameters())
    loss_on(model, batch).backward()
    norm = nn.utils.clip_grad_norm_(model.parameters(), math.inf)
    assert numbers["gradient norm"] == pytest.approx(norm.item(), rel=1e-4)
    assert 1 > numbers["dead units"] >= 1 / model.config.num_blocks
    usual = sum(math.log(n) for n in range(9, 17)) / 8  # positions 8 to 15 of 16
    assert numbers["attention entropy"] == pytest.approx(usual, rel=1e-4)


# the healthy


class PostNorm(GPTDecoderBlock):
    def forward(self, x):
        x = self.norm1(x + self.attention(x))
        return self.norm2(x + self.feed_forward(x))


def turned_post_norm(model: GPT) -> GPT:
    for block in model.blocks: block.__class__ = PostNorm
    return model


@pytest.mark.parametrize("changes", [
    {}, {"dropout": 0.2}, {"tied_head": True}, {"num_heads": 1}, {"num_blocks": 4},
    {"output_projection": True, "activation": "gelu"}, {"post-norm": True}], ids=str)
def test_a_healthy_model_is_left_in_peace(changes):
    torch.manual_seed(0)
    post_norm, size = "post-norm" in changes, {} if "post-norm" in changes else changes
    model = GPT(dataclasses.replace(SMALL, **size)).train()
    if post_norm: turned_post_norm(model)
    optimizer = make_optimizer(model, TrainConfig(learning_rate=6e-3))
    step = functools.partial(train_step, grad_clip=1.0)
    report = diagnose(model, batch_of(77), copy.deepcopy(model), optimizer, step=step)
    assert quiet(report), str(report)
    assert str(report).startswith("suspected: nothing\n")


# any module


class OwnAttention(nn.Module):
    "As a reader would write it, with no part of the library's."
    def __init__(self, embed_dim: int):
        super().__init__()
        self.qkv, self.causal = nn.Linear(embed_dim, 3 * embed_dim, bias=False), True

    def forward(self, x):
        query, key, value = self.qkv(x).chunk(3, dim=-1)
        return F.scaled_dot_product_attention(query, key, value, is_causal=self.causal)


def test_a_model_with_attention_of_its_own_is_examined_from_outside(model):
    for block in model.blocks: block.attention = OwnAttention(model.config.embed_dim)
    def suspects(): return diagnose(model, batch_of()).suspects
    assert quiet(diagnose(model, batch_of()))
    model.blocks[0].requires_grad_(False)
    assert quiet(diagnose(model, batch_of()))  # a frozen block is no fault
    for block in model.blocks: block.attention.causal = False
    assert suspects() == ["a look into the future"]
    for block in model.blocks: block.feed_forward.__class__ = AlwaysDropout
    # noise hides a leak from a probe that compares two passes, not from gradients
    assert set(suspects()) == {"a look into the future", "dropout left on"}


class OtherBlock(nn.Module):
    "As GPT-2 has it, in other words and without the library."
    def __init__(self, C: int):
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(C), nn.LayerNorm(C)
        self.attn = nn.MultiheadAttention(C, 2, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(C, 4 * C), nn.GELU(), nn.Linear(4 * C, C))

    def forward(self, x, mask):
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, attn_mask=mask, need_weights=False)[0]
        return x + self.mlp(self.ln_2(x))


class OtherGPT(nn.Module):
    def __init__(self, V: int = 24, C: int = 32):
        super().__init__()
        self.wte, self.wpe = nn.Embedding(V, C), nn.Embedding(16, C)
        self.h = nn.ModuleList([OtherBlock(C), OtherBlock(C)])
        self.ln_f, self.lm_head = nn.LayerNorm(C), nn.Linear(C, V, bias=False)
        self.lm_head.weight = self.wte.weight
        for weight in self.parameters():
            if weight.dim() == 2: nn.init.normal_(weight, std=0.05)

    def forward(self, idx):
        T = idx.shape[1]
        x = self.wte(idx) + self.wpe(torch.arange(T))
        for block in self.h: x = block(x, self.mask(T))
        return self.lm_head(self.ln_f(x))

    def mask(self, T): return torch.full((T, T), -math.inf).triu(1)


def hugging_face() -> nn.Module:
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(vocab_size=24, n_positions=16, n_embd=32, n_layer=2, n_head=2)
    class Logits(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = transformers.GPT2LMHeadModel(config)
        def forward(self, idx): return self.inner(idx).logits
    return Logits()


@pytest.mark.parametrize("make", [OtherGPT, hugging_face])
def test_any_module_from_ids_to_logits_is_examined(make):
    torch.manual_seed(0)
    model = make().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    report = diagnose(model, batch_of(), copy.deepcopy(model), optimizer)
    assert quiet(report), str(report)
    high = diagnose(model, batch_of(), copy.deepcopy(model),
                    torch.optim.AdamW(model.parameters(), lr=1.0))
    assert high.suspects == ["learning rate too high"]
    with torch.no_grad(): next(model.parameters())[0, 0] = math.inf
    assert "inf, first in " in diagnose(model, batch_of()).suspects[0]


class Bare(nn.Module):
    "A table without an embedding layer."
    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(0.02 * torch.randn(24, 24))

    def forward(self, idx): return self.table[idx]


def test_a_model_without_an_embedding_layer_is_examined():
    assert not diagnose(Bare(), batch_of()).suspects


class PositionsFirst(OtherGPT):
    "Its first embedding is of the positions, which it calls, or takes the weights of."
    def __init__(self, called: bool):
        super().__init__()
        self.called, wte = called, self.wte
        del self.wte
        self.wte = wte  # now behind the other

    def forward(self, idx):
        T = idx.shape[1]
        x = self.wte(idx) + (self.wpe(torch.arange(T)) if self.called else self.wpe.weight[:T])
        for block in self.h: x = block(x, self.mask(T))
        return self.lm_head(self.ln_f(x))


@pytest.mark.parametrize("called", [True, False])
def test_the_embedding_of_the_tokens_is_found_wherever_it_stands(called):
    torch.manual_seed(0)
    model = PositionsFirst(called)
    assert isinstance(next(iter(model.children())), nn.Embedding)
    report = diagnose(model, batch_of())
    assert not report.suspects
    assert "gradient from the future" in [each.what for each in report.findings]


def test_a_frozen_model_and_one_of_zeros_are_examined():
    assert quiet(diagnose(small_gpt().requires_grad_(False), batch_of()))
    table = Bare()
    nn.init.zeros_(table.table)
    assert not diagnose(table, batch_of()).suspects


def test_a_validation_set_shorter_than_a_sequence_is_read():
    ids = torch.arange(400) % 24
    report = diagnose(small_gpt(), batch_of(), texts=(ids, ids[:9]))
    assert any("validation" in each.what for each in report.findings)


class Leaking(OtherGPT):
    def mask(self, T): return torch.full((T, T), -math.inf).triu(2)


class Unplaced(OtherGPT):
    def forward(self, idx):
        x = self.wte(idx)
        for block in self.h: x = block(x, self.mask(idx.shape[1]))
        return self.lm_head(self.ln_f(x))


class AcrossTheBatch(OtherGPT):
    def forward(self, idx):
        return super().forward(idx) + self.wte(idx).mean() * 99 * self.wte.weight[:, 0]


@pytest.mark.parametrize("kind, named", [
    (Leaking, ["a look into the future"]), (Unplaced, []),
    (AcrossTheBatch, ["a look into the future", "sequences of a batch mixed"])])
def test_what_can_be_seen_from_outside_is(kind, named):
    torch.manual_seed(0)
    report = diagnose(kind(), batch_of())
    assert sorted(report.suspects) == sorted(named)
    assert named or report.unusual == ["weights without a gradient"]


# texts


def test_overlap_looks_at_the_whole_validation_set():
    train_ids, own = torch.randint(77, (60_000,)), torch.randint(77, (9_600,))
    assert overlap(train_ids, own) == 0
    copied = torch.cat([own[:4_800], train_ids[1_001:5_801]])  # in its second half only
    assert overlap(train_ids, copied) == pytest.approx(0.5, abs=0.01)
    assert overlap(train_ids, train_ids[7:55]) == 1
    assert overlap(train_ids, train_ids[7:20]) == 1  # shorter than a piece


# what it measures


class Frequencies(nn.Module):
    "Nine characters in ten are 0, whatever stands before."
    def forward(self, idx): return torch.tensor([0.9, 0.1]).log().expand(*idx.shape, 2)


def test_losses_on_texts_are_compared_and_an_overlap_is_named():
    zeros, ones = torch.zeros(100, dtype=torch.long), torch.ones(100, dtype=torch.long)
    batch = (zeros[:64].view(4, 16),) * 2
    apart, same = (text_findings(Frequencies(), batch, (zeros, new)) for new in (ones, zeros))
    values = [float(each.value) for each in apart]
    assert values == pytest.approx([1, 0, 0, 2.2, 0.105, -0.22], abs=0.005)
    assert not any(each.suspect for each in apart)
    assert [each.suspect for each in same] == [None, "validation set overlaps", *[None] * 4]


def test_a_start_unlike_gpts_is_unusual():
    torch.manual_seed(0)
    fresh = GPT(SMALL)
    with torch.no_grad(): fresh.lm_head.weight.mul_(50)
    loss, weights = start_findings(fresh, batch_of(77))
    assert loss.unusual and float(loss.value) > 1 and weights.value == "lm_head.weight"


def test_steps_from_the_start_have_its_weights_and_no_past(model):
    fresh, batch = copy.deepcopy(model), batch_of()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    plain_step(model, optimizer, *batch)
    begun, its = stepped(model, optimizer, batch, start=fresh, factor=0.5, steps=0)
    assert not same_weights(model, fresh.state_dict())
    assert same_weights(begun, fresh.state_dict()) and not its.state
    assert its.param_groups[0]["lr"] == 0.05


# the zoo


def test_the_faults_of_a_training_are_put_in():
    ids = torch.arange(9_000) % 77
    def case(name): return train_faulty(name, ids, ids[:200], steps=1)
    high = case("learning rate too high")
    assert high.optimizer.param_groups[0]["lr"] == 0.18
    assert not same_weights(high.model, high.fresh.state_dict())
    assert case("zero_grad missing").step is add_up
    assert torch.equal(*case("targets not shifted").batch)
    assert [*map(len, case("validation set overlaps").texts)] == [8_000, 7_000]


def test_a_fault_is_compared_with_healthy_runs_on_as_much_text():
    short = {name for name in FAULTS if twin_of(name) == "healthy, short text"}
    assert short == {"validation set overlaps", "trained in evaluation mode"}
    assert twin_of("positions missing") == "healthy"
    assert twin_of("positions missing + trained in evaluation mode") == "healthy, short text"
