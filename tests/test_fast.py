"""The course's own dropout: its random bits, its gradient, its attention; compiled and in threads.
And products for one row."""
import threading

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import minigpt_course.fast as fast
from minigpt_course.cache import RowCache
from minigpt_course.core import drawing_from, generator_in_use
from minigpt_course.fast import (
    LEVELS, MANY, MASK_DTYPES, Dropout, causal_attention, dequantize_rows, dropout, dropout_mask,
    dropped_levels, for_one_row, in_eight_bits, keep_scale, quantize_rows,
)
from minigpt_course.generate import KVCache
from minigpt_course.gpt import GPT, GPTConfig
from minigpt_course.share import load, save
from minigpt_course.text import CharTokenizer

DTYPES = list(MASK_DTYPES)
WORDS = 250_000  # random numbers of 64 bits in a statistical test, four lanes each


def seeded(seed: int = 0):
    "Draw from a new generator with this seed."
    return drawing_from(torch.Generator().manual_seed(seed))


def correlation(a, b) -> float:
    "Between two masks, in standard deviations of what chance gives."
    pair = torch.stack([a.flatten(), b.flatten()]).double()
    return (torch.corrcoef(pair)[0, 1] * a.numel() ** 0.5).item()


def deviations(first, second, p: float) -> dict[str, float]:
    "How far two (WORDS, 4) masks are from Bernoulli's, each figure in standard deviations."
    p, flat, found = dropped_levels(p) / LEVELS, first.flatten(), {}
    for lane in range(4):
        miss = (first[:, lane] == 0).double().mean().item() - p
        found[f"share of lane {lane}"] = miss / (p * (1 - p) / len(first)) ** 0.5
        for other in range(lane):
            found[f"lanes {other}, {lane}"] = correlation(first[:, other], first[:, lane])
    for gap in *range(1, 9), 624, 2496:
        found[f"{gap} apart"] = correlation(flat[gap:], flat[:-gap])
    found["calls"] = correlation(first, second)
    return found


def two_masks(p: float):
    with seeded(1):
        return dropout_mask((WORDS, 4), p), dropout_mask((WORDS, 4), p)


@pytest.mark.parametrize("p", [0.01, 0.2, 0.5, 0.9])
def test_mask_is_bernoulli(p):
    first, second = two_masks(p)
    assert set(first.unique().tolist()) == {-1, 0}
    assert max(map(abs, deviations(first, second, p).values())) < 4.5


def test_deviations_find_bad_masks():
    "The test above fails for lanes that agree, repeat the last word, or come a second time."
    first, second = two_masks(0.2)
    copied, late = first.clone(), first.clone()
    copied[:, 3] = copied[:, 1]
    late[1:, 2] = first[:-1, 0]
    assert abs(deviations(copied, second, 0.2)["lanes 1, 3"]) > 100
    assert abs(deviations(late, second, 0.2)["6 apart"]) > 100
    assert deviations(first, first, 0.2)["calls"] > 100


def test_deviations_find_slightly_bad_masks():
    "Two lanes that agree once in fifty by more than chance, and a p that is 1 percent too high."
    first, second = two_masks(0.2)
    first[::50, 3] = first[::50, 1]
    assert abs(deviations(first, second, 0.2)["lanes 1, 3"]) > 5
    high, other = two_masks(0.21)
    assert abs(deviations(high, other, 0.2)["share of lane 0"]) > 5


