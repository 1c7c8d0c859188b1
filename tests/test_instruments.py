"The tools of notebooks 09 to 11: they measure what they say and leave everything as it was."
import copy
import dataclasses
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F

from conftest import assert_same_end, small_corpus, small_gpt
from minigpt_course import anatomy, speed
from minigpt_course.devices import Compute
from minigpt_course.anatomy import copying_gain, selectivity
from minigpt_course.inside import (
    ablated_head, attention_maps, diagonal_score, logit_attribution, logit_lens, record,
    stream_parts,
)
from minigpt_course.optimizers import make_optimizer, orthogonalize
from minigpt_course.proofs import saved_bytes
from minigpt_course.speed import VARIANTS, product_intensity, seconds_of, training_variant
from minigpt_course.train import TrainConfig, train, train_step
from minigpt_course.widgets import amount

BRIEF = TrainConfig(steps=20, batch_size=4, warmup_steps=2, eval_every=10, checkpoint_every=5)
MUON = dataclasses.replace(BRIEF, optimizer="muon")


def same_weights(model, kept: dict) -> bool:
    return all(torch.equal(weights, kept[name]) for name, weights in model.state_dict().items())


# 10


@pytest.mark.parametrize("shape", [(3, 16, 16), (1, 8, 32), (2, 32, 8)])
def test_orthogonal_steps_keep_the_directions_and_even_out_the_sizes(shape):
    steps = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    left, _, right = torch.linalg.svd(steps, full_matrices=False)
    inside = left.mT @ orthogonalize(steps, rounds=5) @ right.mT
    sizes = inside.diagonal(dim1=-2, dim2=-1)
    assert 0.3 < sizes.min() and sizes.max() < 1.3
    assert (inside - torch.diag_embed(sizes)).abs().max() < 1e-4


MATRICES = ("qkv.weight", "out_proj.weight", "up_proj.weight", "down_proj.weight")


def test_a_step_of_muon_is_that_of_each_matrix_by_itself():
    torch.manual_seed(0)
    model = small_gpt(dropout=0.0, output_projection=True)
    config = TrainConfig(learning_rate=0.01, weight_decay=0.1, optimizer="muon")
    optimizer = make_optimizer(model, config)
    model(torch.randint(24, (2, 16))).square().mean().backward()
    before = {name: (weight.detach().clone(), weight.grad.clone())
              for name, weight in model.blocks.named_parameters() if name.endswith(MATRICES)}
    assert len(before) == 4 * model.config.num_blocks
    optimizer.step()
    after = dict(model.blocks.named_parameters())
    for name, (weight, gradient) in before.items():
        ahead = 0.95 * 0.05 * gradient + 0.05 * gradient  # the mean began at zero
        parts = ahead.chunk(3 if "qkv" in name else 1)
        steps = [orthogonalize(part[None])[0] for part in parts]
        length = 0.01 * 0.2 * max(steps[0].shape) ** 0.5
        wanted = 0.999 * weight - length * torch.cat(steps)
        assert torch.allclose(after[name], wanted, atol=1e-6), name


def stopped_and_whole(folder, config: TrainConfig, **choices) -> None:
    "Whether a run that was stopped after nine steps ends with the bits of one that was not."
    def stop(model, curve): return len(curve.rows) == 9
    def run(name, **more):
        train(small_gpt(dropout=0.1), small_corpus(), config, folder / name, **choices, **more)
    run("whole")
    run("twice", on_step=stop)
    run("twice", resume=True)
    assert_same_end(folder / "twice", folder / "whole", config.steps)


def test_a_run_with_muon_that_was_stopped_ends_with_the_same_bits(tmp_path):
    stopped_and_whole(tmp_path, MUON)


def test_a_run_cannot_go_on_with_another_optimizer(tmp_path):
    def stop(model, curve): return len(curve.rows) == 9
    train(small_gpt(), small_corpus(), BRIEF, tmp_path, on_step=stop)
    named = "is the run of another training: there optimizer='adamw', here optimizer='muon'"
    with pytest.raises(ValueError, match=named):
        train(small_gpt(), small_corpus(), MUON, tmp_path, resume=True)
    def sgd(model, config): return torch.optim.SGD(model.parameters(), lr=config.learning_rate)
    handed = "was trained with another optimizer: use the same as before"
    with pytest.raises(ValueError, match=handed):
        train(small_gpt(), small_corpus(), BRIEF, tmp_path, resume=True, optimizer=sgd)


