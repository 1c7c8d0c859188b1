"""Reference runs: the band that they make, the verdict on a run, and the tool that makes them."""
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch

from minigpt_course import plot
from minigpt_course.corpus import SHAKESPEARE_SHA256
from minigpt_course.devices import Compute
from minigpt_course.gpt import GPT, GPTConfig
from minigpt_course.reference import (
    gain_by_choosing, judge, pooled_deviations, read_notes, reference_band, student_t,
)
from minigpt_course.runs import LearningCurve, Run, checkpoints
from minigpt_course.train import TrainConfig, learning_rate_at

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tools"))

import reference as tool  # noqa: E402


# the recipe


def test_the_presets_are_the_recipe_of_the_reference_runs():
    size, config = GPTConfig.kaggle(), TrainConfig.kaggle()
    assert size == GPTConfig() and size.dropout == 0.3
    assert (config.optimizer, config.learning_rate, config.min_lr_ratio) == ("muon", 2e-3, 0.0)
    assert (config.steps, config.batch_size, size.context_length) == (4000, 16, 256)
    assert (config.warmup_steps, config.weight_decay, config.grad_clip) == (100, 0.3, 1.0)
    assert config.steps % config.eval_every == 0 == config.steps % config.checkpoint_every


KEPT = sorted((ROOT / "kaggle" / "reference").glob("*.csv"))


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.stem)
def test_a_kept_run_is_whole_and_says_what_made_it(path):
    curve, notes = LearningCurve.from_csv(path), read_notes(path)
    assert curve.column("step") == list(range(int(notes["steps"]) + 1))
    assert len(curve.validation()) == int(notes["steps"]) // int(notes["eval every"]) + 1
    assert notes["corpus sha256"] == SHAKESPEARE_SHA256 and notes["parameters"] == "13162061"
    assert len(notes["commit"]) >= 40 and int(notes["seconds"]) > 0
    assert {"torch", "python", "device", "cpu", "precision", "minigpt_course"} <= notes.keys()
    assert 2 < float(notes["baseline counted bigram"]) < float(notes["baseline uniform"]) < 4.35


SEEDS = [path for path in KEPT if "seed" in path.stem]


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.stem)
def test_a_kept_run_was_made_by_the_recipe_of_the_presets(path):
    notes = read_notes(path)
    changes = {} if path in SEEDS else {"dropout": 0.0, "steps": 2000}
    recipe = vars(TrainConfig.kaggle(seed=int(path.stem[4:]) if path in SEEDS else 0))
    recipe |= {"dropout": GPTConfig.kaggle().dropout} | changes
    said = {name: notes[name.replace("_", " ")] for name in recipe}
    assert said == {name: str(value) for name, value in recipe.items()}


def test_the_reference_runs_agree():
    runs = [LearningCurve.from_csv(path).validation() for path in SEEDS]
    for run in runs: assert not wrong(run, [other for other in runs if other is not run])


def test_the_reference_runs_are_below_nanogpts_figure_on_average():
    "It is 1.4697 on this text, an estimate from 200 random batches."
    best = [min(loss for _, loss in LearningCurve.from_csv(path).validation()) for path in SEEDS]
    assert sum(best) / len(best) < 1.4697


def test_kaggles_story_tells_what_the_runs_did():
    story = (ROOT / "kaggle" / "story.md").read_text(encoding="utf-8")
    assert "falls, with one small step up, and is lowest at the last step. (In a run" in story
    losses = [loss for _, loss in LearningCurve.from_csv(SEEDS[0]).validation()]
    assert sum(after > before for before, after in zip(losses, losses[1:])) == 1
    assert min(losses) == losses[-1]
    without = LearningCurve.from_csv(SEEDS[0].with_name("no-dropout.csv")).validation()
    step, loss = min(without, key=lambda validation: validation[1])
    assert f"lowest after {step:,} of {without[-1][0]:,} steps, and rose from there" in story
    assert loss < without[-2][1] < without[-1][1]


def test_kaggles_page_has_the_losses_of_the_runs():
    page = (ROOT / "kaggle" / "README.md").read_text(encoding="utf-8")
    runs = [LearningCurve.from_csv(path).validation() for path in SEEDS]
    best = [min(loss for _, loss in run) for run in runs]
    told = ", ".join(f"{loss:.4f}" for loss in best[:-1]) + f" and {best[-1]:.4f}"
    assert f"{told}, on average {sum(best) / len(best):.4f}" in page
    end = [*reference_band(runs).values()][-1]
    assert f"the band is {end.high - end.low:.2f} nats wide at the end" in page


