"""A run can be killed, stopped, damaged or out of disk, and it ends with the same bits. Run as a
script, this file is one such run."""
import functools
import hashlib
import math
import os
import pickle
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

import torture
from conftest import assert_same_end, small_corpus, small_gpt
from minigpt_course import share
from minigpt_course.core import read_about, write_about
from minigpt_course.devices import Compute
from minigpt_course.runs import (
    HOLDER, RUN_FORMAT, RUN_KINDS, Diverged, LearningCurve, checkpoints, load_checkpoint,
    save_checkpoint,
)
from minigpt_course.text import Corpus
from minigpt_course.train import TrainConfig, learning_rate_at, train

CONFIG = TrainConfig(steps=150, batch_size=2, warmup_steps=5, eval_every=50, checkpoint_every=3)


def run(run_dir, **options) -> LearningCurve:
    return train(small_gpt(dropout=0.3), small_corpus(), CONFIG, run_dir, **options)


def say_each_step(model, curve): print(len(curve.rows), flush=True)


def wait_at_step_5(model, curve):
    if len(curve.rows) == 5:
        print("ready", flush=True)
        sys.stdin.readline()


def die_in_the_next_save(model, curve):
    os.fsync = lambda file: os.kill(os.getpid(), signal.SIGKILL)


def fill_the_disk_at_step_5(model, curve):
    if len(curve.rows) != 5: return
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, most))


def start(run_dir, on_step="say_each_step") -> subprocess.Popen:
    "The run, begun or gone on with in a process of its own."
    command = [sys.executable, __file__, str(run_dir), on_step]
    pipes = {name: subprocess.PIPE for name in ("stdin", "stdout", "stderr")}
    return subprocess.Popen(command, text=True, **pipes)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def stopped_at(rows: int, run_dir) -> list[Path]:
    "The checkpoints of a run that was stopped, the newest last."
    run(run_dir, on_step=lambda model, curve: len(curve.rows) == rows)
    return sorted(run_dir.glob("checkpoint-*.pt"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    "The run that nothing happened to."
    run_dir = tmp_path_factory.mktemp("whole")
    process = start(run_dir)
    process.communicate(timeout=300)
    assert process.returncode == 0
    return run_dir


def test_a_run_that_is_killed_again_and_again_ends_with_the_same_bits(tmp_path, whole):
    generator = random.Random(0)
    # 1 is before training, 2 before the first checkpoint
    for lines in [1, 2, *(generator.randrange(3, 12) for _ in range(2))]:
        process = start(tmp_path)
        for _ in range(lines): process.stdout.readline()
        time.sleep(generator.uniform(0, 0.01))
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    process = start(tmp_path, "die_in_the_next_save")
    process.communicate(timeout=300)
    assert process.returncode == -signal.SIGKILL and list(tmp_path.glob(".*.minigpt-partial"))
    process = start(tmp_path)
    process.communicate(timeout=300)
    assert process.returncode == 0
    assert_same_end(tmp_path, whole, CONFIG.steps)
    assert not list(tmp_path.glob(".*.minigpt-partial"))


def test_a_model_left_in_evaluation_mode_is_trained_with_dropout_all_the_same(tmp_path):
    brief = TrainConfig(steps=5, batch_size=2)
    usual = train(small_gpt(dropout=0.3), small_corpus(), brief)
    assert train(small_gpt(dropout=0.3).eval(), small_corpus(), brief).same_as(usual)
    assert not train(small_gpt(dropout=0.0), small_corpus(), brief).same_as(usual)


def test_checkpoints_without_their_run_json_are_not_continued(tmp_path):
    stopped_at(10, tmp_path)
    (tmp_path / "run.json").unlink()
    with pytest.raises(ValueError, match="holds checkpoints and no run.json"): run(tmp_path)


def test_the_learning_rate_rises_to_its_highest_and_falls_to_its_share():
    rates = [learning_rate_at(step, CONFIG) for step in range(CONFIG.steps)]
    assert rates[0] == CONFIG.learning_rate / 5
    assert rates[4] == rates[5] == max(rates) == CONFIG.learning_rate
    assert rates[5:] == sorted(rates[5:], reverse=True)
    share = rates[-1] / CONFIG.learning_rate
    assert CONFIG.min_lr_ratio < share < CONFIG.min_lr_ratio + 0.01


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_run_that_is_asked_to_stop_saves_and_says_how_to_go_on(tmp_path, whole, number):
    process = start(tmp_path, "wait_at_step_5")
    while process.stdout.readline() != "ready\n": assert process.poll() is None
    process.send_signal(number)
    said, _ = process.communicate("go on\n", timeout=300)
    assert process.returncode == 0
    assert f"stopped after 5 of {CONFIG.steps} steps" in said
    assert f"run_dir={str(tmp_path)!r}, resume=True" in said
    assert load_checkpoint(tmp_path)["step"] == 5
    run(tmp_path, resume=True)
    assert_same_end(tmp_path, whole, CONFIG.steps)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT])
