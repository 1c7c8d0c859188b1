"""Optimizer, number format, compilation, threads and processes combine freely: each combination,
stopped and gone on with, ends with the same bits. Run as a script under torchrun, this file is one
of two processes that go through all their combinations."""
import functools
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import nn

from conftest import assert_same_end, small_corpus, small_gpt
from minigpt_course import devices, gpt, runs
from minigpt_course.core import fingerprint
from minigpt_course.devices import PRECISIONS, Compute, process_group, rank
from minigpt_course.gpt import GPT, GPTConfig
from minigpt_course.optimizers import OPTIMIZERS, make_optimizer
from minigpt_course.runs import LearningCurve, load_checkpoint
from minigpt_course.train import TrainConfig, train

SIZE = GPTConfig(
    vocab_size=24, context_length=8, embed_dim=16, num_heads=2, num_blocks=1, dropout=0.2
)
CONFIG = TrainConfig(steps=8, batch_size=4, warmup_steps=2, eval_every=4, checkpoint_every=100)
STOP = 5  # rows that there are when a run is stopped; no checkpoint but this one is written before


class Combination(NamedTuple):
    optimizer: str
    precision: str
    compile: bool | str = False
    threads: int = 1
    processes: int = 1
    accumulate: int = 1

    def __str__(self) -> str:
        compiled = f"compiled by {self.compile}" if self.compile else "eager"
        shared = f"{self.threads} threads, {self.processes} processes, {self.accumulate} parts"
        return f"{self.optimizer}, {self.precision}, {compiled}, {shared}"

    @property
    def config(self) -> TrainConfig:
        return TrainConfig(**vars(CONFIG) | {"optimizer": self.optimizer})

    @property
    def compute(self) -> Compute:
        return Compute("cpu", self.precision, self.compile, self.threads, self.accumulate)


ORDER = list(itertools.product(PRECISIONS, (False, "aot_eager"), OPTIMIZERS))
ALONE = [Combination(name, precision, compile) for precision, compile, name in ORDER]
BY_THREADS = [one._replace(threads=2) for one in ALONE if not one.compile]
# of 4 sequences: 2, 1 and 1; compiled 2 and 2, since each other shape is compiled anew
IN_PARTS = [one._replace(accumulate=2 if one.compile else 3) for one in ALONE]
BY_PROCESSES = [one._replace(processes=2) for one in ALONE]
BY_PROCESSES += [one._replace(processes=2, accumulate=2) for one in ALONE
                 if not one.compile or one == ALONE[-1]]  # one compiled, as that takes longer


def fresh_model(seed: int) -> GPT:
    torch.manual_seed(seed)
    return GPT(SIZE)


def stopped_and_gone_on_with(folder: Path, one: Combination) -> GPT:
    "A run that never stopped, and one that did; the model of the second."
    whole, parts = folder / "whole", folder / "parts"
    train_by(one, fresh_model(0), whole)
    train_by(one, fresh_model(0), parts, on_step=lambda model, curve: len(curve.rows) == STOP)
    if rank() == 0:
        assert [path.name[:19] for path in parts.glob("*.pt")] == [f"checkpoint-{STOP:08d}"]
    model = fresh_model(1)
    torch.manual_seed(2)
    train_by(one, model, parts, resume=True)
    if rank() == 0:
        assert_same_end(parts, whole, CONFIG.steps)
        assert_learnt(whole)
    return model


def train_by(one: Combination, model: GPT, run_dir: Path | None = None, **options) -> LearningCurve:
    "The one call that each combination is; an error if PyTorch gives up compiling."
    if one.compile: forget_what_was_compiled(one.compile, one.precision)
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
        curve = train(model, small_corpus(), one.config, run_dir, compute=one.compute, **options)
    assert not one.compile or torch._dynamo.utils.counters["stats"]["unique_graphs"]
    return curve


@functools.lru_cache(maxsize=1)  # so that it is done whenever its arguments are others
def forget_what_was_compiled(*not_for: object) -> None:
    "A process compiles the same code only so often, and slowly if it tries earlier results first."
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()