def stepper_of(model, threads: int): return Compute(threads=threads).prepare(model, BRIEF)


def seeded() -> torch.Generator: return torch.Generator().manual_seed(0)


WAYS = [*({"threads": n} for n in (1, 2, 3, 8)), *({"accumulate": n} for n in (2, 3, 4))]


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_windows_shared_out_give_the_gradient_of_the_whole_batch(way):
    "Five of them, so that the parts are of unequal length."
    text, models, answers = torch.randint(24, (5, 17)), [], []
    for shared in False, True:
        model = small_gpt(tied_head=True).double()
        model.position_embedding.requires_grad_(False)
        batch = make_optimizer(model, BRIEF), text[:, :-1], text[:, 1:], 0.5
        stepper = Compute(**way).prepare(model, BRIEF)
        if shared: answers.append(stepper.step(*batch, seeded()))
        else: answers.append(train_step(model, *batch))
        models.append(model)
    assert answers[1] == pytest.approx(answers[0], rel=1e-12)
    assert answers[0][1] > 0.5  # the gradient was cut
    for weight, twin in zip(*(model.parameters() for model in models)):
        assert torch.allclose(weight, twin, rtol=1e-9, atol=1e-12)
        assert (weight.grad is None) == (twin.grad is None)
        if weight.grad is not None:
            assert torch.allclose(weight.grad, twin.grad, rtol=1e-9, atol=1e-12)


def test_each_thread_works_alone_and_those_made_later_do_not():
    torch.set_num_threads(2)
    try:
        model, text, seen = small_gpt(), torch.randint(24, (6, 17)), []
        stepper, optimizer = stepper_of(model, 3), make_optimizer(model, BRIEF)
        model.register_forward_hook(lambda *_: seen.append(torch.get_num_threads()))
        for _ in range(2): stepper.step(optimizer, text[:, :-1], text[:, 1:], 1.0, seeded())
        assert seen == [1] * 6
        made_later = ThreadPoolExecutor(1).submit(torch.get_num_threads).result()
        assert torch.get_num_threads() == made_later == 2
    finally: torch.set_num_threads(1)


def test_a_step_by_threads_that_fails_changes_nothing():
    model, text = small_gpt(), torch.randint(24, (4, 17))
    stepper, before = stepper_of(model, 2), copy.deepcopy(model.state_dict())
    optimizer, wrong = make_optimizer(model, BRIEF), text.clone()
    wrong[3, 2] = 99
    with pytest.raises(ValueError, match="ids reach from"):
        stepper.step(optimizer, wrong[:, :-1], text[:, 1:], 1.0, seeded())
    assert same_weights(model, before)
    assert all(weight.grad is None for weight in model.parameters())
    stepper.step(optimizer, text[:, :-1], text[:, 1:], 1.0, seeded())
    assert not same_weights(model, before)


@pytest.mark.parametrize("config", [BRIEF, MUON], ids=["adamw", "muon"])
def test_a_run_by_threads_that_was_stopped_ends_with_the_same_bits(tmp_path, config):
    stopped_and_whole(tmp_path, config, compute=Compute(threads=4))


def test_threads_draw_dropout_from_generators_of_their_own():
    "Two equal windows in one batch are treated differently, and the same again from the same seed."
    text, gradients = torch.randint(24, (1, 17)).expand(2, 17), []
    for threads, dropout, rounds in (2, 0.3, 2), (2, 0.0, 1), (1, 0.0, 1):
        for _ in range(rounds):
            model = small_gpt(dropout=dropout).train()
            seen = []
            model.blocks.register_forward_hook(lambda layer, given, out: seen.append(out.detach()))
            stepper, optimizer = stepper_of(model, threads), make_optimizer(model, BRIEF)
            stepper.step(optimizer, text[:, :-1], text[:, 1:], 1.0, seeded())
            first, second = torch.cat(seen)
            assert torch.allclose(first, second) == (dropout == 0)
            gradients.append(torch.cat([weight.grad.flatten() for weight in model.parameters()]))
    once, again, threads, alone = gradients
    assert torch.equal(once, again) and not torch.allclose(once, threads, atol=1e-4)
    assert torch.allclose(threads, alone, atol=1e-6)