def test_a_run_that_was_told_to_ignore_a_signal_does_so(tmp_path, number):
    "A closed terminal under nohup, or a Ctrl-C meant for another command of a script."
    former = signal.signal(number, signal.SIG_IGN)
    try: run(tmp_path, on_step=lambda model, curve: signal.raise_signal(number))
    finally: signal.signal(number, former)
    assert load_checkpoint(tmp_path)["step"] == CONFIG.steps + 1


def cut_in_half(path): path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path): path.write_bytes(b"")


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES = pytest.mark.parametrize("damage", [cut_in_half, empty, flip_a_bit])


@DAMAGES
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(tmp_path, whole, capsys, damage):
    newest = stopped_at(10, tmp_path)[-1]
    damage(newest)
    assert load_checkpoint(tmp_path)["step"] == 9 and newest.exists()  # reading changes nothing
    run(tmp_path, resume=True)
    assert f"{newest.name} is damaged and is passed over" in capsys.readouterr().out
    assert newest.with_suffix(".damaged").exists() and not newest.exists()
    assert_same_end(tmp_path, whole, CONFIG.steps)


@DAMAGES
def test_a_run_with_nothing_but_damaged_checkpoints_is_refused(tmp_path, damage):
    for path in stopped_at(10, tmp_path): damage(path)
    before = contents(tmp_path)
    said = f"every checkpoint in {re.escape(str(tmp_path))} is damaged: begin again in another run"
    with pytest.raises(ValueError, match=said): run(tmp_path, resume=True)
    assert contents(tmp_path) == before


def test_a_full_disk_leaves_the_checkpoint_before_it_and_no_rest(tmp_path, whole):
    process = start(tmp_path, "fill_the_disk_at_step_5")
    _, said = process.communicate(timeout=300)
    assert process.returncode == 1
    assert re.search(r"OSError: .*checkpoint-00000006-\w+.pt could not be written "
                     r"\(File too large\), and what was there before is intact: free some", said)
    kinds = sorted(path.name.split("-")[0] for path in tmp_path.iterdir())
    assert kinds == ["checkpoint", "curve.csv", "run.json"]
    assert load_checkpoint(tmp_path)["step"] == 3
    run(tmp_path, resume=True)
    assert_same_end(tmp_path, whole, CONFIG.steps)


def test_a_checkpoint_of_another_optimizer_is_refused(tmp_path):
    stopped_at(5, tmp_path)
    def one_group(model, config): return torch.optim.AdamW(model.parameters())
    with pytest.raises(ValueError, match="was trained with another optimizer: use the same"):
        run(tmp_path, resume=True, optimizer=one_group)


