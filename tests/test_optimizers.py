"AdamW and Muon: used like PyTorch's own optimizers, and compared with them."
import copy
import io
import pickle
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from minigpt_course.gpt import GPT, GPTConfig
from minigpt_course.optimizers import (
    OPTIMIZERS, Muon, adamw, lay_down, make_optimizer, muon, orthogonalize, stand_up)

HAS_MUON = pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch.optim.Muon: 2.9 on")
CONFIG = SimpleNamespace(learning_rate=0.01, betas=(0.8, 0.95), weight_decay=0.1)
FUSED = pytest.mark.parametrize("fused", [None, False, True])


def seeded(seed=0): return torch.Generator().manual_seed(seed)


def some_weights() -> dict[str, nn.Parameter]:
    "One weight of each kind; the first four are for Muon: lying, standing, stacked, square."
    shapes = {"lying": (4, 6), "standing": (6, 4), "stacked": (12, 4), "square": (4, 4),
              "bias": (5,), "scale": (7,), "table": (3, 4)}
    generator = seeded()
    return {name: nn.Parameter(torch.randn(shape, generator=generator))
            for name, shape in shapes.items()}


def groups_of(weights) -> list[dict]:
    *matrices, bias, scale, table = weights.values()
    return [{"params": matrices}, {"params": [bias, scale], "use_muon": False, "weight_decay": 0.0},
            {"params": [table], "use_muon": False}]


def set_gradients(weights, generator) -> None:
    for weight in weights.values():
        weight.grad = torch.randn(weight.shape, generator=generator)


def copies(tensors) -> list: return [tensor.detach().clone() for tensor in tensors]


def same(ones, others) -> bool:
    return all(torch.equal(one, other) for one, other in zip(list(ones), list(others), strict=True))


def small_gpt(**changes) -> GPT:
    torch.manual_seed(0)
    size = {"vocab_size": 24, "context_length": 16, "embed_dim": 16, "num_heads": 2,
            "num_blocks": 2, "dropout": 0.0}
    return GPT(GPTConfig(**size | changes))


def backward(model, seed=0, scale=lambda loss: loss) -> torch.Tensor:
    ids = torch.randint(24, (4, 16), generator=seeded(seed))
    loss = nn.functional.cross_entropy(model(ids).flatten(0, 1), ids.roll(-1, 1).flatten())
    scale(loss).backward()
    return loss


def linear_ids(part) -> set[int]:
    return {id(layer.weight) for layer in part.modules() if isinstance(layer, nn.Linear)}


# the iteration


def newton_schulz(matrix, rounds):
    "Written out for one matrix in float64, without a thought for speed."
    x = matrix.double() / (matrix.double().norm() + 1e-7)
    for _ in range(rounds):
        x = 3.4445 * x - 4.7750 * x @ x.T @ x + 2.0315 * x @ x.T @ x @ x.T @ x
    return x


@pytest.mark.parametrize("shape", [(2, 8, 8), (3, 4, 12), (1, 12, 4), (2, 1, 5)])
@pytest.mark.parametrize("rounds", [0, 1, 3, 5])
def test_each_matrix_goes_through_the_iteration_by_itself(shape, rounds):
    matrices = torch.randn(shape, generator=seeded())
    wanted = torch.stack([newton_schulz(matrix, rounds) for matrix in matrices]).float()
    assert torch.allclose(orthogonalize(matrices, rounds), wanted, atol=1e-4)


def test_three_rounds_in_float32_are_the_default():
    matrices = torch.randn(2, 4, 6, generator=seeded())
    assert torch.equal(orthogonalize(matrices), orthogonalize(matrices, 3, torch.float32))
    assert not torch.allclose(orthogonalize(matrices), orthogonalize(matrices, 5), atol=1e-2)