def test_deviations_find_a_missing_sign():
    "Random numbers of 63 bits, which `random_()` draws without bounds: the top lane is never < 0."
    bits = torch.empty(WORDS, dtype=torch.int64).random_(generator=torch.Generator())
    lanes = bits.view(torch.int16).view(-1, 4)
    mask = -(lanes >= dropped_levels(0.2) - LEVELS // 2).short()
    assert abs(deviations(mask, mask, 0.2)["share of lane 3"]) > 100


@pytest.mark.parametrize("p", [0.1, 0.5])
@pytest.mark.parametrize("dtype", DTYPES)
def test_mean_variance_and_gradient(p, dtype):
    "Of ones: mean 1, variance p / (1 - p), and the same for the gradient."
    x = torch.ones(400_000, dtype=dtype, requires_grad=True)
    with seeded(2):
        y = dropout(x, p)
    y.sum().backward()
    kept, spread = y.detach().double(), p / (1 - p)
    rounding = torch.finfo(dtype).eps  # of the scale, which a number of this format holds
    assert abs(kept.mean() - 1) < 4.5 * (spread / len(x)) ** 0.5 + rounding
    assert abs(kept.var() - spread) < 0.02 * spread + 4 * rounding
    assert torch.equal(x.grad, y.detach())


@pytest.mark.parametrize("p", [0.1, 0.2, 0.3, 1 / 3, 0.7, 1e-5, 0.99999])
def test_scale_is_of_the_rounded_probability(p):
    levels = round(p * 65536)
    assert keep_scale(p) == 65536 / (65536 - levels)
    with seeded():
        y = dropout(torch.ones(400_000, dtype=torch.float64), p)
    assert set(y.unique().tolist()) <= {0.0, 65536 / (65536 - levels)}


def test_a_level_is_one_of_65536(monkeypatch):
    "Every 16-bit number once: exactly `levels` of them are dropped."
    every = torch.arange(LEVELS, dtype=torch.int32).to(torch.int16)
    words = every.view(torch.int64)
    monkeypatch.setattr(torch.Tensor, "random_", lambda bits, *_, **__: bits.copy_(words))
    for p in 1 / LEVELS, 0.2, 0.5, 1 - 1 / LEVELS:
        assert (dropout_mask((LEVELS,), p) == 0).sum() == dropped_levels(p)


def test_a_seed_gives_this_mask():
    with seeded(0):
        mask = dropout_mask((16,), 0.25)
    kept = [0, 0, 1, 0, 1, 1, 0, 0, 1, 1, 0, 0, 1, 1, 1, 0]
    assert mask.neg().tolist() == kept


@pytest.mark.parametrize("dtype", DTYPES)
def test_same_seed_same_mask_in_every_format(dtype):
    x = torch.ones(1003, dtype=dtype)
    with seeded(4):
        y = dropout(x, 0.3)
    with seeded(4):
        again = dropout(x, 0.3)
    with seeded(4):
        mask = dropout_mask((1003,), 0.3)
    assert torch.equal(y, again) and torch.equal(y != 0, mask == -1)
    with seeded(5):
        assert not torch.equal(y, dropout(x, 0.3))


def test_draws_from_the_generator_in_use_alone():
    torch.manual_seed(0)
    before, generator = torch.get_rng_state(), torch.Generator().manual_seed(0)
    own = generator.get_state()
    query = torch.randn(3, 1, 2, 8, 4, generator=torch.Generator())
    with drawing_from(generator):
        dropout(torch.ones(10), 0.5)
        Dropout(0.5)(torch.ones(10))
        causal_attention(*query, 0.5)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(generator.get_state(), own)
    first = dropout(torch.ones(100), 0.5)  # no generator in use: torch's global one
    assert not torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(0)
    assert torch.equal(dropout(torch.ones(100), 0.5), first)


@pytest.mark.parametrize("dtype", DTYPES)
def test_gradient_is_that_of_the_mask(dtype):
    torch.manual_seed(0)
    x, other = torch.randn(2, 7, 33, dtype=torch.float64).to(dtype)
    x.requires_grad_()
    with seeded(6):
        dropout(x, 0.3).mul(other).sum().backward()
    with seeded(6):
        mask = dropout_mask(x.shape, 0.3) == -1
    assert torch.equal(x.grad, torch.where(mask, other * keep_scale(0.3), 0))


def test_gradient_numerically():
    def function(x):
        with seeded(7):
            return dropout(x, 0.4).square()
    x = torch.randn(5, 6, dtype=torch.float64, generator=torch.Generator(), requires_grad=True)
    assert torch.autograd.gradcheck(function, x)
    assert torch.autograd.gradgradcheck(function, x)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("view", [
    lambda x: x.mT, lambda x: x[:, ::2], lambda x: x[1:, 3:], lambda x: x[:1].expand(5, -1),
    lambda x: x[0, 0], lambda x: x[:0], lambda x: x[:, :0], lambda x: x.flatten()[:7],
])
def test_any_strides(view, dtype):
    x = view(torch.arange(1.0, 61.0).view(6, 10).to(dtype)).requires_grad_()
    with seeded(8):
        y = dropout(x, 0.5)
    with seeded(8):
        mask = dropout_mask(x.shape, 0.5) == -1
    assert y.shape == x.shape and y.dtype == dtype
    assert torch.equal(y, torch.where(mask, x * 2, 0))
    y.sum().backward()
    assert torch.equal(x.grad, mask.to(dtype) * 2)


def test_nothing_to_drop():
    generator = torch.Generator().manual_seed(0)
    before, x = generator.get_state(), torch.randn(3, generator=torch.Generator())
    with drawing_from(generator):
        assert dropout(x, 0.0) is x and dropout(x, 0.3, training=False) is x
        assert dropout(x, 1e-7) is x  # rounds to 0
        assert Dropout(0.3).eval()(x) is x
        causal_attention(*torch.ones(3, 1, 1, 4, 2), 0.0)
    assert torch.equal(generator.get_state(), before)


def test_input_is_left_alone_and_no_gradient_is_made():
    x = torch.ones(100)
    with seeded():
        y = dropout(x, 0.5)
    assert (x == 1).all() and not y.requires_grad
    with seeded(), torch.inference_mode():
        assert torch.equal(dropout(x, 0.5), y)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("dtype", DTYPES)
def test_not_finite(value, dtype):
    "What is dropped is 0, whatever it was; what is kept stays."
    x = torch.full((64,), value, dtype=dtype)
    with seeded(9):
        y = dropout(x, 0.5)
    with seeded(9):
        mask = dropout_mask((64,), 0.5) == -1
    assert torch.equal(y[~mask], torch.zeros_like(y[~mask]))
    assert torch.equal(y[mask].isnan(), x[mask].isnan()) and not y[mask].isfinite().any()


@pytest.mark.parametrize("p", [1.0, 0.999999, -0.1, 1.1, float("nan")])
def test_bad_probability(p):
    query, key, value = torch.ones(3, 1, 1, 2, 2)
    calls = lambda: dropout(torch.ones(2), p), lambda: causal_attention(query, key, value, p)
    for call in calls:
        with pytest.raises(ValueError, match="dropout probability"):
            call()
    with pytest.raises(ValueError, match="dropout probability"):
        Dropout(p)


def test_bad_input():
    with pytest.raises(TypeError, match="floating point, not torch.int64"):
        dropout(torch.ones(2, dtype=torch.long), 0.5)
    with pytest.raises(ValueError, match="in place"):
        Dropout(0.5, inplace=True)
    with pytest.raises(TypeError, match="torch.Generator or None, got int"):
        with drawing_from(3):
            pass


def test_module_stands_in_for_torchs():
    ours, theirs = Dropout(0.3), nn.Dropout(0.3)
    assert repr(ours) == repr(theirs) and isinstance(ours, nn.Dropout)
    assert ours.state_dict() == theirs.state_dict()
    with seeded():
        y = ours(torch.ones(50))
    with seeded():
        assert torch.equal(y, dropout(torch.ones(50), 0.3))


def test_other_devices_use_torchs(monkeypatch):
    "With the probability that is wished."
    called, asked, attention = [], [], F.scaled_dot_product_attention
    def attend(*heads, **options):
        asked.append(options)
        return attention(*heads, **options)
    monkeypatch.setattr(fast, "dropout_mask", lambda *a: called.append(a))
    monkeypatch.setattr(F, "dropout", lambda x, p: asked.append(p) or x)
    monkeypatch.setattr(F, "scaled_dot_product_attention", attend)
    x = torch.ones(1, 1, 4, 2, device="meta")
    assert dropout(x, 0.5).is_meta and causal_attention(x, x, x, 0.25).is_meta and not called
    assert asked == [0.5, {"dropout_p": 0.25, "is_causal": True}]


def test_default_device_does_not_matter():
    with torch.device("meta"), seeded():
        mask = dropout_mask((5, 5), 0.5)
    assert mask.device.type == "cpu"


def written_out(query, key, value, p, seed):
    "Attention by the formula, in float64."
    query, key, value = (x.double() for x in (query, key, value))
    future = torch.ones(query.shape[-2], key.shape[-2]).triu(1).bool()
    scores = query @ key.mT / query.shape[-1] ** 0.5
    weights = scores.masked_fill(future, -torch.inf).softmax(-1)
    with seeded(seed):
        mask = dropout_mask(weights.shape, p) == -1
    return (weights * mask * keep_scale(p)) @ value


def heads(dtype=torch.float32, shape=(2, 3, 17, 8)):
    torch.manual_seed(3)
    return [torch.randn(shape).to(dtype).requires_grad_() for _ in range(3)]


TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-5, torch.float16: 0.02, torch.bfloat16: 0.1}


