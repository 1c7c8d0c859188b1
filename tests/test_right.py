"The model is what it says it is: the same numbers as PyTorch's own modules, and no look ahead."
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from conftest import small_gpt
from minigpt_course import attention
from minigpt_course.attention import AttentionLM, SelfAttention, causality_probe
from minigpt_course.bigram import sample
from minigpt_course.faults import MaskOffByOne
from minigpt_course.block import BlockLM, GPTDecoderBlock
from minigpt_course.cache import RowCache, can_cache
from minigpt_course.generate import KVCache, generate
from minigpt_course.gpt import GPT, GPTConfig, parameter_ledger
from minigpt_course.multihead import MultiHeadAttention, MultiHeadLM
from minigpt_course.proofs import reference_logits, torch_block_output

T, C, H, D = 70, 12, 3, 4  # T: more than one tile of PyTorch's attention kernel
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
CACHES = pytest.mark.parametrize("kind", [KVCache, lambda model: RowCache(KVCache(model))],
                                 ids=["KVCache", "RowCache"])
VARIANTS = [{}, {"output_projection": True}, {"activation": "gelu"}, {"tied_head": True}]
ACTIVATIONS = pytest.mark.parametrize("activation", ["relu", "gelu"])


@pytest.fixture(autouse=True)
def seed(): torch.manual_seed(0)


def assert_near(ours, theirs):
    assert ours.std() > 0.1  # two tensors of almost nothing would agree whatever we do
    within = {torch.float32: 1e-5, torch.float64: 1e-10}[ours.dtype]
    torch.testing.assert_close(ours, theirs, rtol=0, atol=within)


def assert_causal(probe):
    assert (probe.triu(1) == 0).all()
    assert (probe.diagonal() > 0).all()


def random_block(**options) -> GPTDecoderBlock:
    "A block whose LayerNorms do something too."
    block = GPTDecoderBlock(C, H, **options)
    for norm in block.norm1, block.norm2:
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    return block


def feed_in_pieces(model, idx, sizes, kind) -> torch.Tensor:
    cache = kind(model)
    return torch.cat([cache.feed(piece) for piece in idx.split(sizes, dim=1)], dim=1)


# the same numbers as PyTorch's


@DTYPES
def test_one_head_is_torchs_scaled_dot_product_attention(dtype):
    head, x = SelfAttention(C, D).to(dtype), torch.randn(2, T, C, dtype=dtype)
    parts = head.query(x), head.key(x), head.value(x)
    assert_near(head(x), F.scaled_dot_product_attention(*parts, is_causal=True))


@DTYPES
def test_several_heads_are_torchs_multihead_attention(dtype):
    ours, x = MultiHeadAttention(C, H).to(dtype), torch.randn(2, T, C, dtype=dtype)
    theirs = nn.MultiheadAttention(C, H, bias=False, batch_first=True, dtype=dtype)
    theirs.load_state_dict({"in_proj_weight": ours.qkv.weight, "out_proj.weight": torch.eye(C)})
    future = torch.ones(T, T, dtype=torch.bool).triu(1)
    assert_near(ours(x), theirs(x, x, x, attn_mask=future)[0])


@DTYPES
@ACTIVATIONS
def test_a_block_is_torchs_encoder_layer(dtype, activation):
    block, x = random_block(activation=activation).to(dtype), torch.randn(2, T, C, dtype=dtype)
    assert_near(block(x), torch_block_output(block, x))


@DTYPES
@ACTIVATIONS
@pytest.mark.parametrize("tied_head", [False, True])
def test_the_whole_gpt_is_the_reference(dtype, activation, tied_head):
    model = small_gpt(context_length=T, activation=activation, tied_head=tied_head)
    model, idx = model.eval().to(dtype), torch.randint(24, (2, T))
    assert_near(model(idx), reference_logits(model, idx))


@pytest.mark.parametrize("make", [
    pytest.param(lambda: AttentionLM(24, T, C), id="one head"),
    pytest.param(lambda: MultiHeadLM(24, T, C, H), id="heads"),
    pytest.param(lambda: BlockLM(24, T, C, H), id="block")])
