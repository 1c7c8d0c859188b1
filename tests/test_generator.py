"""A run draws from a generator of its own: nothing else that draws changes it, and it changes
nothing for anything else."""
import math
import threading
import time
from contextlib import contextmanager, nullcontext

import pytest
import torch
from torch import nn

from conftest import small_corpus, small_gpt
from minigpt_course import devices, runs
from minigpt_course.bigram import evaluate
from minigpt_course.core import drawing_from, generator_in_use
from minigpt_course.devices import Compute, draws_globally, further
from minigpt_course.gpt import GPT
from minigpt_course.runs import LearningCurve
from minigpt_course.text import get_batch
from minigpt_course.train import TrainConfig, train

CONFIG = TrainConfig(steps=12, batch_size=4, warmup_steps=2, eval_every=4)
WAYS = {
    "eager": Compute(),
    "bfloat16": Compute(precision="bfloat16"),
    "float16": Compute(precision="float16"),
    "two threads": Compute(threads=2),
    "compiled": Compute(compile="aot_eager"),
}
EACH_WAY = pytest.mark.parametrize("compute", WAYS.values(), ids=WAYS)
OTHER_SEED = TrainConfig(**vars(CONFIG) | {"seed": 1})


@pytest.fixture(scope="module", autouse=True)
def compiled_anew():
    "Not slowed by what other tests compiled; an error if PyTorch gives up compiling."
    torch._dynamo.reset()
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True): yield


def curve_of(model: GPT | None = None, config: TrainConfig = CONFIG, **options) -> LearningCurve:
    "A short run; without another model one of the course's own, with dropout."
    return train(model or small_gpt(dropout=0.3), small_corpus(), config, **options)


def with_a_foreign_part() -> GPT:
    "A model one part of which draws from PyTorch's global generator."
    model = small_gpt(dropout=0.0)
    model.dropout = nn.Dropout(0.3)
    return model


@contextmanager
def somebody_draws():
    "Inside, another thread draws from the global generator all the time, and a list counts it."
    drawn, ended = [0], threading.Event()
    def draw() -> None:
        while not ended.is_set():
            torch.rand(50_000)
            torch.manual_seed(drawn[0])
            drawn[0] += 1
    other = threading.Thread(target=draw)
    other.start()
    try: yield drawn
    finally:
        ended.set()
        other.join()


# others who draw


@EACH_WAY
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_thread_that_draws_all_the_time_changes_nothing(compute, optimizer):
    config = TrainConfig(**vars(CONFIG) | {"optimizer": optimizer})
    alone = curve_of(config=config, compute=compute)
    model = small_gpt(dropout=0.3)  # before the others begin: its weights are drawn globally
    with somebody_draws() as drawn:
        def wait_for_a_draw(model, curve):
            before = drawn[0]
            while drawn[0] == before: time.sleep(0.001)
        disturbed = curve_of(model, config, compute=compute, on_step=wait_for_a_draw)
        assert drawn[0] > CONFIG.steps
    assert disturbed.same_as(alone)


def switch_to_evaluation(model, curve) -> None: model.eval()


def draw_numbers(model, curve) -> None: torch.rand(len(curve.rows))


def set_another_seed(model, curve) -> None: torch.manual_seed(5)


def draw_inside_another_generator(model, curve) -> None:
    with drawing_from(torch.Generator().manual_seed(7)), torch.no_grad():
        model.train()(torch.zeros(1, 3, dtype=torch.long))


@EACH_WAY
@pytest.mark.parametrize("on_step", [
    switch_to_evaluation, draw_numbers, set_another_seed, draw_inside_another_generator,
])
def test_what_is_done_after_a_step_changes_nothing(compute, on_step):
    assert curve_of(compute=compute, on_step=on_step).same_as(curve_of(compute=compute))


# what a run leaves as it was


@EACH_WAY
def test_training_leaves_the_global_generator_as_it_was(compute):
    model = small_gpt(dropout=0.3)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    curve_of(model, compute=compute)
    assert torch.equal(torch.get_rng_state(), before)
    assert generator_in_use() is None


def test_an_error_in_a_step_leaves_the_generator_in_use_as_it_was():
    model = small_gpt(dropout=0.3)
    model.norm.register_forward_hook(lambda *given: 1 / 0)
    with pytest.raises(ZeroDivisionError): curve_of(model)
    assert generator_in_use() is None