def test_a_checkpoint_that_would_run_code_is_refused_and_runs_nothing(tmp_path):
    trapped = tmp_path / "trapped"
    trap = type("Trap", (), {"__reduce__": lambda self: (Path.touch, (trapped,))})()
    save_checkpoint(tmp_path, {"model": trap}, 1)
    with pytest.raises((ValueError, pickle.UnpicklingError)): load_checkpoint(tmp_path)
    assert not trapped.exists()
    torch.load(next(tmp_path.glob("checkpoint-*.pt")), weights_only=False)
    assert trapped.exists()  # the trap was a real one


def test_a_plain_pickle_with_the_name_of_a_checkpoint_runs_nothing(tmp_path):
    trapped = tmp_path / "trapped"
    trap = type("Trap", (), {"__reduce__": lambda self: (Path.touch, (trapped,))})()
    content = pickle.dumps(trap, protocol=2)
    digest = hashlib.sha256(content).hexdigest()[:16]
    (tmp_path / f"checkpoint-00000001-{digest}.pt").write_bytes(content)
    with pytest.raises((ValueError, pickle.UnpicklingError)): load_checkpoint(tmp_path)
    assert not trapped.exists()


def test_the_library_never_unpickles():
    library = Path(__file__).parents[1] / "minigpt_course"
    sources = [path.read_text(encoding="utf-8") for path in library.rglob("*.py")]
    loads = [call for source in sources for call in re.findall(r"torch\.load\(.*", source)]
    assert loads and all("weights_only=True" in call for call in loads)
    pickles = re.compile(r"\b(import|from|,) *(pickle|dill|joblib)\b")
    assert not any(pickles.search(source) for source in sources)


def test_only_the_two_newest_checkpoints_are_kept(tmp_path, whole):
    steps = [path.name.split("-")[1] for path in stopped_at(10, tmp_path)]
    assert steps == ["00000009", "00000010"]
    assert len(list(whole.glob("checkpoint-*.pt"))) == 2


def test_of_two_checkpoints_of_one_step_the_later_counts_and_an_earlier_step_is_kept(tmp_path):
    for step, answer in (1, 1), (2, 2), (2, 3), (2, 4):
        save_checkpoint(tmp_path, {"is": answer}, step)
    assert load_checkpoint(tmp_path) == {"is": 4}
    assert [*checkpoints(tmp_path).values()] == [2, 1]


# divergence


def hot(**changes) -> TrainConfig:
    usual = {"steps": 60, "batch_size": 2, "warmup_steps": 0, "eval_every": 2, "min_lr_ratio": 1.0,
             "learning_rate": 1e5, "checkpoint_every": 10}
    return TrainConfig(**usual | changes)


def diverge(run_dir, config=hot(), **options) -> str:
    "What a run says that diverges."
    with pytest.raises(Diverged) as said:
        train(small_gpt(), small_corpus(), config, run_dir, **options)
    return str(said.value)


def test_the_first_loss_that_is_not_finite_stops_training_and_says_what_to_do(tmp_path):
    said = diverge(tmp_path)
    found = re.fullmatch(
        r"training diverged at step (\d+), with a learning rate of 1e\+05: the loss is \S+ and the "
        r"gradient norm (inf|nan); its best model is kept, and minigpt train --from (\S+) "
        r"--learning-rate 10000 --run-dir \S+-again begins a new run from it, given its "
        r"--corpus and --preset", said)
    step = int(found[1])
    assert found and Path(found[3]) == tmp_path
    state = load_checkpoint(tmp_path)
    assert state["step"] == step == len(state["curve"]) and state["best"]["step"] <= step
    assert all(weight.isfinite().all() for weight in state["model"].values())
    best, curve = share.load(tmp_path)[0], LearningCurve.from_csv(tmp_path / "curve.csv")
    assert all(weight.isfinite().all() for weight in best.state_dict().values())
    assert math.isfinite(sum(loss for _, loss in curve.validation())) and len(curve.rows) == step