@pytest.mark.parametrize("path", SEEDS[:1], ids=lambda path: path.stem)
def test_the_full_model_begins_as_the_kept_run_did(path, shakespeare):
    "Two steps of 13,162,061 parameters, in the number format that the run was in."
    kept, notes = LearningCurve.from_csv(path), read_notes(path)
    config = TrainConfig.kaggle(seed=int(notes["seed"]), steps=int(notes["steps"]))
    torch.manual_seed(config.seed)
    run = Run(GPT(GPTConfig.kaggle(dropout=float(notes["dropout"]))), shakespeare, config,
              shakespeare.fit_tokenizer(77), learning_rate_at,
              compute=Compute("cpu", notes["precision"]))
    run.validate = lambda: math.nan  # it would read a tenth of the text
    for _ in range(2): run.advance()
    near = {"train_loss": 0.005, "gradient_norm": 0.05, "learning_rate": 1e-12}
    for name, within in near.items():
        assert run.curve.column(name) == pytest.approx(kept.column(name)[:2], abs=within), name


# the band and the verdict

STEPS = range(0, 1700, 100)


def runs(*distances: float) -> list[list[tuple[int, float]]]:
    "Reference runs of 17 validations that lie these distances from a falling curve."
    return [[(step, 4 / (1 + step / 100) + distance) for step in STEPS] for distance in distances]


def changed(losses: dict[int, float], last: int = 1600) -> list[tuple[int, float]]:
    "A healthy run, in which some losses are others, or are missing (None)."
    run = dict(runs(0.0)[0]) | losses
    return [(step, loss) for step, loss in run.items() if loss is not None and step <= last]


def test_students_t_is_that_of_the_tables():
    table = {(0.975, 1): 12.706, (0.975, 2): 4.303, (0.995, 10): 3.169, (0.995, 60): 2.660}
    assert {at: round(student_t(*at), 3) for at in table} == pytest.approx(table, abs=0.001)


def test_a_band_has_the_steps_that_all_references_have():
    longer = [*runs(0.0)[0], (1700, 0.2)]
    band = reference_band([longer, runs(0.01)[0], runs(0.02)[0][::2]])
    assert list(band) == list(STEPS)[::2]
    middles = [(interval.low + interval.high) / 2 for interval in band.values()]
    assert middles == pytest.approx([loss for _, loss in runs(0.01)[0][::2]])


@pytest.mark.parametrize("references", [[], runs(0.0)])
def test_a_band_needs_two_references(references):
    with pytest.raises(ValueError, match="a band needs two reference runs at least"):
        reference_band(references)


def test_more_references_make_a_narrower_band():
    def width(number):
        band = reference_band(runs(*(0.01 * (-1) ** i for i in range(number))))
        return band[800].high - band[800].low
    assert width(2) > width(4) > width(6) > 0.04
    assert 0.002 <= max(high - low for low, high in reference_band(runs(0.0, 0.0)).values()) < 0.003


INSIDE, OUTSIDE = "inside the reference band", "outside the reference band"
VERDICTS = {
    "inside": (changed({}), f"{INSIDE} at all 17 validations"),
    "fewer validations": (changed({})[::2], f"{INSIDE} at all 9 validations"),
    "more validations": (changed({150: 9.0, 250: 9.0}), f"{INSIDE} at all 17 validations"),
    "not at its end yet": (changed({}, last=500), f"{INSIDE} at all 6 validations"),
    "one outlier": (
        changed({700: 9.0}),
        f"{INSIDE}: outside at 1 of 17 validations, at step 700, which happens by chance"),
    "one outlier of few": (
        changed({300: 9.0}, last=300), f"{OUTSIDE} at 1 of 4 validations, first at step 300: .*"),
    "two too high": (
        changed({700: 9.0, 900: 9.0}),
        f"{OUTSIDE} at 2 of 17 validations, first at step 700: 9.000, .*it learns more slowly.*"),
    "begins too high": (
        changed({0: 5.0, 100: 5.0}), f"{OUTSIDE} .*it does not begin like the reference.*"),
    "begins too low": (
        changed({0: 1.0, 100: 1.0}), f"{OUTSIDE} .*it does not begin like the reference.*"),
    "too low": (
        changed({1500: 0.1, 1600: 0.1}),
        f"{OUTSIDE} .*step 1500: 0.100, where the band is .*it is better than it should be.*"),
    "not a number": (
        changed({1500: math.nan, 1600: math.nan}),
        f"{OUTSIDE} at 2 of 17 validations, first at step 1500: nan, .*it is not a number.*"),
    "missing": (
        changed({700: None, 900: None}),
        f"{OUTSIDE} at 2 of 17 validations, first at step 700: nan, .*"),
    "one missing": (
        changed({700: None}), f"{OUTSIDE} at 1 of 17 validations, first at step 700: nan, .*"),
    "the last not a number": (
        changed({1600: math.nan}), f"{OUTSIDE} at 1 of 17 validations, first at step 1600: .*"),
    "no common step": ([(50, 2.0)], ".*it cannot be judged"),
    "no validation": ([], ".*it cannot be judged"),
}