@pytest.mark.parametrize("dtype", DTYPES)
def test_attention_and_its_gradient(dtype):
    inputs = heads(dtype)
    weights = torch.randn(inputs[0].shape, generator=torch.Generator())
    with seeded(11):
        ours = causal_attention(*inputs, 0.3)
    theirs = written_out(*inputs, 0.3, 11)
    assert ours.dtype == dtype
    close = {"rtol": TOLERANCE[dtype], "atol": TOLERANCE[dtype]}
    torch.testing.assert_close(ours.double(), theirs, **close)
    ours = torch.autograd.grad((ours * weights.to(dtype)).sum(), inputs)
    theirs = torch.autograd.grad((theirs * weights.to(dtype)).sum(), inputs)
    for a, b in zip(ours, theirs):
        torch.testing.assert_close(a, b, **close)


def test_attention_without_dropout_is_torchs():
    inputs = heads()
    torch.testing.assert_close(causal_attention(*inputs), written_out(*inputs, 0.0, 0).float())
    torch.testing.assert_close(
        causal_attention(*inputs), F.scaled_dot_product_attention(*inputs, is_causal=True))


def test_attention_is_causal():
    query, key, value = (x.detach() for x in heads())
    with seeded():
        before = causal_attention(query, key, value, 0.3)
    for x in query, key, value:
        x[:, :, 9:] += 1
    with seeded():
        after = causal_attention(query, key, value, 0.3)
    assert torch.equal(before[:, :, :9], after[:, :, :9])
    assert not torch.equal(before[:, :, 9:], after[:, :, 9:])