@pytest.mark.parametrize("given", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("products", [torch.float32, torch.float64, torch.bfloat16])
def test_the_result_has_the_dtype_of_the_input(given, products):
    matrices = torch.randn(2, 4, 6, generator=seeded()).to(given)
    result = orthogonalize(matrices, 5, products)
    assert result.dtype == given
    exact = torch.stack([newton_schulz(matrix, 5) for matrix in matrices])
    assert torch.allclose(result.double(), exact, atol=0.05)


def test_products_are_computed_in_the_dtype_that_was_asked_for():
    matrices = torch.randn(2, 16, 24, generator=seeded())
    exact = torch.stack([newton_schulz(matrix, 5) for matrix in matrices])
    kinds = torch.bfloat16, torch.float32, torch.float64
    rough, fine, finest = ((orthogonalize(matrices.double(), 5, kind) - exact).abs().max().item()
                           for kind in kinds)
    assert finest < 1e-5 < 1e-3 < rough < 0.1 and fine < 1e-4


@pytest.mark.parametrize("size", [1e-3, 1e4])
def test_a_float16_gradient_of_any_size_is_no_overflow(size):
    matrices = (size * torch.randn(1, 8, 8, generator=seeded())).half()
    result = orthogonalize(matrices).double()[0]
    assert torch.allclose(result, newton_schulz(matrices[0], 3), atol=1e-2)


def test_the_input_is_left_alone_and_zeros_stay_zeros():
    matrices = torch.randn(2, 4, 6, generator=seeded())
    before = matrices.clone()
    orthogonalize(matrices)
    assert torch.equal(matrices, before)
    assert torch.equal(orthogonalize(torch.zeros(1, 3, 4)), torch.zeros(1, 3, 4))


@pytest.mark.parametrize("shape, laid", [((4, 6), (1, 4, 6)), ((6, 4), (1, 4, 6)),
                                         ((12, 4), (3, 4, 4)), ((4, 4), (1, 4, 4))])
def test_what_is_laid_down_can_stand_up_again(shape, laid):
    matrix = torch.randn(shape, generator=seeded())
    assert lay_down(matrix).shape == laid
    assert torch.equal(stand_up(lay_down(matrix), shape[1]), matrix)


# its numbers


def by_hand(weight, gradients, lr, decay, rounds=3, momentum=0.95, length=1.0):
    "Muon, matrix by matrix, in float64."
    weight, mean = weight.detach().double(), 0
    parts = 3 if weight.shape[0] == 3 * weight.shape[1] else 1
    for gradient in gradients:
        mean = momentum * mean + (1 - momentum) * gradient.double()
        ahead = momentum * mean + (1 - momentum) * gradient.double()
        steps = [newton_schulz(part, rounds) for part in ahead.chunk(parts)]
        scale = lr * length * 0.2 * max(steps[0].shape) ** 0.5
        weight = (1 - lr * decay) * weight - scale * torch.cat(steps)
    return weight.float()


@pytest.mark.parametrize("numbers", [{}, {"rounds": 5}, {"momentum": 0.8}, {"length": 2.0},
                                     {"momentum": 0.0}])
def test_twenty_steps_are_those_of_each_matrix_by_itself(numbers):
    weights, generator = some_weights(), seeded(1)
    start, gradients = copies(weights.values()), []
    optimizer = Muon(groups_of(weights), lr=0.02, weight_decay=0.5, **numbers)
    for _ in range(20):
        set_gradients(weights, generator)
        gradients.append(copies(weight.grad for weight in weights.values()))
        optimizer.step()
    for i, weight in enumerate(list(weights.values())[:4]):
        wanted = by_hand(start[i], [step[i] for step in gradients], 0.02, 0.5, **numbers)
        assert torch.allclose(weight, wanted, atol=1e-4)


@HAS_MUON
@pytest.mark.parametrize("decay", [0.0, 0.5])
@pytest.mark.parametrize("shape", [(16, 24), (24, 16), (16, 16)])
def test_torchs_own_muon_goes_the_same_way(shape, decay):
    start, generator = torch.randn(shape, generator=seeded()), seeded(1)
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    numbers = {"lr": 0.02, "weight_decay": decay}
    optimizers = (Muon([ours], rounds=5, product_dtype=torch.bfloat16, **numbers),
                  torch.optim.Muon([theirs], adjust_lr_fn="match_rms_adamw", **numbers))
    for _ in range(10):
        ours.grad = torch.randn(shape, generator=generator)
        theirs.grad = ours.grad.clone()
        for optimizer in optimizers: optimizer.step()
    assert (ours - theirs).norm() < 0.03 * (theirs - start).norm()


@HAS_MUON
def test_torchs_own_iteration_agrees_with_ours():
    gradient = torch.randn(16, 24, generator=seeded())
    weight = nn.Parameter(torch.zeros(16, 24))
    weight.grad = gradient.clone()
    torch.optim.Muon([weight], lr=1.0, weight_decay=0.0).step()
    ours = orthogonalize(gradient[None], 5, torch.bfloat16)[0]
    assert (weight + ours).norm() < 0.03 * ours.norm()


@FUSED
@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_an_adamw_group_is_torchs_adamw(fused, maximize, decay):
    ours, theirs, generator = some_weights(), some_weights(), seeded(1)
    numbers = {"lr": 0.02, "betas": (0.7, 0.9), "eps": 1e-3, "weight_decay": decay,
               "maximize": maximize, "fused": fused}
    optimizers = (Muon([{"params": list(ours.values()), "use_muon": False}], **numbers),
                  torch.optim.AdamW(theirs.values(), **numbers))
    for _ in range(50):
        set_gradients(ours, generator)
        for one, other in zip(ours.values(), theirs.values()): other.grad = one.grad.clone()
        for optimizer in optimizers: optimizer.step()
    assert same(ours.values(), theirs.values())


def test_each_group_has_numbers_of_its_own():
    still, moved = (nn.Parameter(torch.ones(2, 3)) for _ in range(2))
    optimizer = Muon([{"params": [still], "lr": 0.0}, {"params": [moved]}], lr=0.1)
    still.grad = moved.grad = torch.ones(2, 3)
    optimizer.step()
    assert torch.equal(still, torch.ones(2, 3)) and not torch.equal(moved, torch.ones(2, 3))


def test_weights_of_other_dtypes_take_their_steps_beside_the_others():
    ends = []
    for together in True, False:
        weights = [nn.Parameter(torch.randn(4, 6, generator=seeded()).to(kind))
                   for kind in (torch.float32, torch.bfloat16)]
        for weight in weights: weight.grad = weight.detach().clone()
        for members in [weights] if together else [[weight] for weight in weights]:
            Muon(members, lr=0.1).step()
        ends.append(copies(weights))
    assert same(*ends)


def test_the_products_of_a_step_are_computed_as_the_group_says():
    moved = []
    for kind in torch.float32, torch.bfloat16:
        weight = nn.Parameter(torch.zeros(16, 24))
        weight.grad = torch.randn(16, 24, generator=seeded())
        Muon([weight], lr=0.1, product_dtype=kind).step()
        moved.append(weight.detach())
    fine, rough = moved
    assert 1e-3 < (fine - rough).norm() / fine.norm() < 0.05


# an optimizer like any other


@FUSED
def test_an_overflow_under_a_grad_scaler_changes_nothing(fused):
    weights = some_weights()
    optimizer = Muon(groups_of(weights), lr=0.1, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    before = copies(weights.values())
    scaler.scale(sum(weight.sum() for weight in weights.values())).backward()
    weights["lying"].grad[0, 0] = torch.inf
    scaler.step(optimizer)
    scaler.update()
    assert same(weights.values(), before) and not optimizer.state and scaler.get_scale() == 4.0


@FUSED
@pytest.mark.parametrize("unscale_first", [False, True])
def test_an_overflow_anywhere_after_good_steps_changes_nothing(fused, unscale_first):
    weights = some_weights()
    optimizer, scaler = Muon(groups_of(weights), lr=0.1, fused=fused), torch.amp.GradScaler("cpu")
    for bad in None, "bias", "stacked":
        optimizer.zero_grad()
        scaler.scale(sum(weight.square().sum() for weight in weights.values())).backward()
        if bad: weights[bad].grad.fill_(torch.nan)
        before, state = copies(weights.values()), copy.deepcopy(optimizer.state_dict()["state"])
        if unscale_first: scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()
        assert same(weights.values(), before) == bool(bad)
    for number, kept in optimizer.state_dict()["state"].items():
        assert same(kept.values(), state[number].values())


@FUSED
def test_without_an_overflow_a_grad_scaler_changes_no_bit(fused):
    plain, scaled = some_weights(), some_weights()
    one, other = (Muon(groups_of(weights), lr=0.1, fused=fused) for weights in (plain, scaled))
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for _ in range(3):
        for optimizer in one, other: optimizer.zero_grad()
        sum(weight.square().sum() for weight in plain.values()).backward()
        one.step()
        scaler.scale(sum(weight.square().sum() for weight in scaled.values())).backward()
        scaler.step(other)
        scaler.update()
    assert same(plain.values(), scaled.values())


@pytest.mark.parametrize("build", [adamw, muon])
def test_the_optimizers_of_our_models_survive_an_overflow(build):
    model, scaler = small_gpt(), torch.amp.GradScaler("cpu")
    optimizer, before = build(model, CONFIG), copies(model.parameters())
    backward(model, scale=scaler.scale)
    next(model.parameters()).grad[0, 0] = torch.inf
    scaler.step(optimizer)
    scaler.update()
    assert same(model.parameters(), before)


def test_a_closure_is_called_once_with_gradients_and_its_loss_returned():
    weight, calls = nn.Parameter(torch.ones(2, 2)), []
    optimizer = Muon([weight], lr=0.1)

    def closure():
        calls.append(torch.is_grad_enabled())
        optimizer.zero_grad()
        loss = weight.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 4.0 and calls == [True]
    assert weight.max() < 1 and weight.requires_grad
    assert optimizer.step() is None and optimizer.step(lambda: None) is None


def test_hooks_run_exactly_once_a_step():
    torch.optim.AdamW([nn.Parameter(torch.ones(1))])  # from now on its own step calls hooks
    weights, calls = some_weights(), []
    optimizer = Muon(groups_of(weights), lr=0.1)
    optimizer.register_step_pre_hook(lambda *_: calls.append("before"))
    optimizer.register_step_post_hook(lambda *_: calls.append("after"))
    everywhere = register_optimizer_step_post_hook(lambda *_: calls.append("all"))
    try:
        set_gradients(weights, seeded())
        optimizer.step()
    finally: everywhere.remove()
    assert sorted(calls) == ["after", "all", "before"]


@FUSED
@pytest.mark.parametrize("maximize", [False, True])
def test_gradients_are_left_as_they_were(fused, maximize):
    weights = some_weights()
    optimizer = Muon(groups_of(weights), lr=0.1, fused=fused, maximize=maximize)
    set_gradients(weights, seeded())
    gradients, before = [weight.grad for weight in weights.values()], [
        weight.grad.clone() for weight in weights.values()]
    for _ in range(2): optimizer.step()
    assert all(weight.grad is kept for weight, kept in zip(weights.values(), gradients))
    assert same(gradients, before)
    optimizer.zero_grad()
    assert all(weight.grad is None for weight in weights.values())
    set_gradients(weights, seeded())
    optimizer.zero_grad(set_to_none=False)
    assert not any(weight.grad.any() for weight in weights.values())


def test_what_has_no_gradient_is_passed_over():
    weights = some_weights()
    optimizer, before = Muon(groups_of(weights), lr=0.1, fused=True), copies(weights.values())
    optimizer.step()
    assert same(weights.values(), before) and not any(optimizer.state.values())
    set_gradients(weights, seeded())
    idle = "standing", "stacked", "table"
    for name in idle: weights[name].grad = None
    optimizer.step()
    unchanged = {name for (name, weight), old in zip(weights.items(), before)
                 if torch.equal(weight, old)}
    assert unchanged == set(idle)


def test_maximize_is_the_same_step_along_the_other_gradient():
    up, down = some_weights(), some_weights()
    one, other = Muon(groups_of(up), lr=0.1, maximize=True), Muon(groups_of(down), lr=0.1)
    generator = seeded(1)
    for _ in range(3):
        set_gradients(up, generator)
        for climbing, falling in zip(up.values(), down.values()): falling.grad = -climbing.grad
        one.step()
        other.step()
    assert same(up.values(), down.values())
    weight = nn.Parameter(torch.ones(2, 2))
    weight.grad = torch.ones(2, 2)
    Muon([weight], lr=0.1, maximize=True).step()
    assert weight.min() > 1


def through_a_file(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@FUSED
@pytest.mark.parametrize("carry", [copy.deepcopy, through_a_file])
def test_a_loaded_state_goes_on_bit_for_bit(fused, carry):
    numbers = {"lr": 0.1, "fused": fused, "rounds": 4, "momentum": 0.9, "betas": (0.7, 0.9)}
    weights, generator = some_weights(), seeded(1)
    optimizer = Muon(groups_of(weights), product_dtype=torch.bfloat16, **numbers)
    for _ in range(3):
        set_gradients(weights, generator)
        optimizer.step()
    twins = some_weights()
    for twin, weight in zip(twins.values(), weights.values()): twin.data.copy_(weight.data)
    resumed = Muon(groups_of(twins))  # its own numbers are replaced by those that were saved
    resumed.load_state_dict(carry(optimizer.state_dict()))
    for _ in range(3):
        set_gradients(weights, generator)
        for twin, weight in zip(twins.values(), weights.values()): twin.grad = weight.grad.clone()
        optimizer.step()
        resumed.step()
    assert same(weights.values(), twins.values())
    assert resumed.param_groups[0]["product_dtype"] == torch.bfloat16


@pytest.mark.parametrize("carry", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
def test_a_copied_optimizer_goes_on_with_its_copied_weights(carry):
    weights = some_weights()
    optimizer = Muon(groups_of(weights), lr=0.1)
    for _ in range(2):
        set_gradients(weights, seeded())
        optimizer.step()
    twins, twin = carry((weights, optimizer))
    set_gradients(twins, seeded())
    optimizer.step()
    twin.step()
    assert same(weights.values(), twins.values())


def test_the_state_of_another_optimizer_is_refused():
    weight = nn.Parameter(torch.ones(2, 2))
    other = torch.optim.AdamW([weight]).state_dict()
    optimizer = Muon([weight])
    with pytest.raises(ValueError, match="another optimizer's"): optimizer.load_state_dict(other)


def test_a_group_can_be_added():
    weights = some_weights()
    first, bias = weights["lying"], weights["bias"]
    optimizer = Muon([first], lr=0.1)
    set_gradients(weights, seeded())
    optimizer.step()
    optimizer.add_param_group({"params": [bias], "use_muon": False, "lr": 0.01})
    before = bias.detach().clone()
    optimizer.step()
    assert torch.allclose(before - bias, 0.01 * (bias.grad.sign() + 0.01 * before), atol=1e-5)
    with pytest.raises(ValueError, match="use_muon=False"):
        optimizer.add_param_group({"params": [weights["scale"]]})
    assert len(optimizer.param_groups) == 2  # what was refused is not there


def test_a_schedule_of_torchs_changes_the_rate():
    weight = nn.Parameter(torch.ones(2, 2))
    optimizer = Muon([weight], lr=0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.0 if step else 1.0)
    moved = []
    for _ in range(2):
        weight.grad, before = torch.ones(2, 2), weight.detach().clone()
        optimizer.step()
        schedule.step()
        moved.append(not torch.equal(weight, before))
    assert moved == [True, False]


# what is refused

BAD = [("lr", -0.1), ("lr", float("nan")), ("lr", float("inf")), ("lr", "fast"),
       ("lr", torch.tensor(0.1)), ("eps", -1e-8), ("weight_decay", -0.1), ("momentum", 1.0),
       ("momentum", -0.1), ("momentum", None), ("rounds", 0), ("rounds", 2.5), ("rounds", True),
       ("betas", (0.9, 1.0)), ("betas", (-0.1, 0.9)), ("betas", (0.9,)), ("betas", 0.9),
       ("betas", (0.9, 0.9, 0.9)), ("length", 0.0), ("length", -1.0), ("length", float("inf")),
       ("product_dtype", torch.int64), ("product_dtype", "bfloat16")]


@pytest.mark.parametrize("name, value", BAD)
def test_a_number_that_makes_no_sense_is_refused_by_its_name(name, value):
    weight = nn.Parameter(torch.ones(2, 2))
    for build in (lambda: Muon([weight], **{name: value}),
                  lambda: Muon([{"params": [weight], name: value}]),
                  lambda: Muon([{"params": [weight], name: value, "use_muon": False}])):
        with pytest.raises(ValueError, match=f"^{name}=.* must be ") as caught: build()
        assert "\n" not in str(caught.value)


def test_the_extremes_that_make_sense_are_taken():
    weight = nn.Parameter(torch.ones(2, 2))
    weight.grad = torch.ones(2, 2)
    Muon([weight], lr=0, eps=0, weight_decay=0, momentum=0, rounds=1, betas=[0, 0.0]).step()
    assert torch.equal(weight, torch.ones(2, 2))


@pytest.mark.parametrize("shape", [(), (2,), (2, 3, 4), (1, 2, 3, 4)])
def test_what_is_no_matrix_belongs_into_an_adamw_group(shape):
    weight = nn.Parameter(torch.ones(shape))
    with pytest.raises(ValueError) as caught: Muon([weight])
    assert f"shape {shape}" in str(caught.value) and "put it in an AdamW group" in str(caught.value)
    Muon([{"params": [weight], "use_muon": False}])


def test_a_complex_matrix_is_refused_and_use_muon_is_yes_or_no():
    weight = nn.Parameter(torch.ones(2, 2, dtype=torch.complex64))
    with pytest.raises(ValueError, match="complex64"): Muon([weight])
    with pytest.raises(ValueError, match="use_muon='no'"):
        Muon([{"params": [nn.Parameter(torch.ones(2, 2))], "use_muon": "no"}])


@pytest.mark.parametrize("name", ["differentiable", "capturable", "amsgrad", "foreach"])
def test_what_is_not_offered_cannot_be_asked_for(name):
    weight = nn.Parameter(torch.ones(2, 2))
    with pytest.raises(TypeError, match=name): Muon([weight], **{name: True})


# for the models of this course


@pytest.mark.parametrize("changes", [{}, {"tied_head": True}, {"output_projection": True}])
def test_adamw_decays_the_matrices_of_linear_layers_and_nothing_else(changes):
    model = small_gpt(**changes)
    optimizer = adamw(model, CONFIG)
    assert type(optimizer) is torch.optim.AdamW
    decayed, others = optimizer.param_groups
    assert {id(weight) for weight in decayed["params"]} == linear_ids(model)
    found = decayed["params"] + others["params"]
    assert sorted(map(id, found)) == sorted(map(id, model.parameters()))
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.1, 0.0)
    for group in decayed, others:
        assert (group["lr"], group["betas"], group["fused"]) == (0.01, (0.8, 0.95), True)


def test_adamw_and_muon_step_as_their_configuration_says():
    "Twenty steps beside torch's own AdamW, which is told by hand what decays and how."
    for build in adamw, muon:
        model, twin = small_gpt(), small_gpt()
        part = model if build is adamw else model.blocks
        matrices = linear_ids(part)
        pairs = list(zip(model.parameters(), twin.parameters()))
        followed = [pair for pair in pairs if build is adamw or id(pair[0]) not in matrices]
        groups = [{"params": [other], "weight_decay": 0.1 if id(one) in matrices else 0.0}
                  for one, other in followed]
        reference = torch.optim.AdamW(groups, lr=0.01, betas=(0.8, 0.95))
        optimizer = build(model, CONFIG)
        for seed in range(20):
            optimizer.zero_grad()
            backward(model, seed)
            for one, other in followed: other.grad = one.grad.clone()
            optimizer.step()
            reference.step()
        assert all(torch.allclose(one, other, atol=1e-5) for one, other in followed)


@pytest.mark.parametrize("changes", [{}, {"tied_head": True}, {"output_projection": True}])
def test_muon_takes_the_matrices_inside_the_blocks_and_adamw_the_rest(changes):
    model = small_gpt(**changes)
    optimizer = muon(model, CONFIG)
    matrices, others = optimizer.param_groups
    assert {id(weight) for weight in matrices["params"]} == linear_ids(model.blocks)
    found = matrices["params"] + others["params"]
    assert sorted(map(id, found)) == sorted(map(id, model.parameters()))
    assert (matrices["use_muon"], others["use_muon"]) == (True, False)
    assert (matrices["weight_decay"], others["weight_decay"]) == (0.1, 0.0)
    assert (matrices["length"], matrices["rounds"], matrices["momentum"]) == (1.0, 3, 0.95)
    assert matrices["product_dtype"] == torch.float32
    for group in matrices, others:
        assert (group["lr"], group["betas"], group["fused"]) == (0.01, (0.8, 0.95), True)


def test_muon_hands_on_its_numbers():
    group = muon(small_gpt(), CONFIG, 0.5, rounds=5, product_dtype=torch.bfloat16).param_groups[0]
    assert (group["length"], group["rounds"], group["product_dtype"]) == (0.5, 5, torch.bfloat16)


@pytest.mark.parametrize("build", [adamw, muon])
def test_a_frozen_block_breaks_nothing_and_stays(build):
    model = small_gpt()
    model.blocks[0].requires_grad_(False)
    frozen, free = copies(model.blocks[0].parameters()), copies(model.blocks[1].parameters())
    optimizer = build(model, CONFIG)
    for _ in range(2):
        optimizer.zero_grad()
        backward(model)
        optimizer.step()
    assert same(model.blocks[0].parameters(), frozen)
    assert not any(map(torch.equal, model.blocks[1].parameters(), free))
    model.blocks[0].requires_grad_(True)  # set free, it learns
    backward(model)
    optimizer.step()
    assert not any(map(torch.equal, model.blocks[0].parameters(), frozen))


@pytest.mark.parametrize("build", [adamw, muon])
def test_either_makes_the_loss_fall(build):
    model = small_gpt()
    optimizer, losses = build(model, CONFIG), []
    for _ in range(30):
        optimizer.zero_grad()
        losses.append(backward(model).item())
        optimizer.step()
    assert losses[-1] < 0.5 * losses[0]


def test_a_configuration_names_its_optimizer():
    model = small_gpt()
    assert OPTIMIZERS == {"adamw": adamw, "muon": muon}
    assert type(make_optimizer(model, CONFIG)) is torch.optim.AdamW  # a field less: AdamW
    for name, kind in ("adamw", torch.optim.AdamW), ("muon", Muon):
        config = SimpleNamespace(**vars(CONFIG), optimizer=name)
        assert type(make_optimizer(model, config)) is kind
        own = make_optimizer(model, config, lambda model, _: torch.optim.SGD(model.parameters()))
        assert type(own) is torch.optim.SGD  # a function is stronger than the name


@pytest.mark.parametrize("name", ["sgd", "", "Muon", None, ["muon"]])
def test_an_unknown_name_is_refused_with_those_that_there_are(name):
    with pytest.raises(ValueError, match="is unknown; there are adamw, muon$"):
        make_optimizer(small_gpt(), SimpleNamespace(**vars(CONFIG), optimizer=name))


def test_a_function_gets_the_model_and_the_configuration():
    model, seen = small_gpt(), []

    def build(*given):
        seen.append(given)
        return torch.optim.SGD(model.parameters(), lr=0.1)

    assert type(make_optimizer(model, CONFIG, build)) is torch.optim.SGD
    assert seen == [(model, CONFIG)]
    five = make_optimizer(model, CONFIG, partial(muon, rounds=5))
    assert five.param_groups[0]["rounds"] == 5


def test_a_function_that_returns_no_optimizer_and_what_is_no_function_are_refused():
    model = small_gpt()
    with pytest.raises(ValueError, match="returned a NoneType"):
        make_optimizer(model, CONFIG, lambda model, config: None)
    for wrong in "muon", muon(model, CONFIG), Muon, torch.optim.AdamW:
        with pytest.raises(ValueError, match="must be a function"):
            make_optimizer(model, CONFIG, wrong)