@pytest.mark.parametrize("validation, verdict", VERDICTS.values(), ids=VERDICTS)
def test_a_run_is_judged_by_its_references(validation, verdict):
    assert re.fullmatch(verdict, judge(validation, reference_band(runs(-0.01, 0.0, 0.01))))


@pytest.mark.parametrize("last_validation, missing", [(500, 11), (0, 16)])
def test_validations_that_end_before_the_run_does_count_against_it(last_validation, missing):
    "A curve leaves out what is nan, so a run that has diverged looks shorter than it was."
    band = reference_band(runs(-0.01, 0.0, 0.01))
    verdict = judge(changed({}, last=last_validation), band, last_step=1600)
    assert verdict.startswith(f"outside the reference band at {missing} of 17 validations")
    assert "inside" in judge(changed({}, last=last_validation), band, last_step=last_validation)


def test_a_choice_flatters_by_luck_and_not_by_what_is_better():
    luck = np.random.default_rng(0).normal(size=(2, 30, 8))
    seems, is_ahead = gain_by_choosing(*luck, blocks=8)
    assert seems > 0.5 and abs(is_ahead) < seems / 2
    better = np.linspace(0, 1, 30)[:, None] + np.zeros((30, 8))
    assert gain_by_choosing(better, better, 3, times=5) == pytest.approx((0.5, 0.5))


# how often the verdict is wrong, by real short runs (benchmarks/short_runs.py made them)

SHORT_RUNS = json.loads((ROOT / "benchmarks" / "short_runs.json").read_text())["runs"]
HEALTHY = SHORT_RUNS["healthy"]


def wrong(run, references) -> bool:
    return judge(run, reference_band(references)).startswith("outside")


def mixed(losses: np.ndarray) -> np.ndarray:
    "The covariance of every two validations: it takes many runs."
    return np.cov(losses, rowvar=False)


def by_distance(losses: np.ndarray) -> np.ndarray:
    "Deviations pooled as in the band, and one correlation for each distance: few runs are enough."
    places, deviations = np.arange(losses.shape[1]), np.array(pooled_deviations(losses.T.tolist()))
    scaled = (losses - losses.mean(axis=0)) / deviations
    products = [(scaled[:, : len(places) - lag] * scaled[:, lag:]).sum() for lag in places]
    correlation = (products / products[0])[abs(places[:, None] - places)]
    return deviations[:, None] * correlation * deviations


@pytest.mark.parametrize("number", [3, 5])
@pytest.mark.parametrize("made, covariance", [
    ("short", mixed), ("short", by_distance), ("reference", by_distance)])
def test_few_healthy_runs_are_called_wrong(made, covariance, number):
    "Whole runs, drawn with the deviations and the correlations of those that were made."
    runs = HEALTHY if made == "short" else [LearningCurve.from_csv(path).validation()
                                            for path in SEEDS]
    losses = np.array([[loss for _, loss in run] for run in runs])
    drawn = np.random.default_rng(number).multivariate_normal(
        losses.mean(axis=0), covariance(losses), size=(2000, number + 1))
    called = [wrong(run, references) for run, *references in
              ([[*zip(STEPS, run)] for run in group] for group in drawn.tolist())]
    assert sum(called) < 0.02 * len(called)


@pytest.mark.parametrize("kind, number, least", [
    ("learning rate halved", 3, 0.8), ("learning rate halved", 5, 0.99),
    ("attention sees the future", 3, 1), ("two processes that do not average", 3, 1),
    ("validation text in the training text", 5, 0.7)])
