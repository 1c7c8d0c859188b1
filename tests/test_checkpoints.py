"""A run can be killed, stopped, damaged or out of disk, and it ends with the same bits. Run as a
script, this file is one such run."""
import hashlib
import os
import pickle
import random
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from conftest import assert_same_end, small_corpus, small_gpt
from minigpt_course.runs import LearningCurve, load_checkpoint, save_checkpoint
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


def stopped_at(rows: int, run_dir) -> list[Path]:
    "The checkpoints of a run that was stopped, the newest last."
    run(run_dir, on_step=lambda model, curve: len(curve.rows) == rows)
    return sorted(run_dir.glob("checkpoint-*.pt"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    "The run that nothing happened to."
    run_dir = tmp_path_factory.mktemp("whole")
    process = start(run_dir)
    process.communicate(timeout=60)
    assert process.returncode == 0
    return run_dir


def test_a_run_that_is_killed_again_and_again_ends_with_the_same_bits(tmp_path, whole):
    generator = random.Random(0)
    # 1 is before training, 2 before the first checkpoint
    for lines in [1, 2, 2, *(generator.randrange(3, 12) for _ in range(3))]:
        process = start(tmp_path)
        for _ in range(lines): process.stdout.readline()
        time.sleep(generator.uniform(0, 0.01))
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    process = start(tmp_path, "die_in_the_next_save")
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL and list(tmp_path.glob(".*.partial"))
    process = start(tmp_path)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert_same_end(tmp_path, whole, CONFIG.steps)
    assert not list(tmp_path.glob(".*.partial"))


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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_asked_to_stop_saves_and_says_how_to_go_on(tmp_path, whole, number):
    process = start(tmp_path, "wait_at_step_5")
    while process.stdout.readline() != "ready\n": assert process.poll() is None
    process.send_signal(number)
    said, _ = process.communicate("go on\n", timeout=60)
    assert process.returncode == 0
    assert f"stopped after 5 of {CONFIG.steps} steps" in said
    assert f"run_dir={str(tmp_path)!r}, resume=True" in said
    assert load_checkpoint(tmp_path)["step"] == 5
    run(tmp_path, resume=True)
    assert_same_end(tmp_path, whole, CONFIG.steps)


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
    run(tmp_path, resume=True)
    assert f"{newest.name} is damaged and is passed over" in capsys.readouterr().out
    assert_same_end(tmp_path, whole, CONFIG.steps)


@DAMAGES
def test_a_run_with_nothing_but_damaged_checkpoints_is_refused(tmp_path, damage):
    for path in stopped_at(10, tmp_path): damage(path)
    said = f"every checkpoint in {re.escape(str(tmp_path))} is damaged: begin again in another run"
    with pytest.raises(ValueError, match=said): run(tmp_path, resume=True)


def test_a_full_disk_leaves_the_checkpoint_before_it_and_no_rest(tmp_path, whole):
    process = start(tmp_path, "fill_the_disk_at_step_5")
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert re.search(r"OSError: .*the checkpoint of step 6 could not be written "
                     r"\(File too large\); the one before it is intact: .* resume=True", said)
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


if __name__ == "__main__":
    print("started", flush=True)
    run(sys.argv[1], resume=True, on_step=globals()[sys.argv[2]])