def assert_learnt(run_dir: Path) -> None:
    "Weights that are numbers, and each of them other than at the beginning."
    before, after = fresh_model(0).state_dict(), load_checkpoint(run_dir)["model"]
    assert all(weights.isfinite().all() for weights in after.values())
    assert not any(torch.equal(before[name], after[name]) for name in before)


# one process, and threads


@pytest.mark.parametrize("one", ALONE, ids=str)
def test_a_run_that_was_stopped_ends_with_the_same_bits(tmp_path, one):
    "And it learns what is learnt in float32 uncompiled, but for rounding."
    stopped_and_gone_on_with(tmp_path, one)
    simplest = train_by(Combination(one.optimizer, "float32"), fresh_model(0))
    assert_nearly(LearningCurve.from_csv(tmp_path / "whole" / "curve.csv"), simplest, one)


@pytest.mark.parametrize("one", BY_THREADS + IN_PARTS, ids=str)
def test_parts_of_a_batch_that_were_stopped_end_with_the_same_bits(tmp_path, one):
    "Each part drops something else, so that it is without dropout that they learn the same."
    stopped_and_gone_on_with(tmp_path, one)
    without = small_gpt(), small_gpt()
    simplest = train_by(Combination(one.optimizer, "float32"), without[0])
    assert_nearly(train_by(one, without[1]), simplest, one)


def assert_nearly(curve: LearningCurve, simplest: LearningCurve, one: Combination) -> None:
    found, exact = (torch.tensor(c.column("train_loss")[:-1]) for c in (curve, simplest))
    rough = one.precision != "float32"
    torch.testing.assert_close(found, exact, rtol=0.03 if rough else 1e-4, atol=0)
    assert not rough or not torch.equal(found, exact)


def test_a_compiled_run_validates_and_keeps_the_plain_model(monkeypatch, tmp_path):
    kinds, evaluate = set(), runs.evaluate
    def note(model, *given):
        kinds.add(type(model))
        return evaluate(model, *given)
    monkeypatch.setattr(runs, "evaluate", note)
    train_by(Combination("adamw", "float32", compile="aot_eager"), fresh_model(0), tmp_path)
    state, names = load_checkpoint(tmp_path), fresh_model(0).state_dict().keys()
    assert kinds == {GPT} and state["model"].keys() == state["best"]["model"].keys() == names


COMPILER = shutil.which(os.environ.get("CXX", "g++")) or shutil.which("clang++")


@pytest.mark.skipif(not COMPILER, reason="inductor translates to C++, and here is no C++ compiler")
def test_a_run_that_inductor_compiled_ends_with_the_same_bits(tmp_path):
    stopped_and_gone_on_with(tmp_path, Combination("adamw", "float32", compile=True))


# two processes


@pytest.fixture(scope="module")
def reports(tmp_path_factory) -> list[dict]:
    "What each of two processes found, combination by combination: an error, and its weights."
    folder = tmp_path_factory.mktemp("processes")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone",
               "--local-addr=127.0.0.1", "--nproc_per_node=2", __file__, str(folder)]
    names = "RANK", "WORLD_SIZE", "LOCAL_RANK"
    alone = {name: value for name, value in os.environ.items() if name not in names}
    environment = alone | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert ended.returncode == 0, ended.stderr
    return [json.loads((folder / f"{number}.json").read_text()) for number in range(2)]


@pytest.mark.parametrize("one", BY_PROCESSES, ids=str)
def test_two_processes_that_were_stopped_end_with_the_same_bits(reports, one):
    first, second = (report[str(one)] for report in reports)
    assert not first["error"] and not second["error"]
    assert first["weights"] == second["weights"]


def go_through_all(folder: Path) -> None:
    "What one of the processes does."
    report = {}
    for number, one in enumerate(BY_PROCESSES):
        error = weights = None
        try:
            model = stopped_and_gone_on_with(folder / str(number), one)
            weights = fingerprint({name: w.tolist() for name, w in model.state_dict().items()})
        except Exception as reason: error = repr(reason)
        report[str(one)] = {"error": error, "weights": weights}
    (folder / f"{rank()}.json").write_text(json.dumps(report))


