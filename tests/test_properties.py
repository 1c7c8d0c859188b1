"What holds for any input, looked for by hypothesis; and the parts of a corpus."
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from conftest import small_corpus, small_gpt
from minigpt_course import cli
from minigpt_course.bigram import evaluate
from minigpt_course.corpus import SHAKESPEARE_SHA256, load_corpus
from minigpt_course.counted import baselines, counted_models
from minigpt_course.generate import generate, next_probabilities
from minigpt_course.gpt import GPT, GPTConfig, parameter_ledger
from minigpt_course.reference import run_notes
from minigpt_course.results import record_result
from minigpt_course.runs import LearningCurve, evaluate_test
from minigpt_course.text import UNKNOWN, CharTokenizer, Corpus, get_batch
from minigpt_course.train import TrainConfig, train

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


# the parts of a corpus


@given(text=st.text(), has_test=st.booleans())
def test_the_parts_of_a_corpus_are_the_text_in_order(text, has_test):
    corpus = Corpus.from_text(text, "any", has_test)
    assert corpus.train + corpus.validation + corpus.test == text
    assert len(corpus.train) == len(text) * (8 if has_test else 9) // 10
    held_out = len(text) / 10
    assert abs(len(corpus.validation) - held_out) < 1
    assert abs(len(corpus.test) - held_out * has_test) < 1


@given(text=st.text(min_size=10), has_test=st.booleans())
def test_ids_are_those_of_the_training_and_of_the_validation_set(text, has_test):
    corpus = Corpus.from_text(text, "any", has_test)
    tokenizer = corpus.fit_tokenizer(None)
    train_ids, validation_ids = corpus.encode(tokenizer)
    assert tokenizer.decode(train_ids) == corpus.train
    assert tokenizer.decode(validation_ids) == corpus.validation


@pytest.fixture(scope="module")
def shakespeare() -> Corpus:
    "Tiny Shakespeare, or the test is left out."
    try: return load_corpus("shakespeare")
    except FileNotFoundError: pytest.skip("tiny Shakespeare cannot be had: set MINIGPT_DATA")


def assert_two_parts(corpus: Corpus) -> None:
    assert corpus.sha256 == SHAKESPEARE_SHA256 and not corpus.has_test
    assert (len(corpus.train), len(corpus.validation)) == (1_003_854, 111_540)
    assert corpus.test == ""


def test_tiny_shakespeare_has_the_fields_two_parts(shakespeare): assert_two_parts(shakespeare)


@pytest.mark.parametrize("name", ["tinyshakespeare.txt", "input.txt", "with a mark.txt"])
def test_tiny_shakespeare_is_known_by_its_hash_under_any_name(tmp_path, shakespeare, name):
    mark = "\ufeff" if "mark" in name else ""
    (tmp_path / name).write_bytes((mark + shakespeare.text).encode())
    for path in tmp_path / name, str(tmp_path / name):
        assert_two_parts(load_corpus(path))


def test_another_text_has_three_parts_and_so_has_the_manual(tmp_path, shakespeare):
    (tmp_path / "input.txt").write_bytes((shakespeare.text + "!").encode())
    for corpus in load_corpus(tmp_path / "input.txt"), load_corpus("pydocs"):
        lengths = [len(part) for part in (corpus.train, corpus.validation, corpus.test)]
        expected = [len(corpus.text) * share for share in (0.8, 0.1, 0.1)]
        assert lengths == pytest.approx(expected, abs=1) and sum(lengths) == len(corpus.text)


class Sealed(Corpus):
    "A corpus whose test set must not be read."
    @property
    def test(self) -> str: raise AssertionError("the test set was read")


SEALED = Sealed.from_text(small_corpus().text, "hamlet")
BRIEF = TrainConfig(steps=4, batch_size=2, eval_every=2, checkpoint_every=2)


def do_baselines(tmp_path) -> None: baselines(SEALED, SEALED.fit_tokenizer(24))


def do_record(tmp_path) -> None: record_result("model", 2.0, SEALED, tmp_path / "results.json")


def do_train(tmp_path) -> None:
    train(small_gpt(), SEALED, BRIEF, tmp_path)
    train(small_gpt(), SEALED, BRIEF, tmp_path, resume=True)


def do_run_notes(tmp_path) -> None:
    run_notes(SEALED, GPTConfig.laptop(), BRIEF, torch.device("cpu"), torch.float32, 1)


def do_command(tmp_path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("minigpt_course.corpus.open_corpus", lambda *_: SEALED)
        line = ["train", "--run-dir", str(tmp_path), "--device", "cpu", "--steps", "2"]
        cli.app([*line, "--batch-size", "2"], standalone_mode=False)


WITHOUT_TEST = do_baselines, do_record, do_train, do_run_notes, do_command


@pytest.mark.parametrize("do", WITHOUT_TEST)
def test_the_test_set_is_left_alone_by(tmp_path, do): do(tmp_path)


def test_only_evaluate_test_opens_the_test_set_and_says_so(model, tokenizer, capsys):
    corpus = Corpus.from_text(small_corpus().text + "to be " * 50, "hamlet")
    loss = evaluate_test(model, corpus, tokenizer)
    said = capsys.readouterr().out
    assert said.startswith("The test set of hamlet was opened (202 characters)")
    assert "nothing may be chosen" in said and said.count("\n") == 1
    assert loss == evaluate(model, tokenizer.encode(corpus.test), 16)
    assert loss != evaluate(model, tokenizer.encode(corpus.validation), 16)
    with pytest.raises(AssertionError, match="the test set was read"):
        evaluate_test(model, SEALED, tokenizer)


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


def test_what_is_written_has_the_frequencies_of_the_distribution():
    "Chi-squared over 800 seeds; its mean is the degrees of freedom, its variance twice that."
    torch.manual_seed(0)
    model, tokenizer = small_gpt(), CharTokenizer("abcdefghijklmnopqrstuvwx")
    logits = model(tokenizer.encode("abc")[None])[0, -1]
    expected = 800 * next_probabilities(logits.detach(), temperature=0.5, top_k=8)
    drawn = [generate(model, tokenizer, "abc", 1, temperature=0.5, top_k=8, seed=seed)[-1]
             for seed in range(800)]
    counts = torch.bincount(tokenizer.encode("".join(drawn)), minlength=24)
    assert counts[expected == 0].sum() == 0
    misses = (counts - expected)[expected > 0]
    assert (misses**2 / expected[expected > 0]).sum() < 7 + 5 * 14**0.5