def test_all_variants_give_the_same_gradients():
    windows, grads = torch.randint(24, (4, 17)), []
    for variant in (name for name, form in VARIANTS.items()
                    if not form.p and form.precision == torch.float32):
        batch = windows[:, :-1], windows[:, 1:]
        model, step = training_variant(variant, small_gpt().config, batch)
        step()
        grads.append(torch.cat([weight.grad.flatten() for weight in model.parameters()]))
    assert all(torch.allclose(grad, grads[0], atol=1e-6) for grad in grads)


def test_intensity_counts_each_number_once():
    assert product_intensity(2, 3, 4) == 48 / (4 * (6 + 12 + 8))


# 11


def test_attention_maps_are_causal_and_sum_to_one(model):
    maps = attention_maps(model, torch.randint(24, (2, 16)))
    assert maps.shape == (2, 2, 2, 16, 16) and not maps.triu(1).any()
    assert torch.allclose(maps.sum(-1), torch.ones(()))


def test_the_lens_ends_with_the_model(model):
    idx = torch.randint(24, (2, 16))
    assert torch.equal(logit_lens(model, idx)[-1], model(idx))


def hooks_of(model) -> int:
    return sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in model.modules())


def test_a_record_is_what_the_parts_give_and_leaves_no_hook(model):
    idx = torch.randint(24, (2, 16))
    streams = record(model, idx, [model.dropout, *model.blocks])
    assert torch.equal(streams[0], model.embed(idx))
    assert torch.equal(streams[-1], model.blocks(model.embed(idx)))
    assert hooks_of(model) == 0
    with pytest.raises(ValueError): record(model, idx + 24, [model.blocks])
    assert hooks_of(model) == 0


def test_a_diagonal_is_scored_by_its_mean():
    maps = torch.zeros(3, 1, 2, 8, 8)
    maps[:, 0, 0].diagonal(-1, -2, -1).fill_(1)
    maps[:, 0, 1].diagonal(1 - 4, -2, -1).fill_(0.5)
    assert torch.equal(diagonal_score(maps, -1), torch.tensor([[1.0, 0.0]]))
    assert torch.equal(diagonal_score(maps, 1 - 4), torch.tensor([[0.0, 0.5]]))


def test_all_parts_are_the_stream_and_all_shares_the_logits(model):
    idx = torch.randint(24, (2, 16))
    parts, shares = stream_parts(model, idx), logit_attribution(model, idx)
    stream, = record(model, idx, [model.blocks])
    assert len(parts) == 2 + 2 * (2 + 1) and [*shares] == [*parts, "constant"]
    assert torch.allclose(sum(parts.values()), stream, atol=1e-5)
    assert torch.allclose(sum(shares.values()), model(idx), atol=1e-5)


def test_zeros_for_a_head_are_what_the_parts_say(model):
    idx = torch.randint(24, (2, 16))
    whole, part = record(model, idx, [model.blocks[0].attention])[0], stream_parts(model, idx)
    with ablated_head(model, 0, 1): without, = record(model, idx, [model.blocks[0].attention])
    assert torch.allclose(whole - without, part["block 0, head 1"], atol=1e-6)