# what does not combine


def on_a_gpu(monkeypatch) -> None:
    monkeypatch.setattr(devices, "choose_device", lambda wish: torch.device("cuda:0"))


def talking_between_gpus(monkeypatch) -> None:
    monkeypatch.setattr(devices, "talking_device", lambda: torch.device("cuda:0"))


def in_two_processes(monkeypatch) -> None:
    monkeypatch.setattr(devices, "num_processes", lambda: 2)


def in_three_processes(monkeypatch) -> None:
    monkeypatch.setattr(devices, "num_processes", lambda: 3)


def anywhere(monkeypatch) -> None: pass


def with_a_foreign_part() -> GPT:
    model = fresh_model(0)
    model.dropout = nn.Dropout(0.2)
    return model


REFUSED = {  # name: where, what `Compute` is asked for, what else `train` is, what is said
    "threads and compile": (
        anywhere, {"threads": 2, "compile": True}, {},
        "torch.compile cannot be used by several threads at once: leave out compile or threads"),
    "threads and a backend": (
        anywhere, {"threads": 2, "compile": "aot_eager"}, {},
        "torch.compile cannot be used by several threads at once: leave out compile or threads"),
    "threads and processes": (
        in_two_processes, {"threads": 2}, {},
        "threads=2 and 2 processes would share out the same batch: choose one of them"),
    "threads and a GPU": (
        on_a_gpu, {"threads": 2, "device": "cuda"}, {},
        "threads=2 share out the work of a CPU, and the device is cuda:0: leave threads out"),
    "processes that talk between GPUs and a model on a CPU": (
        talking_between_gpus, {}, {},
        "the processes talk between GPUs, and the model is on cpu: give process_group and Compute "
        "the same device"),
    "threads and a part that draws globally": (
        anywhere, {"threads": 2}, {"model": with_a_foreign_part},
        "a part of the model that is not the course's own may draw from PyTorch's global "
        "generator, which threads would share: leave threads out"),
    "threads and accumulation": (
        anywhere, {"threads": 2, "accumulate": 2}, {},
        "threads=2 divide a batch already: leave out accumulate or threads"),
    "more parts than sequences": (
        in_two_processes, {"accumulate": 3}, {},
        "accumulate=3 is more than the 2 sequences of a batch: use fewer"),
    "no parts": (
        anywhere, {"accumulate": 0}, {}, "accumulate=0 must be a whole number of at least 1"),
    "a batch that processes cannot share": (
        in_three_processes, {}, {},
        "batch_size=4 cannot be shared equally by 3 processes: make it a multiple of 3"),
    "no threads": (
        anywhere, {"threads": 0}, {}, "threads=0 must be a whole number of at least 1"),
    "half threads": (
        anywhere, {"threads": 1.5}, {}, "threads=1.5 must be a whole number of at least 1"),
    "an unknown precision": (
        anywhere, {"precision": "float8"}, {},
        "precision='float8' is unknown; there are auto, float32, bfloat16, float16"),
    "an unknown backend": (
        anywhere, {"compile": "inductr"}, {},
        "compile='inductr' is unknown; there are .*aot_eager, .*inductor, .*"),
    "an unknown optimizer": (
        anywhere, {}, {"config": lambda: TrainConfig(optimizer="lion")},
        "optimizer='lion' is unknown; there are adamw, muon"),
    "an optimizer's name instead of a function": (
        anywhere, {}, {"optimizer": lambda: "muon"},
        r"optimizer='muon' must be a function \(model, config\) -> torch.optim.Optimizer; .*"),
    "a function that makes no optimizer": (
        anywhere, {}, {"optimizer": lambda: lambda model, config: None},
        "the function optimizer returned a NoneType, it should return a torch.optim.Optimizer"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_combine_is_refused_in_a_sentence_and_claims_no_folder(
    tmp_path, monkeypatch, name
):
    where, asked, others, said = REFUSED[name]
    where(monkeypatch)
    monkeypatch.setattr(runs, "from_first", lambda content: content)  # the processes are invented
    with pytest.raises(ValueError) as refusal:
        options = {"config": CONFIG} | {key: make() for key, make in others.items()}
        model, compute = options.pop("model", fresh_model(0)), Compute(**asked)
        train(model, small_corpus(), run_dir=tmp_path, compute=compute, **options)
    assert re.fullmatch(said, str(refusal.value)), str(refusal.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("compute", [Compute(), Compute(threads=2)], ids=str)
def test_a_model_is_asked_once_whether_it_draws_globally(monkeypatch, compute):
    asked = []
    monkeypatch.setattr(devices, "draws_globally", lambda model: asked.append(model))
    model = fresh_model(0)
    compute.prepare(model, CONFIG)
    assert asked == [model]


# float16 and what is too large for it


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_step_that_overflows_is_skipped_and_leaves_no_trace(optimizer, threads):
    ends, config = [], Combination(optimizer, "float16").config
    for scales in [2.0**40, 2.0**8, 2.0**40, 2.0**8], [2.0**8, 2.0**8]:
        model = fresh_model(0)
        stepper = Compute("cpu", "float16", threads=threads).prepare(model, config)
        steps = make_optimizer(model, config)
        for number, scale in enumerate(scales):
            stepper.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
            before = [weights.clone() for weights in model.parameters()]
            generator = torch.Generator().manual_seed(1)
            ids = torch.randint(24, (4, 9), generator=generator)
            loss, norm = stepper.step(steps, ids[:, :-1], ids[:, 1:], 1.0, generator)
            same = [torch.equal(*pair) for pair in zip(before, model.parameters())]
            skipped = scale > 2.0**30
            assert same == [skipped] * len(same) and 0 < loss < 10
            assert (0 < norm < float("inf")) == (not skipped)
            assert stepper.scaler.get_scale() == (scale / 2 if skipped else scale)
        ends.append(model.state_dict() | {"steps": steps.state_dict()})
    assert repr(ends[0].pop("steps")) == repr(ends[1].pop("steps"))
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_step_waits_for_the_device_once(monkeypatch, optimizer, precision):
    "Whoever asks a tensor for its numbers waits until they are computed."
    model, config, asked = fresh_model(0), Combination(optimizer, precision).config, []
    stepper, steps = Compute("cpu", precision).prepare(model, config), make_optimizer(model, config)
    ids = torch.zeros(4, 8, dtype=torch.long)
    def step(): stepper.step(steps, ids, ids, 1.0, torch.Generator().manual_seed(0))
    step()  # the first one makes the moments
    with monkeypatch.context() as counting:
        counting.setattr(gpt, "check_ids", lambda *given: None)  # it looks at ids on a CPU only
        for name in "item", "tolist", "__bool__", "__float__":
            def ask(tensor, name=name, own=getattr(torch.Tensor, name)):
                asked.append(name)
                return own(tensor)
            counting.setattr(torch.Tensor, name, ask)
        step()
    assert asked == ["tolist"]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_run_that_overflows_at_first_finds_its_scale_and_learns(monkeypatch, tmp_path, optimizer):
    scaler = torch.amp.GradScaler
    too_large = functools.partial(scaler, init_scale=2.0**24)
    monkeypatch.setattr(torch.amp, "GradScaler", too_large)
    one = Combination(optimizer, "float16")
    config = TrainConfig(**vars(one.config) | {"steps": 40})
    curve = train(fresh_model(0), small_corpus(), config, tmp_path, compute=one.compute)
    norms = torch.tensor(curve.column("gradient_norm")[:-1])
    skipped = ~norms.isfinite()
    assert skipped[0] and skipped.sum() < 20
    assert load_checkpoint(tmp_path)["scaler"]["scale"] == 2.0 ** (24 - skipped.sum())
    assert_learnt(tmp_path)
    assert curve.last("validation_loss") < curve.rows[0][4]


if __name__ == "__main__":
    with process_group(torch.device("cpu")): go_through_all(Path(sys.argv[1]))