def test_the_same_character_has_other_logits_at_another_position(make):
    logits = make()(torch.zeros(1, T, dtype=torch.long))[0]  # (T, V)
    assert (logits[1:] - logits[0]).abs().amax(dim=1).min() > 1e-3


# no look ahead


@pytest.mark.parametrize("module", [
    pytest.param(lambda: SelfAttention(C, D), id="one head"),
    pytest.param(lambda: MultiHeadAttention(C, H), id="heads"),
    pytest.param(lambda: MultiHeadAttention(C, H, output_projection=True), id="output projection"),
    pytest.param(lambda: random_block(), id="relu block"),
    pytest.param(lambda: random_block(activation="gelu"), id="gelu block"),
])
def test_no_position_moves_an_earlier_one(module):
    assert_causal(causality_probe(module(), torch.randn(T, C)))


def test_no_character_moves_an_earlier_logit_of_a_gpt():
    model = small_gpt(context_length=T).eval()
    assert_causal(causality_probe(model, torch.randint(24, (T,))))


@CACHES
@pytest.mark.parametrize("sizes", [[1] * T, [T // 2, T // 2], [5, 1, T - 7, 1]],
                         ids=["one by one", "halves", "uneven"])
def test_no_character_moves_an_earlier_logit_of_a_cache(sizes, kind):
    model = small_gpt(context_length=T).eval()
    def fed(idx): return feed_in_pieces(model, idx, sizes, kind)
    assert_causal(causality_probe(fed, torch.randint(24, (T,))))


def test_the_probe_finds_a_missing_mask(monkeypatch):
    def without_mask(query, key): return (query @ key.transpose(-2, -1)).softmax(-1)
    monkeypatch.setattr(attention, "attention_weights", without_mask)
    probe = causality_probe(SelfAttention(C, D), torch.randn(T, C))
    assert (probe[torch.ones_like(probe).triu(1) == 1] > 0).all()


def test_the_probe_finds_a_reshape_in_the_wrong_order(monkeypatch):
    heads = MultiHeadAttention(C, H)
    # (B, H, T, D) without the transpose
    monkeypatch.setattr(heads, "merge_heads", lambda x: x.reshape(1, T, C))
    assert causality_probe(heads, torch.randn(T, C)).triu(1).any()


def test_the_probe_finds_a_leak_behind_a_layer_norm():
    block = random_block()
    block.attention.__class__ = MaskOffByOne
    assert (causality_probe(block, torch.randn(T, C)).diagonal(1) > 1e-3).all()


def test_the_probe_cannot_change_the_only_id_that_there_is():
    with pytest.raises(ValueError, match="two different ids"):
        causality_probe(nn.Embedding(24, C), torch.zeros(5, dtype=torch.long))


# the numbers that the course promises


def test_the_kaggle_model_has_13_162_061_parameters():
    with torch.device("meta"): model = GPT(GPTConfig.kaggle())
    ledger = parameter_ledger(GPTConfig.kaggle())
    assert sum(p.numel() for p in model.parameters()) == 13_162_061 == sum(ledger.values())


# generating


@torch.no_grad()
def test_a_sample_is_drawn_after_all_that_its_window_holds(model, tokenizer):
    ids, generator, seen = tokenizer.encode("To be"), torch.Generator().manual_seed(3), []
    for _ in range(20):
        probs = model(ids[None, -16:])[0, -1].softmax(-1)
        ids = torch.cat([ids, torch.multinomial(probs, 1, generator=generator)])
    model.register_forward_hook(lambda part, given, logits: seen.append(given[0].shape[1]))
    assert sample(model, tokenizer, "To be", 20, 16, seed=3) == tokenizer.decode(ids)
    assert seen == [*range(5, 17), *[16] * 8]


def test_a_top_p_of_almost_nothing_writes_the_likeliest(model, tokenizer):
    likeliest = generate(model, tokenizer, "To be", 11, temperature=0)
    assert generate(model, tokenizer, "To be", 11, top_p=1e-9, seed=0) == likeliest


@CACHES
@DTYPES
@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_cached_logits_are_the_uncached_at_every_position(dtype, options, kind):
    model, idx = small_gpt(**options).eval().to(dtype), torch.randint(24, (1, 16))
    for sizes in [1] * 16, [7, 9], [16]:
        assert_near(feed_in_pieces(model, idx, sizes, kind), model(idx))


@pytest.mark.parametrize(
    "part", ["blocks.1", "blocks.1.attention", "blocks.1.feed_forward.up_proj"])
def test_a_model_that_is_watched_goes_without_a_cache(model, tokenizer, part):
    seen, whole = [], generate(model, tokenizer, "To be", 5, seed=0)
    def look(layer, inputs, output): seen.append(output.shape[1])
    hook = model.get_submodule(part).register_forward_hook(look)
    assert can_cache(small_gpt()) and not can_cache(model)
    assert generate(model, tokenizer, "To be", 5, seed=0) == whole and seen == [5, 6, 7, 8, 9]
    hook.remove()
    assert can_cache(model)


class Elsewhere(nn.Module):
    "On a device that is not the CPU."
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, device="meta"))

    def forward(self, idx):
        assert idx.is_meta
        return torch.zeros(*idx.shape, 24)