def test_the_step_that_diverges_is_in_no_checkpoint(tmp_path):
    step = int(re.search(r"at step (\d+)", diverge(tmp_path / "hot"))[1])
    train(small_gpt(), small_corpus(), hot(), tmp_path / "stopped",
          on_step=lambda model, curve: len(curve.rows) == step)
    ours, theirs = load_checkpoint(tmp_path / "hot"), load_checkpoint(tmp_path / "stopped")
    assert all(ours["model"][name].equal(theirs["model"][name]) for name in theirs["model"])
    assert repr(ours["optimizer"]) == repr(theirs["optimizer"])


def test_a_run_that_diverged_does_so_again_and_its_earlier_checkpoint_stays(tmp_path):
    def poison_at_step_25(model, curve):
        if len(curve.rows) == 25: torch.nn.init.constant_(model.norm.weight, 1e38)
    mild = hot(learning_rate=1e-3)
    said = diverge(tmp_path, mild, on_step=poison_at_step_25)
    assert "at step 25," in said or "at step 26," in said
    kept = checkpoints(tmp_path)
    assert [*kept.values()][1:] == [20]
    again = diverge(tmp_path, mild, resume=True)
    assert again == said and [*checkpoints(tmp_path).values()] == [*kept.values()]


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    def poison_at_step_25(model, curve):
        if len(curve.rows) == 25: torch.nn.init.constant_(model.norm.weight, torch.inf)
    said = diverge(tmp_path, hot(learning_rate=1e-3), on_step=poison_at_step_25)
    assert "its best model is kept" in said and [*checkpoints(tmp_path).values()] == [20, 10]
    assert "; nothing is kept: train again with a smaller learning_rate" in diverge(None)


def test_a_validation_that_is_not_finite_stops_training(tmp_path):
    def poison_at_step_3(model, curve):
        if len(curve.rows) == 4: torch.nn.init.constant_(model.norm.weight, torch.nan)
    said = diverge(tmp_path, hot(learning_rate=1e-3), on_step=poison_at_step_3)
    assert "at step 4, with a learning rate of 0.001: the validation loss is nan; nothing" in said
    assert not checkpoints(tmp_path)


def in_float16(run_dir, monkeypatch, scale, **options) -> LearningCurve:
    too_large = functools.partial(torch.amp.GradScaler, init_scale=scale)
    monkeypatch.setattr(torch.amp, "GradScaler", too_large)
    compute = Compute(precision="float16")
    return train(small_gpt(), small_corpus(), CONFIG, run_dir, compute=compute, **options)


def test_steps_that_float16_skips_are_counted_and_shown(tmp_path, monkeypatch, capsys):
    curve = in_float16(tmp_path, monkeypatch, 2.0**28)
    skipped = len(curve.skipped())
    assert 3 < skipped < 25 and math.isfinite(curve.last("validation_loss"))
    said = f"{skipped} steps were skipped, as their gradients overflowed in float16\n"
    assert capsys.readouterr().out.endswith(said)


def test_a_run_that_only_skips_stops(tmp_path, monkeypatch):
    said = "at step 24, .* gradient norm (inf|nan), and 25 steps in a row were skipped; its best"
    with pytest.raises(Diverged, match=said): in_float16(tmp_path, monkeypatch, 2.0**100)
    assert load_checkpoint(tmp_path)["step"] == 24


# one folder, one run


def test_a_second_run_is_refused_by_whatever_path_and_touches_nothing(tmp_path, whole, monkeypatch):
    here = tmp_path / "run"
    process = start(here, "wait_at_step_5")
    while process.stdout.readline() != "ready\n": assert process.poll() is None
    (tmp_path / "link").symlink_to(here)
    (here / f".notes.{process.pid}.minigpt-partial").write_text("half")
    before = contents(here)
    assert before[HOLDER] == str(process.pid).encode()
    monkeypatch.chdir(tmp_path)
    for path in here, "run", "link", tmp_path / "link" / ".." / "run":
        for resume in False, True:
            said = f"^{re.escape(str(path))} is in use by another run, process {process.pid}: "
            with pytest.raises(RuntimeError, match=said): run(path, resume=resume)
    assert contents(here) == before
    process.communicate("go on\n", timeout=300)
    assert process.returncode == 0
    assert_same_end(here, whole, CONFIG.steps)
    assert [path.name for path in here.glob(".*")] == [f".notes.{process.pid}.minigpt-partial"]
    run(here, resume=True)  # the writer of the half has gone now
    assert not list(here.glob(".*"))


