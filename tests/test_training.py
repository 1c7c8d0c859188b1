"""A run does what its configuration says: weight decay, betas, clipping, dropout, validation. Each
of them was once left out of the library on purpose, and a test here failed."""
import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from conftest import small_corpus, small_gpt
from minigpt_course.bigram import evaluate
from minigpt_course.devices import Compute
from minigpt_course.gpt import GPT
from minigpt_course.text import get_batch
from minigpt_course.train import TrainConfig, learning_rate_at, train

CONFIG = TrainConfig(
    steps=3, batch_size=4, learning_rate=0.01, warmup_steps=1, weight_decay=5.0, betas=(0.5, 0.7),
    grad_clip=1e9, eval_every=100)
P = 0.3  # dropout probability


# the optimizer


def gradients(model: GPT, weights: dict[str, Tensor], step: int) -> dict[str, Tensor]:
    "Those of the batch that a run has at a step."
    corpus = small_corpus()
    ids, _ = corpus.encode(corpus.fit_tokenizer(24))
    generator = torch.Generator().manual_seed(step)
    inputs, targets = get_batch(ids, CONFIG.batch_size, 16, generator)
    logits = torch.func.functional_call(model, weights, (inputs,))
    loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
    return dict(zip(weights, torch.autograd.grad(loss, [*weights.values()])))


def adamw_by_hand(decayed, betas=CONFIG.betas, decay=CONFIG.weight_decay) -> dict[str, Tensor]:
    "The weights after all steps (Loshchilov and Hutter 2019, algorithm 2)."
    model = small_gpt()
    weights = {name: w.detach().clone().requires_grad_() for name, w in model.named_parameters()}
    moments = {name: (torch.zeros_like(w), torch.zeros_like(w)) for name, w in weights.items()}
    for step in range(CONFIG.steps):
        found, rate = gradients(model, weights, step), learning_rate_at(step, CONFIG)
        for name, gradient in found.items():
            first, second = moments[name]
            first.mul_(betas[0]).add_((1 - betas[0]) * gradient)
            second.mul_(betas[1]).add_((1 - betas[1]) * gradient**2)
            mean, square = (moment / (1 - beta ** (step + 1))
                            for moment, beta in zip((first, second), betas))
            weights[name].data *= 1 - rate * decay * decayed(name, gradient)
            weights[name].data -= rate * mean / (square.sqrt() + 1e-8)
    return weights


def is_linear(name: str, weight: Tensor) -> bool: return weight.dim() == 2 and "embed" not in name


def differences(ours: GPT, others: dict[str, Tensor]) -> dict[str, float]:
    return {name: (weight - others[name]).abs().max().item()
            for name, weight in ours.named_parameters()}


def test_a_run_decays_the_matrices_of_linear_layers_and_follows_its_betas():
    model = small_gpt()
    train(model, small_corpus(), CONFIG)
    assert max(differences(model, adamw_by_hand(is_linear)).values()) < 2e-5
    wrong = {
        "no decay": adamw_by_hand(is_linear, decay=0.0),
        "another decay": adamw_by_hand(is_linear, decay=0.1),
        "decay on everything": adamw_by_hand(lambda name, weight: True),
        "PyTorch's own betas": adamw_by_hand(is_linear, betas=(0.9, 0.999)),
        "the first beta alone": adamw_by_hand(is_linear, betas=(0.5, 0.999)),
        "the second beta alone": adamw_by_hand(is_linear, betas=(0.9, 0.7)),
    }
    for name, others in wrong.items():
        assert max(differences(model, others).values()) > 2e-3, name


@pytest.mark.parametrize("precision, scale", [("float32", 1.0), ("float16", 2.0**8)])
def test_the_gradient_that_is_clipped_is_the_one_without_a_scale(precision, scale):
    "So that a step is as long as `grad_clip` allows, and the norm that the curve shows is true."
    model, clip = small_gpt(), 0.01
    stepper = Compute(precision=precision).prepare(model, CONFIG)
    if precision == "float16": stepper.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    before = nn.utils.parameters_to_vector(model.parameters()).detach().clone()
    ids = torch.randint(24, (4, 17), generator=torch.Generator().manual_seed(0))
    inputs, targets = ids[:, :-1], ids[:, 1:]
    loss = F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())
    true = nn.utils.get_total_norm(torch.autograd.grad(loss, [*model.parameters()])).item()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    _, norm = stepper.step(optimizer, inputs, targets, clip, torch.Generator())
    moved = nn.utils.parameters_to_vector(model.parameters()) - before
    assert norm == pytest.approx(true, rel=0.01)
    assert moved.norm().item() == pytest.approx(clip, rel=0.01)