def test_faulty_runs_are_found(kind, number, least):
    choices = list(combinations(HEALTHY, number))[::7]
    found = [wrong(run, references) for run in SHORT_RUNS[kind] for references in choices]
    assert sum(found) >= least * len(found)


# the picture


def test_the_gap_is_between_a_validation_and_the_training_since_the_one_before():
    training = [4.0, 3.0, 2.0, 1.0, None]
    validation = [4.1, None, 3.0, None, 2.5]
    rows = [[step, 10 * step, 0.0, *losses, 0.1, 1.0]
            for step, losses in enumerate(zip(training, validation))]
    assert plot.generalization_gap(LearningCurve(rows)) == [(2, 3.0 - 3.5), (4, 2.5 - 1.5)]
    assert plot.generalization_gap(LearningCurve(rows[:2])) == []
    for curve in LearningCurve(rows), LearningCurve(rows[:2]):
        axes = plot.train_and_validation({"one": curve, "two": curve}, {0: (3.9, 4.3)})
        assert axes.get_legend_handles_labels()[1] == ["one", "two", "reference band"]
        plot.plt.close(axes.figure)


# the tool


@pytest.fixture
def small(tmp_path, monkeypatch, shakespeare) -> Path:
    "The tool with the small model, in folders of its own; gives the folder of the runs kept."
    kept = tmp_path / "kept"
    kept.mkdir()
    monkeypatch.setattr(tool, "PRESET", "laptop")
    monkeypatch.setattr(tool, "KEPT", kept)
    monkeypatch.setattr(tool, "UNDER_WAY", tmp_path / "under_way")
    monkeypatch.setattr(tool, "PICTURE", tmp_path / "curve.png")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return kept


SHORT = {"steps": 8, "batch_size": 2, "eval_every": 4}


def test_a_run_that_would_take_too_long_is_not_begun(small, capsys):
    with pytest.raises(SystemExit, match=r"more than the 0 hours allowed: .* with --hours"):
        tool.make("seed0", 0, SHORT, most=0)
    said = capsys.readouterr().out
    assert re.fullmatch(r"seed0: cpu, \w+: 8 steps of 2 x 64 at [\d.]+ s, "
                        r"3 validations at [\d.]+ s: [\d.]+ hours\n", said)
    assert not tool.UNDER_WAY.exists() and not any(small.iterdir())


def test_the_hours_are_those_of_the_steps_and_validations_that_are_left(small, monkeypatch):
    run = tool.begun(*tool.recipe(0, {"steps": 1000, "eval_every": 250}))
    monkeypatch.setattr(tool, "timed", lambda action: 36.0)
    assert tool.predicted_hours("seed0", run, done=400) == pytest.approx((600 + 3) / 100)


def test_the_steps_that_are_timed_are_those_of_a_run(small):
    "In bfloat16 Muon's products are in it too: a quarter of a second of the full model's step."
    run = tool.begun(*tool.recipe(0, {"optimizer": "muon"}), "bfloat16")
    formats = {group["product_dtype"] for group in run.optimizer.param_groups if group["use_muon"]}
    assert formats == {torch.bfloat16}


def test_ctrl_c_waits_until_the_run_has_saved(tmp_path):
    slow, begun, saved = (tmp_path / name for name in ("slow.py", "begun", "saved"))
    slow.write_text(f"#!{sys.executable}\nimport signal, time\nfrom pathlib import Path\n"
                    "stop = []\n"
                    "signal.signal(signal.SIGINT, lambda *_: stop.append(1))\n"
                    f"Path({str(begun)!r}).touch()\nwhile not stop: time.sleep(0.01)\n"
                    f"time.sleep(1)\nPath({str(saved)!r}).touch()\nraise SystemExit(3)\n")
    slow.chmod(0o755)
    code = (f"import sys; sys.path.insert(0, {str(ROOT / 'tools')!r})\nimport reference as tool\n"
            "from pathlib import Path\nfrom types import SimpleNamespace\n"
            f"tool.sys = SimpleNamespace(executable={str(slow)!r}, exit=sys.exit)\n"
            f"tool.train(Path({str(tmp_path)!r}), 0, [])")
    process = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    while not begun.exists():
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    assert process.wait(60) == 1 and saved.exists()


