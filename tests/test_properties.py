"What holds for any input, looked for by hypothesis."
import pytest
import torch
from hypothesis import example, given, settings, strategies as st

from minigpt_course.bigram import counted_models
from minigpt_course.generate import next_probabilities
from minigpt_course.gpt import GPT, GPTConfig, parameter_ledger
from minigpt_course.text import UNKNOWN, CharTokenizer, get_batch
from minigpt_course.runs import LearningCurve

# the same examples on every machine
settings.register_profile("course", deadline=None, max_examples=100, derandomize=True)
settings.load_profile("course")

any_char = st.characters(exclude_categories=["Cs"])
alphabets = st.lists(any_char, min_size=1, max_size=20, unique=True).map("".join)
texts = st.text(min_size=1)


# characters to ids and back


@given(data=st.data(), chars=alphabets)
def test_any_text_of_the_alphabet_comes_back(data, chars):
    text, tokenizer = data.draw(st.text(chars)), CharTokenizer(chars)
    assert tokenizer.decode(tokenizer.encode(text)) == text


@given(text=st.text(), learnt=texts, vocab_size=st.integers(2, 30))
def test_any_text_comes_back_with_its_unknown_characters_replaced(text, learnt, vocab_size):
    tokenizer = CharTokenizer.fit(learnt, vocab_size)
    replaced = "".join(char if char in tokenizer.chars else UNKNOWN for char in text)
    assert tokenizer.decode(tokenizer.encode(text)) == replaced


@given(text=texts, vocab_size=st.integers(2, 50_000))
def test_a_vocabulary_has_the_size_that_was_asked(text, vocab_size):
    assert CharTokenizer.fit(text, vocab_size).vocab_size == vocab_size


@given(chars=alphabets)
def test_a_tokenizer_comes_back_from_json(tmp_path_factory, chars):
    path = tmp_path_factory.getbasetemp() / "tokenizer.json"
    CharTokenizer(chars).save(path)
    assert CharTokenizer.load(path).chars == chars


# windows, counts and curves


@given(length=st.integers(2, 200), batch_size=st.integers(1, 8), data=st.data())
def test_targets_are_the_inputs_shifted_by_one_and_never_outside(length, batch_size, data):
    context_length = data.draw(st.integers(1, length - 1))
    inputs, targets = get_batch(torch.arange(length), batch_size, context_length)
    assert inputs.shape == targets.shape == (batch_size, context_length)
    assert torch.equal(inputs, inputs[:, :1] + torch.arange(context_length))
    assert torch.equal(targets, inputs + 1)
    assert inputs.min() >= 0 and targets.max() < length


@given(vocab_size=st.integers(1, 8), data=st.data())
def test_the_rows_of_counted_models_sum_to_one(vocab_size, data):
    ids = torch.tensor(data.draw(st.lists(st.integers(0, vocab_size - 1), min_size=3)))
    for probs in counted_models(ids, vocab_size).values():
        torch.testing.assert_close(probs.sum(-1), torch.ones(probs.shape[:-1]))
        assert probs.min() > 0


curve_rows = st.lists(st.tuples(st.integers(0), st.integers(0), *[st.floats()] * 5).map(list))


@given(rows=curve_rows)
def test_a_learning_curve_comes_back_from_csv_to_the_last_digit(tmp_path_factory, rows):
    path = tmp_path_factory.getbasetemp() / "curve.csv"
    LearningCurve(rows).to_csv(path)
    assert repr(LearningCurve.from_csv(path).rows) == repr(rows)


# configurations


def config_of(num_heads: int, head_dim: int, **rest) -> GPTConfig:
    return GPTConfig(num_heads=num_heads, embed_dim=num_heads * head_dim, **rest)