def test_a_sample_is_drawn_without_dropout_and_where_the_model_is(tokenizer):
    model = small_gpt(dropout=0.5).train()
    texts = {sample(model, tokenizer, "To be", 40, 16) for _ in range(3)}
    assert texts == {sample(model.eval(), tokenizer, "To be", 40, 16)}
    assert len(sample(Elsewhere(), tokenizer, "To be", 3, 16)) == 8


@pytest.mark.parametrize("how", ["class", "method", "method of the class"])
def test_a_model_that_was_changed_goes_without_a_cache(model, tokenizer, how, monkeypatch):
    attention, merge = model.blocks[0].attention, MultiHeadAttention.merge_heads
    if how == "class": attention.__class__ = MaskOffByOne
    elif how == "method of the class":
        monkeypatch.setattr(MultiHeadAttention, "merge_heads", lambda part, x: merge(part, 2 * x))
    else: attention.merge_heads = lambda x: MultiHeadAttention.merge_heads(attention, 2 * x)
    cached, uncached = (generate(model, tokenizer, "To be", 30, seed=0, use_cache=use)
                        for use in (True, False))
    assert cached == uncached and not can_cache(model)


@pytest.mark.parametrize("seed", range(3))
def test_the_cache_changes_no_text_far_beyond_the_context(model, tokenizer, seed):
    cached, uncached = (generate(model, tokenizer, "To be", 10 * 16, seed=seed, use_cache=use)
                        for use in (True, False))
    assert cached == uncached


def test_a_seed_reproduces_its_text_and_another_gives_another(model, tokenizer):
    first, again, other = (generate(model, tokenizer, "To be", 60, seed=seed) for seed in (1, 1, 2))
    assert first == again != other


def test_greedy_is_argmax(model, tokenizer):
    idx = tokenizer.encode("To be")
    while len(idx) < 16: idx = torch.cat([idx, model(idx[None])[0, -1:].argmax(-1)])
    assert generate(model, tokenizer, "To be", 11, temperature=0) == tokenizer.decode(idx)


@pytest.mark.parametrize("context_length", [1, 2, 3, 5, 16])
@pytest.mark.parametrize("use_cache", [True, False])
def test_text_goes_on_past_any_context(tokenizer, context_length, use_cache):
    model = small_gpt(context_length=context_length)
    text = generate(model, tokenizer, "To be", 50, seed=0, use_cache=use_cache)
    assert len(text) == 55 and text.startswith("To be")


def test_of_a_prompt_longer_than_the_context_the_end_counts(model, tokenizer, corpus):
    prompt = corpus.text[: 5 * 16]
    whole, end = (generate(model, tokenizer, start, 40, seed=0) for start in (prompt, prompt[-16:]))
    assert whole == prompt + end[16:]