def test_a_run_has_the_threads_of_its_prediction(tmp_path, monkeypatch):
    asked = {}

    class Ended:
        returncode = 1
        def __init__(self, command, env): asked.update(env, command=command)
        def __enter__(self): return self
        def __exit__(self, *error): pass

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(subprocess, "Popen", Ended)
    with pytest.raises(SystemExit): tool.train(tmp_path, 0, [])
    assert asked["OMP_NUM_THREADS"] == str(torch.get_num_threads())
    assert f"--threads={torch.get_num_threads()}" in asked["command"]


def test_where_git_is_not_installed_the_commit_is_unknown(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert tool.commit() == "unknown (no git here)"


def test_a_run_that_was_cut_off_is_gone_on_with_and_kept_with_its_notes(small):
    folder = tool.UNDER_WAY / "seed1"
    options = [f"--{name.replace('_', '-')}={value}" for name, value in SHORT.items()]
    command = [sys.executable, "-m", "minigpt_course", "train", "--preset=laptop", "--seed=1",
               "--corpus=shakespeare", f"--run-dir={folder}", "--precision=bfloat16", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                               text=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    while not process.stdout.readline().startswith("step 0:"): assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(120) == 3
    done = max(checkpoints(folder).values())
    assert 0 < done < 8
    tool.make("seed1", 1, SHORT, most=1)
    curve, notes = LearningCurve.from_csv(small / "seed1.csv"), read_notes(small / "seed1.csv")
    assert [step for step, _ in curve.validation()] == [0, 4, 8] and len(curve.rows) == 9
    expected = {"corpus": "shakespeare", "parameters": "225677", "steps": "8", "batch size": "2",
                "learning rate": "0.012", "optimizer": "adamw", "seed": "1", "processes": "1",
                "precision": "bfloat16", "threads": str(tool.threads()),
                "weight decay": "0.1", "betas": "(0.8, 0.95)"}
    assert {name: notes[name] for name in expected} == expected
    assert int(notes["seconds"]) == round(curve.last("seconds"))
    assert notes["commit"].removesuffix("-dirty")
    assert {"minigpt_course", "torch", "python", "device", "corpus sha256"} <= notes.keys()
    assert tool.PICTURE.stat().st_size > 10_000
    assert notes["commit"] == tool.commit()
    (folder / "commits.txt").write_text("before")
    tool.make("seed1", 1, SHORT, most=0)  # the run is whole: nothing is timed, no code added
    assert read_notes(small / "seed1.csv")["commit"] == "before"
    with pytest.raises(SystemExit, match="if it was refused, remove that folder"):
        tool.train(folder, 1, ["--steps=9"])  # a run of another length


def test_a_picture_that_is_drawn_between_two_runs_is_no_change_of_the_code(tmp_path, monkeypatch):
    def git(*command): subprocess.run(["git", "-C", tmp_path, *command], check=True)
    git("init", "-q")
    git("config", "user.email", "none")
    git("config", "user.name", "none")
    for name in "tools", "minigpt_course", "kaggle":
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    git("add", ".")
    git("commit", "-qm", "all")
    monkeypatch.setattr(tool, "ROOT", tmp_path)
    clean = tool.commit()
    (tmp_path / "kaggle" / "file").write_text("drawn")
    assert tool.commit() == clean and len(clean) == 40
    (tmp_path / "tools" / "file").write_text("changed")
    assert tool.commit() == f"{clean}-dirty"


def test_a_seed_that_is_kept_is_not_made_again(small, monkeypatch, capsys):
    for seed, changes in (0, {}), (2, {}), (3, {"weight_decay": 0.7}):
        size, config = tool.recipe(seed, changes)
        notes = {"dropout": size.dropout} | {
            name.replace("_", " "): value for name, value in vars(config).items()}
        LearningCurve([]).to_csv(small / f"seed{seed}.csv", notes)
    made = []
    monkeypatch.setattr(tool, "make", lambda *run: made.append(run))
    monkeypatch.setattr(sys, "argv", ["reference.py", "--seeds", *"0123", "--hours", "5"])
    tool.main()  # 3 is kept by another recipe
    assert made == [("seed1", 1, {}, 5.0), ("seed3", 3, {}, 5.0)]
    monkeypatch.setattr(sys, "argv", ["reference.py", "--without-dropout"])
    tool.main()
    assert made[2:] == [("no-dropout", 0, {"dropout": 0.0, "steps": 2000}, 3)]