def test_a_head_that_was_replaced_comes_back_even_after_an_error(model):
    idx, kept = torch.randint(24, (2, 16)), copy.deepcopy(model.state_dict())
    whole = model(idx)
    with pytest.raises(ZeroDivisionError):
        with ablated_head(model, 1, 0, torch.ones(model.config.embed_dim // 2)):
            assert not torch.allclose(model(idx), whole)
            raise ZeroDivisionError
    assert same_weights(model, kept) and hooks_of(model) == 0
    assert torch.equal(model(idx), whole)


def test_a_neuron_of_one_character_is_found(model):
    layer = model.blocks[1].feed_forward.up_proj
    def only_at_7(module, inputs, output):
        output[..., 3] = -1
        output[..., 3][idx == 7] = 2
        return output
    idx = torch.arange(24).repeat(60, 1)[:, :16]
    with layer.register_forward_hook(only_at_7): share, preferred = selectivity(model, idx)
    assert share[1, 3] == 1 and preferred[1, 3] == 7 and share.max() == 1


def test_the_clock_waits_for_an_apple_gpu(monkeypatch):
    done = []
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.mps, "synchronize", lambda: done.append("waited"))
    seconds_of(lambda: done.append("worked"))
    assert done == ["waited", "worked", "waited"]


def test_dropouts_masks_are_counted_among_what_is_kept():
    idx = torch.zeros(2, 16, dtype=torch.long)
    plain, masked = (saved_bytes(small_gpt(dropout=p), idx, idx) for p in (0.0, 0.5))
    numbers = 2 * 16 * small_gpt().config.embed_dim
    assert masked - plain > 3 * 4 * numbers  # of the embeddings, and in each block


@pytest.mark.parametrize("number, said", [(9.961, "10"), (9.94, "9.9"), (0.123, "0.12"),
                                          (1234.5, "1,234")])
def test_an_amount_has_two_digits_or_all_before_the_point(number, said):
    assert amount(number) == said


def test_a_share_of_activation_is_a_share_also_where_activations_are_negative():
    share, _ = selectivity(small_gpt(activation="gelu").eval(), torch.arange(24).view(2, 12))
    assert 0 <= share.min() <= share.max() <= 1


def test_a_model_that_reads_one_character_gains_nothing_from_a_copy(model):
    with torch.no_grad(): model.blocks.apply(
        lambda part: part.weight.zero_() if isinstance(part, torch.nn.Linear) else None)
    model.position_embedding.weight.data.zero_()
    gain, error, score = copying_gain(model.eval(), torch.randint(24, (300,)), count=30)
    assert abs(gain) < 1e-5 and error < 1e-5 and 0 < score < 0.5


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_is_made_of_what_it_says(name):
    form, ids, seen = VARIANTS[name], torch.randint(24, (2, 17)), []
    model, step = training_variant(name, small_gpt().config, (ids[:, :-1], ids[:, 1:]))
    model.lm_head.register_forward_hook(lambda layer, given, out: seen.append(out.dtype))
    step()
    dropouts = [part for part in model.modules() if isinstance(part, torch.nn.Dropout)]
    assert {*map(type, dropouts)} == {form.dropout} and model.config.dropout == form.p
    assert {type(block.attention) for block in model.blocks} == {form.attention}
    assert seen == [form.precision]


def test_a_matrix_product_takes_two_operations_for_each_pair_of_numbers(monkeypatch):
    monkeypatch.setattr(speed, "best_seconds", lambda work, seconds: work().shape[0] / 100)
    assert speed.matrix_product_rate(size=50) == 2 * 50**3 / 0.5


def test_similarities_are_correlated_over_pairs_of_different_things():
    one = torch.tensor([[1.0, 0, 1], [0, 1, 0], [1, 0, 1]])
    assert anatomy.correlation(one, 1 - one + torch.eye(3)) == pytest.approx(-1)


def test_a_model_that_copies_gains_by_a_copy(monkeypatch):
    class Copies:  # says next what came next eight places before
        config = small_gpt().config
        def __call__(self, idx): return 9.0 * F.one_hot(idx.roll(7, 1), 24)
    maps = torch.zeros(1, 1, 1, 16, 16)
    maps[0, 0, 0].diagonal(-7).fill_(0.5)
    monkeypatch.setattr(anatomy, "attention_maps", lambda *given: maps)
    gain, error, score = anatomy.copying_gain(Copies(), torch.randint(24, (300,)), count=30)
    assert gain > 5 and 0 < error < 1 and score == 0.5