@pytest.mark.parametrize("training", [True, False])
def test_evaluate_restores_the_mode_after_an_error_in_the_model(training):
    model = small_gpt(dropout=0.3).train(training)
    seen = []
    def fail(module, given, logits):
        seen.append(module.training)
        raise KeyError("broken")
    model.register_forward_hook(fail)
    with pytest.raises(KeyError): evaluate(model, torch.zeros(100, dtype=torch.long), 16)
    assert seen == [False]
    assert [part.training for part in model.modules()] == [training] * len(list(model.modules()))


def test_evaluate_draws_nothing_and_drops_nothing():
    model, same, ids = small_gpt(dropout=0.3).train(), small_gpt(), torch.randint(24, (100,))
    before = torch.get_rng_state()
    assert evaluate(model, ids, 16) == evaluate(model, ids, 16) == evaluate(same, ids, 16)
    assert torch.equal(torch.get_rng_state(), before)


# seeds


@EACH_WAY
def test_two_runs_agree_exactly_if_their_seeds_do(compute):
    torch.manual_seed(1)
    first = curve_of(compute=compute)
    torch.manual_seed(2)
    assert curve_of(compute=compute).same_as(first)
    other = curve_of(config=OTHER_SEED, compute=compute)
    assert other.rows[0][3] != first.rows[0][3]


def losses_on_equal_batches(compute: Compute, seed: int, dropout: float = 0.3) -> list[float]:
    "Losses of a run whose batches are all the same, so that only dropout differs."
    config = TrainConfig(**vars(CONFIG) | {"seed": seed})
    corpus = small_corpus()
    alike = type(corpus).from_text("a" * 1000, "alike")
    tokenizer = corpus.fit_tokenizer(24)
    curve = train(small_gpt(dropout=dropout), alike, config, tokenizer=tokenizer, compute=compute)
    return curve.column("train_loss")[:-1]


@EACH_WAY
def test_the_seed_is_also_that_of_dropout(compute):
    first, same, other = (losses_on_equal_batches(compute, seed) for seed in (0, 0, 1))
    assert first == same and not set(first) & set(other)
    without = (losses_on_equal_batches(compute, seed, dropout=0.0) for seed in (0, 1))
    assert next(without) == next(without)


def test_each_step_drops_something_else():
    losses = []
    model = small_gpt(dropout=0.3)
    kept = {name: weights.clone() for name, weights in model.state_dict().items()}
    def go_back(model, curve):
        losses.append(curve.last("train_loss"))
        model.load_state_dict(kept)
    corpus = type(small_corpus()).from_text("a" * 1000, "alike")
    tokenizer = small_corpus().fit_tokenizer(24)
    train(model, corpus, CONFIG, tokenizer=tokenizer, on_step=go_back)
    assert len(set(losses[:-1])) == CONFIG.steps


# threads and processes


def rows_of_a_step(monkeypatch, compute: Compute, rank: int = 0) -> list[torch.Tensor]:
    "The logits of each row of a batch, in a step in which all rows are the same window."
    model, seen = small_gpt(dropout=0.5), []
    model.register_forward_hook(lambda module, given, logits: seen.extend(logits.detach().clone()))
    stepper = compute.prepare(model, CONFIG)
    monkeypatch.setattr(devices, "rank", lambda: rank)
    rows = torch.zeros(4 + rank, 16, dtype=torch.long)  # as the only process it leaves out `rank`
    generator = torch.Generator().manual_seed(11)
    stepper.step(torch.optim.SGD(model.parameters()), rows, rows, 1.0, generator)
    assert len(seen) == 4
    return seen


def number_of_different(rows: list[torch.Tensor]) -> int:
    return len({tuple(row.flatten().tolist()) for row in rows})


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_each_thread_drops_something_else(monkeypatch, threads):
    assert number_of_different(rows_of_a_step(monkeypatch, Compute(threads=threads))) == 4


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_with_dropout_are_reproducible(threads):
    compute = Compute(threads=threads)
    first = curve_of(compute=compute)
    for _ in range(3): assert curve_of(compute=compute).same_as(first)