# dropout


def zeros(shares: dict, place: str, pick=lambda output: output):
    "A hook that notes which share of a layer's outputs is zero, in training and in validation."
    def note(layer, given, output):
        shares.setdefault((place, layer.training), []).append((pick(output) == 0).float().mean())
    return note


def test_a_run_drops_embeddings_attention_weights_and_outputs_of_feed_forward_layers():
    """The first position looks at itself alone, with a weight of one: where that is dropped, the
    output of a head is zero there."""
    model, shares = small_gpt(dropout=P, num_heads=8), {}
    model.dropout.register_forward_hook(zeros(shares, "embeddings"))
    for number, block in enumerate(model.blocks):
        block.attention.register_forward_hook(
            zeros(shares, f"attention {number}", lambda output: output[:, 0]))
        block.feed_forward.register_forward_hook(zeros(shares, f"feed-forward {number}"))
    config = TrainConfig(**vars(CONFIG) | {"steps": 30, "batch_size": 16, "weight_decay": 0.1})
    train(model, small_corpus(), config)
    places = ["embeddings", *(f"{part} {number}" for part in ("attention", "feed-forward")
                              for number in range(2))]
    assert {*shares} == {*itertools.product(places, (True, False))}
    for (place, training), found in shares.items():
        share = torch.stack(found).mean().item()
        assert share == pytest.approx(P if training else 0.0, abs=0.03), (place, training)


# validation


@pytest.mark.parametrize("length", [2, 10, 17, 18, 49, 53])
def test_every_target_counts_once_those_of_the_last_short_window_too(length):
    model, T = small_gpt().eval(), 16
    ids = torch.randint(24, (length,), generator=torch.Generator().manual_seed(0))
    losses = [F.cross_entropy(model(ids[None, start : start + T][:, : length - 1 - start])[0],
                              ids[start + 1 : start + T + 1], reduction="sum").item()
              for start in range(0, length - 1, T)]
    assert evaluate(model, ids, T, batch_size=2) == pytest.approx(sum(losses) / (length - 1))


def test_weights_that_the_optimizer_leaves_alone_pile_nothing_up():
    "Nor do their gradients count in the norm by which the others' are clipped."
    model, corpus = small_gpt(), small_corpus()
    def head_only(model, config): return torch.optim.SGD(model.lm_head.parameters(), 0.0)
    config = TrainConfig(steps=3, batch_size=4, warmup_steps=0, eval_every=3, grad_clip=1e9)
    torch.manual_seed(0)
    curve = train(model, corpus, config, tokenizer=corpus.fit_tokenizer(24), optimizer=head_only)
    norms = [norm for norm in curve.column("gradient_norm") if norm is not None]
    own = torch.stack([weight.grad.norm() for weight in model.lm_head.parameters()]).norm().item()
    assert norms[-1] == pytest.approx(own) and max(norms) < 2 * min(norms)


def test_a_run_goes_no_further_than_its_grad_clip_allows():
    model = small_gpt()
    before = nn.utils.parameters_to_vector(model.parameters()).detach().clone()
    def sgd(model, config): return torch.optim.SGD(model.parameters(), lr=1.0)
    config = TrainConfig(steps=1, batch_size=4, learning_rate=1.0, warmup_steps=0, grad_clip=0.01)
    train(model, small_corpus(), config, optimizer=sgd)
    moved = nn.utils.parameters_to_vector(model.parameters()) - before
    assert moved.norm().item() == pytest.approx(0.01, rel=0.01)


def test_a_row_counts_the_characters_that_were_learnt_before_it():
    assert train(small_gpt(), small_corpus(), CONFIG).column("tokens") == [0, 64, 128, 192]