def test_attention_expects_what_it_computes_without_dropout():
    "The mean over many masks is attention without dropout."
    query, key, value = (x.detach() for x in heads(shape=(1, 1, 6, 4)))
    many = (x.expand(40_000, -1, -1, -1) for x in (query, key, value))
    with seeded(12):
        outputs = causal_attention(*many, 0.2)
    error = outputs.std(0) / len(outputs) ** 0.5
    away = (outputs.mean(0) - causal_attention(query, key, value)[0]).abs()
    assert (away < 4.5 * error + 1e-6).all()


def test_attention_takes_split_heads():
    "Heads that a (B, T, 3, H, D) tensor was permuted into, which are not contiguous."
    torch.manual_seed(0)
    inputs = torch.randn(2, 9, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind()
    with seeded(13):
        ours = causal_attention(*inputs, 0.3)
    torch.testing.assert_close(ours, written_out(*inputs, 0.3, 13).float())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(dtype):
    inputs, layer = heads(), nn.Linear(8, 8)
    with torch.autocast("cpu", dtype), seeded(14):
        y = causal_attention(*inputs, 0.3)
        dropped = dropout(layer(y), 0.3)
    assert y.dtype == dropped.dtype == dtype
    (y.sum() + dropped.sum()).backward()
    assert all(x.grad.dtype == torch.float32 and x.grad.isfinite().all() for x in inputs)
    close = {"rtol": TOLERANCE[dtype], "atol": TOLERANCE[dtype]}
    torch.testing.assert_close(y.double(), written_out(*inputs, 0.3, 14), **close)


class Net(nn.Module):
    "Two dropouts of the same tensor, a third one behind a layer, and attention."
    def __init__(self):
        super().__init__()
        self.dropout, self.layer = Dropout(0.5), nn.Linear(8, 8)

    def forward(self, x):
        both = torch.stack([self.dropout(x), self.dropout(x)])
        y = self.dropout(self.layer(x))
        return both, y + causal_attention(y, x, x, 0.5)


def outputs_and_gradients(net, compiled, autocast):
    x = torch.randn(2, 2, 6, 8, generator=torch.Generator()).requires_grad_()
    # without the cache, which adds gradients up in bfloat16 in eager mode but not when compiled
    cast = torch.autocast("cpu", torch.bfloat16, enabled=autocast, cache_enabled=False)
    with seeded(15), cast:
        passes = [compiled(x) for _ in range(2)]
    total = sum(y.float().square().sum() for both in passes for y in both)
    gradients = torch.autograd.grad(total, [x, *net.parameters()])
    return [y for both in passes for y in both], gradients


@pytest.mark.parametrize("autocast", [False, True])
def test_compiled_is_the_same_bit_for_bit(autocast):
    torch.manual_seed(0)
    net, before = Net(), torch.get_rng_state()
    compiled = torch.compile(net, backend="aot_eager")
    plain, gradients = outputs_and_gradients(net, net, autocast)
    outputs, compiled_gradients = outputs_and_gradients(net, compiled, autocast)
    for a, b in zip([*plain, *gradients], [*outputs, *compiled_gradients], strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(*outputs[0])  # two dropouts in one graph
    assert not torch.equal(outputs[0], outputs[2])  # two calls
    assert torch.equal(torch.get_rng_state(), before)


def test_compiled_with_the_global_generator():
    "Two draws of one shape are not one computation for the compiler."
    def pair(x):
        return dropout(x, 0.5), dropout(x, 0.5)
    x = torch.ones(100, requires_grad=True)
    torch.manual_seed(0)
    ours = torch.compile(pair, backend="aot_eager")(x)
    torch.manual_seed(0)
    assert all(torch.equal(a, b) for a, b in zip(ours, pair(x)))
    assert not torch.equal(*ours)


def test_compiled_for_another_length():
    def twice(x):
        return dropout(x, 0.5) + dropout(x, 0.5)
    compiled = torch.compile(twice, backend="aot_eager")
    for length in 5, 9, 12:
        x = torch.randn(3, length, generator=torch.Generator())
        with seeded(16):
            ours = compiled(x)
        with seeded(16):
            assert torch.equal(ours, twice(x))


def test_threads_have_generators_of_their_own():
    barrier, inputs = threading.Barrier(4), [x.detach() for x in heads()]
    before = torch.get_rng_state()

    def draw(seed, results, wait=lambda: None):
        with seeded(seed):
            wait()
            x = torch.ones(501, requires_grad=True)
            y = torch.cat([dropout(x, 0.5) for _ in range(30)])
            y.sum().backward()
            results[seed] = y.detach(), x.grad, causal_attention(*inputs, 0.3)

    alone, together = {}, {}
    for seed in range(4):
        draw(seed, alone)
    threads = [threading.Thread(target=draw, args=(seed, together, barrier.wait))
               for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed in range(4):
        assert all(torch.equal(a, b) for a, b in zip(alone[seed], together[seed]))
    assert not torch.equal(together[0][0], together[1][0])
    assert torch.equal(torch.get_rng_state(), before)


def test_generator_in_use_is_put_back():
    one, two = torch.Generator(), torch.Generator()
    assert generator_in_use() is None
    with drawing_from(one):
        with pytest.raises(KeyError), drawing_from(two):
            assert generator_in_use() is two
            raise KeyError
        with drawing_from(None):
            assert generator_in_use() is None
        seen = []
        thread = threading.Thread(target=lambda: seen.append(generator_in_use()))
        thread.start()
        thread.join()
        assert generator_in_use() is one and seen == [None]
    assert generator_in_use() is None


# one row


def test_eight_bit_numbers_are_recognised_and_no_others():
    torch.manual_seed(0)
    weight = torch.randn(20, 300)
    numbers, scale = quantize_rows(weight)
    found, its_scale = in_eight_bits(dequantize_rows(numbers, scale))
    assert torch.equal(found, numbers)
    torch.testing.assert_close(its_scale, scale)
    assert in_eight_bits(weight) is None
    weight[0] = dequantize_rows(numbers, scale)[0]
    assert in_eight_bits(weight) is None  # the first row alone does not decide


@pytest.mark.parametrize("bias", [True, False])
def test_a_large_layer_of_eight_bits_reads_a_byte_a_weight(monkeypatch, bias):
    torch.manual_seed(0)
    layer, row = nn.Linear(1024, MANY // 1024, bias), torch.randn(1, 1, 1024)
    assert torch.allclose(for_one_row(layer)(row), layer(row), atol=1e-5)
    layer.weight.data = dequantize_rows(*quantize_rows(layer.weight.detach()))
    seen, product = [], torch._weight_int8pack_mm
    monkeypatch.setattr(
        torch, "_weight_int8pack_mm", lambda *given: seen.append(given[1].dtype) or product(*given))
    torch.testing.assert_close(for_one_row(layer)(row), layer(row), rtol=0.02, atol=0.02)
    assert seen == [torch.int8] and for_one_row(layer)(row).dtype == torch.float32


@pytest.mark.parametrize("change, columns", [
    ("a small layer", 512), ("float64", 1024), ("columns that fill no vector", 1025)])
def test_the_other_layers_keep_the_exact_product(monkeypatch, change, columns):
    monkeypatch.delattr(torch, "_weight_int8pack_mm")
    torch.manual_seed(0)
    layer = nn.Linear(columns, MANY // 1024)
    layer.weight.data = dequantize_rows(*quantize_rows(layer.weight.detach()))
    if change == "float64": layer.double()
    row = torch.randn(1, 1, layer.in_features, dtype=layer.weight.dtype)
    assert torch.allclose(for_one_row(layer)(row), layer(row), atol=1e-5)


def test_a_model_that_was_saved_in_eight_bits_says_nearly_the_same_from_its_cache(tmp_path):
    torch.manual_seed(0)
    size = GPTConfig(vocab_size=24, context_length=8, embed_dim=256, num_heads=2, num_blocks=2)
    save(GPT(size), CharTokenizer.fit("abc", 24), tmp_path, bits=8)
    model, _ = load(tmp_path)
    ids, cache = torch.arange(8)[None], RowCache(KVCache(model))
    logits = torch.cat([cache.feed(ids[:, i : i + 1]) for i in range(8)], dim=1)
    with torch.no_grad(): exact = model(ids)
    assert not torch.equal(logits, exact)
    assert (logits - exact).norm() < 0.01 * exact.norm()