def test_each_process_drops_something_else(monkeypatch):
    of_ranks = [rows_of_a_step(monkeypatch, Compute(), rank) for rank in (0, 1, 2)]
    assert number_of_different([row for rows in of_ranks for row in rows]) == 12
    again = rows_of_a_step(monkeypatch, Compute(), 1)
    assert all(torch.equal(*pair) for pair in zip(again, of_ranks[1]))


def test_no_two_processes_have_the_same_seed_at_any_step_of_a_long_run():
    seeds = set()
    for seed, step in [(seed, step) for seed in range(3) for step in range(5000)]:
        generator = torch.Generator().manual_seed((seed * 1_000_003 + step) % 2**32)
        seeds.add(generator.initial_seed())
        seeds.update(further(generator, rank) for rank in range(1, 8))
    assert len(seeds) == 3 * 5000 * 8


def test_no_step_of_a_run_has_the_batch_of_another_seed(monkeypatch):
    seeds = []
    def note(*given):
        seeds.append(given[3].initial_seed())
        return get_batch(*given)
    monkeypatch.setattr(runs, "get_batch", note)
    for config in CONFIG, OTHER_SEED: curve_of(small_gpt(), config)
    assert len(set(seeds)) == len(seeds) == 2 * CONFIG.steps


def test_no_part_of_a_batch_has_the_seed_of_another_process(monkeypatch):
    "Where dropout draws from PyTorch's global generator, which is seeded for each part."
    seeds = []
    def note(device, seed):
        seeds.append(seed)
        return nullcontext()
    for rank in 0, 1, 2:
        model, rows = with_a_foreign_part(), torch.zeros(6, 16, dtype=torch.long)
        model.no_sync = nullcontext  # as if it were wrapped for several processes
        stepper = Compute(accumulate=2).prepare(model, CONFIG)
        with monkeypatch.context() as one_of_three:
            one_of_three.setattr(devices, "rank", lambda rank=rank: rank)
            one_of_three.setattr(devices, "num_processes", lambda: 3)
            one_of_three.setattr(devices, "total", lambda loss: loss)
            one_of_three.setattr(devices, "forked", note)
            generator = torch.Generator().manual_seed(11)
            stepper.step(torch.optim.SGD(model.parameters()), rows, rows, 1.0, generator)
    assert len(set(seeds)) == len(seeds) == 6


# a model with parts of others


def test_which_models_draw_globally():
    assert draws_globally(with_a_foreign_part())
    assert not draws_globally(small_gpt(dropout=0.3, output_projection=True, activation="gelu"))
    strange = small_gpt()
    strange.norm = type("Norm", (nn.LayerNorm,), {})(16)
    assert draws_globally(strange)


FOREIGN_WAYS = {name: way for name, way in WAYS.items() if way.threads == 1}


@pytest.mark.parametrize("compute", FOREIGN_WAYS.values(), ids=FOREIGN_WAYS)
def test_a_foreign_part_draws_in_a_fork_and_reproducibly(compute):
    model = with_a_foreign_part()
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = curve_of(model, compute=compute)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert curve_of(with_a_foreign_part(), compute=compute).same_as(first)
    without = curve_of(small_gpt(), compute=compute)
    other = curve_of(with_a_foreign_part(), OTHER_SEED, compute=compute)
    assert first.rows[0][3] not in (without.rows[0][3], other.rows[0][3])
    assert all(math.isfinite(loss) for loss in first.column("train_loss")[:-1])


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_foreign_part_drops_something_else_in_each_step_and_part(accumulate):
    model, seen = with_a_foreign_part(), set()
    def keep(module, given, kept):
        if module.training: seen.add(tuple((kept == 0).flatten().tolist()))
    model.dropout.register_forward_hook(keep)
    curve_of(model, compute=Compute(accumulate=accumulate))
    assert len(seen) == CONFIG.steps * accumulate


def test_a_run_with_a_foreign_part_goes_on_with_the_same_bits(tmp_path):
    whole = curve_of(with_a_foreign_part())
    curve_of(with_a_foreign_part(), run_dir=tmp_path, on_step=lambda model, curve: curve.rows[4:])
    torch.manual_seed(4)
    assert curve_of(with_a_foreign_part(), run_dir=tmp_path, resume=True).same_as(whole)