configs = st.builds(
    config_of,
    num_heads=st.integers(1, 3),
    head_dim=st.integers(1, 4),
    vocab_size=st.integers(1, 9),
    context_length=st.integers(1, 9),
    num_blocks=st.integers(1, 3),
    dropout=st.floats(0, 0.9999),  # from 0.99999 on it rounds to 1
    output_projection=st.booleans(),
    activation=st.sampled_from(["relu", "gelu"]),
    tied_head=st.booleans(),
)
no_size = st.integers(max_value=0) | st.floats() | st.text() | st.none() | st.booleans()
no_switch = st.integers(min_value=2) | st.text() | st.none()
no_activation = st.text().filter(lambda name: name not in ("relu", "gelu"))
sizes = "vocab_size", "context_length", "embed_dim", "num_heads", "num_blocks"
NONSENSE = {name: no_size for name in sizes} | {
    "dropout": st.floats().filter(lambda x: not 0 <= x < 1) | st.text() | st.none(),
    "activation": no_activation | st.none() | st.lists(st.text()),
    "output_projection": no_switch,
    "tied_head": no_switch,
}


@given(config=configs, data=st.data())
def test_any_valid_config_runs_on_any_ids(config, data):
    T = data.draw(st.integers(1, config.context_length))
    logits = GPT(config)(torch.randint(config.vocab_size, (2, T)))
    assert logits.shape == (2, T, config.vocab_size) and logits.isfinite().all()


@given(config=configs)
def test_the_ledger_sums_to_the_models_count_for_any_config(config):
    counted = sum(weights.numel() for weights in GPT(config).parameters())
    assert sum(parameter_ledger(config).values()) == counted


@pytest.mark.parametrize("field", NONSENSE)
@given(data=st.data())
def test_nonsense_in_any_field_of_a_config_is_named(field, data):
    value = data.draw(NONSENSE[field])
    with pytest.raises(ValueError, match=field): GPTConfig(**{field: value})


@given(embed_dim=st.integers(1, 500), num_heads=st.integers(1, 500))
def test_heads_that_do_not_divide_are_refused_with_a_number_that_does(embed_dim, num_heads):
    if embed_dim % num_heads == 0: return
    with pytest.raises(ValueError) as refusal: GPTConfig(embed_dim=embed_dim, num_heads=num_heads)
    GPTConfig(embed_dim=embed_dim, num_heads=int(str(refusal.value).split("=")[-1]))


# sampling

any_number = st.floats(width=32, allow_nan=False, allow_infinity=False)
logits_of_any_size = st.lists(any_number, min_size=1, max_size=20).map(torch.tensor)
logits_near_zero = st.lists(st.floats(-10, 10, width=32), min_size=1, max_size=20).map(torch.tensor)
any_temperature = st.floats(0, allow_infinity=False)


def in_double(logits: torch.Tensor) -> torch.Tensor:
    "The model's own probabilities, more exact than what is measured against them."
    return logits.double().softmax(-1)


@given(logits=logits_of_any_size, temperature=any_temperature)
def test_probabilities_sum_to_one_for_any_logits_and_temperature(logits, temperature):
    probs = next_probabilities(logits, temperature)
    assert probs.min() >= 0 and abs(probs.sum() - 1) < 1e-5
    assert probs[logits.argmax()] == probs.max()


@given(logits=logits_near_zero, data=st.data())
def test_top_k_keeps_the_k_likeliest_in_proportion(logits, data):
    k = data.draw(st.integers(1, len(logits)))
    probs = next_probabilities(logits, top_k=k)
    kept, exact = probs > 0, in_double(logits)
    torch.testing.assert_close(exact[kept].sort().values, exact.topk(k).values.flip(0))
    torch.testing.assert_close(probs, (exact * kept / exact[kept].sum()).float())


@given(logits=logits_near_zero | logits_of_any_size, top_p=st.floats(0, 1, exclude_min=True))
@example(logits=torch.zeros(2), top_p=0.499)
@example(logits=torch.zeros(2), top_p=0.501)
def test_top_p_keeps_the_smallest_set_that_reaches_p(logits, top_p):
    kept = next_probabilities(logits, top_p=top_p) > 0
    shares = in_double(logits)[kept].sort().values
    assert shares.sum() > top_p - 1e-5  # it reaches p
    assert shares[1:].sum() < top_p + 1e-5  # without its least likely it does not
    assert (in_double(logits)[~kept] <= shares[0] + 1e-5).all()  # and nothing likelier was left out