def test_another_thread_is_another_run(tmp_path):
    refused = []
    def second_run(model, curve):
        with ThreadPoolExecutor(1) as pool: refused.append(pool.submit(run, tmp_path).exception())
        return True
    run(tmp_path, on_step=second_run)
    assert f"process {os.getpid()}" in str(refused[0]) and load_checkpoint(tmp_path)["step"] == 1


def test_what_a_killed_run_leaves_hinders_nobody(tmp_path, whole):
    process = start(tmp_path)
    for _ in range(9): process.stdout.readline()
    process.kill()
    process.communicate()
    assert (tmp_path / HOLDER).read_text() == str(process.pid)
    run(tmp_path, resume=True)
    assert_same_end(tmp_path, whole, CONFIG.steps)
    assert not list(tmp_path.glob(".*"))


def test_a_folder_that_is_replaced_under_its_run_is_left_alone(tmp_path):
    def replace(model, curve):
        if len(curve.rows) != 5: return
        shutil.rmtree(tmp_path)
        tmp_path.mkdir()
        (tmp_path / HOLDER).write_text("7")
    with pytest.raises(OSError, match="was deleted or replaced under its run: nothing is written"):
        run(tmp_path, on_step=replace)
    assert (tmp_path / HOLDER).read_text() == "7"  # it is the other run's


def test_a_run_json_that_is_deleted_under_its_run_is_written_anew(tmp_path, whole, capsys):
    run(tmp_path, on_step=lambda model, curve: len(curve.rows) == 10)
    written = (tmp_path / "run.json").read_bytes()
    def delete(model, curve):
        if len(curve.rows) == 13: (tmp_path / "run.json").unlink()
    run(tmp_path, resume=True, on_step=delete)
    said = f"{tmp_path / 'run.json'} was deleted under its run and is written anew"
    assert capsys.readouterr().out.count(said) == 1
    assert (tmp_path / "run.json").read_bytes() == written
    assert_same_end(tmp_path, whole, CONFIG.steps)


# other people's files


def test_other_peoples_files_survive_and_do_no_harm(tmp_path, whole):
    names = [".film.mkv.partial", ".film.7.partial", "checkpoint-backup0.pt", "checkpoint-7.pt",
             "checkpoint-00000099-0123456789abcde.pt", "checkpoint-00000099-0123456789ABCDEF.pt",
             "checkpoint-00000099-0123456789abcdef.pt.bak", "weights-of-mine.safetensors", "notes"]
    for name in names: (tmp_path / name).write_text("mine")
    (tmp_path / "checkpoint-00000098-0123456789abcdef.pt").mkdir()
    (tmp_path / ".notes.999999999.minigpt-partial").write_text("half, of a process that is gone")
    run(tmp_path)
    assert not (tmp_path / ".notes.999999999.minigpt-partial").exists()
    share.save(*share.load(tmp_path), tmp_path)
    assert {(tmp_path / name).read_text() for name in names} == {"mine"}
    assert_same_end(tmp_path, whole, CONFIG.steps)


def test_a_checkpoint_that_a_live_run_has_replaced_meanwhile_is_looked_for_again(
    tmp_path, monkeypatch
):
    stopped_at(10, tmp_path)
    read, gone = Path.read_bytes, []
    def read_too_late(path):
        if path.suffix == ".pt" and not gone:
            gone.append(path)
            path.unlink()
        return read(path)
    monkeypatch.setattr(Path, "read_bytes", read_too_late)
    assert load_checkpoint(tmp_path)["step"] == 9 and gone


# a start that fails


def fail(model, curve): raise ZeroDivisionError


@pytest.mark.parametrize("folder", ["new", "."])
def test_an_error_before_the_first_checkpoint_leaves_the_folder_free(tmp_path, whole, folder):
    here = tmp_path / folder
    with pytest.raises(ZeroDivisionError): run(here, on_step=fail)
    assert not (tmp_path / "new").exists() and not list(tmp_path.iterdir())
    run(here)
    assert_same_end(here, whole, CONFIG.steps)


def test_a_first_checkpoint_that_cannot_be_written_leaves_the_folder_free(tmp_path, whole):
    def work():
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))
        run(tmp_path)
    assert torture.said_through_a_pipe(work)[0] == 1 and not contents(tmp_path)
    run(tmp_path)
    assert_same_end(tmp_path, whole, CONFIG.steps)


def test_a_callback_that_fails_later_ends_a_run_that_is_saved(tmp_path, whole):
    def fail_at_step_11(model, curve):
        if len(curve.rows) == 11: raise ZeroDivisionError
    with pytest.raises(ZeroDivisionError): run(tmp_path, on_step=fail_at_step_11)
    assert load_checkpoint(tmp_path)["step"] == 11
    run(tmp_path, resume=True)
    assert_same_end(tmp_path, whole, CONFIG.steps)


def test_what_cannot_be_printed_ends_a_run_that_is_saved_even_before_its_first_checkpoint(tmp_path):
    def print_into_a_closed_pipe(model, curve):
        if len(curve.rows) == 2: raise BrokenPipeError
    with pytest.raises(BrokenPipeError): run(tmp_path, on_step=print_into_a_closed_pipe)
    assert load_checkpoint(tmp_path)["step"] == 2


# going on


def test_the_curve_is_whole_after_every_resume(tmp_path, whole):
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    lines = (tmp_path / "curve.csv").read_text().splitlines(keepends=True)
    (tmp_path / "curve.csv").write_text("".join(lines[:-3]))  # killed between two files
    run(tmp_path, resume=True)
    assert_same_end(tmp_path, whole, CONFIG.steps)


def test_what_a_runs_result_does_not_depend_on_may_change(tmp_path, whole):
    stopped_at(10, tmp_path)
    changes = {"eval_every": 75, "checkpoint_every": 40}
    renamed = Corpus.from_text(small_corpus().text, "the same text")
    train(small_gpt(dropout=0.3), renamed, TrainConfig(**vars(CONFIG) | changes), tmp_path, True)
    ours, theirs = load_checkpoint(tmp_path), load_checkpoint(whole)
    assert all(ours["model"][name].equal(theirs["model"][name]) for name in theirs["model"])
    assert [step for step, _ in LearningCurve(ours["curve"]).validation()] == [0, 75, 150]


@pytest.mark.parametrize("part, field", [
    ("training", "betas"), ("training", "optimizer"), ("model", "activation"),
])
def test_a_field_that_an_earlier_version_did_not_know_has_its_default(tmp_path, part, field):
    stopped_at(10, tmp_path)
    about = read_about(tmp_path / "run.json", RUN_FORMAT, RUN_KINDS)
    del about[part][field]
    write_about(tmp_path / "run.json", about, RUN_FORMAT)
    run(tmp_path, resume=True, on_step=lambda model, curve: True)
    about[part][field] = "another"
    write_about(tmp_path / "run.json", about, RUN_FORMAT)
    with pytest.raises(ValueError, match=f"another {part}: there {field}='another', here {field}="):
        run(tmp_path, resume=True)


if __name__ == "__main__":
    print("started", flush=True)
    run(sys.argv[1], resume=True, on_step=globals()[sys.argv[2]])
