"""Makes the reference runs in kaggle/reference/ and their picture kaggle/learning_curve.png: the
full model on tiny Shakespeare, trained to its end as `minigpt train --preset kaggle` does it.

`python tools/reference.py` makes each of the seeds 0 to 4 that is not kept yet, `--seeds 0` one of
them, `--without-dropout` a run that may over-fit, to compare with. It times a few steps first, says
how long a run will take, and makes none that takes longer than `--hours`. A run lies in the ignored
folder _reference/ meanwhile, and the same command goes on with it after an interruption.

`--only "--dropout=0.35 --steps=6000"` tries a recipe: one seed of it, of which nothing is kept.
"""
import argparse
import os
import shlex
import statistics
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # works on a machine where the library is not installed

from minigpt_course import __version__, plot  # noqa: E402
from minigpt_course.corpus import load_corpus  # noqa: E402
from minigpt_course.counted import baselines  # noqa: E402
from minigpt_course.devices import (  # noqa: E402
    PRECISIONS, Compute, choose_device, cpu_name, name_of,
)
from minigpt_course.gpt import GPT, GPTConfig  # noqa: E402
from minigpt_course.reference import (  # noqa: E402
    noted_baselines, read_notes, reference_band, run_notes,
)
from minigpt_course.runs import LearningCurve, Run, load_checkpoint, open_run  # noqa: E402
from minigpt_course.train import TrainConfig, learning_rate_at  # noqa: E402

KEPT, UNDER_WAY = ROOT / "kaggle" / "reference", ROOT / "_reference"
PICTURE = ROOT / "kaggle" / "learning_curve.png"
PRESET = "kaggle"
SIZE = {"dropout"}  # what of a recipe is the model's
WITHOUT_DROPOUT = {"dropout": 0.0, "steps": 2000}  # its validation loss should turn


def recipe(seed: int, changes: dict) -> tuple[GPTConfig, TrainConfig]:
    "Model and training configuration of a run."
    size = getattr(GPTConfig, PRESET)(**{name: changes[name] for name in changes.keys() & SIZE})
    training = {name: changes[name] for name in changes.keys() - SIZE}
    return size, getattr(TrainConfig, PRESET)(seed=seed, **training)


def begun(size: GPTConfig, config: TrainConfig, precision: str = "auto") -> Run:
    "A run of the recipe on this machine, in one process, before its first step."
    compute = Compute(choose_device(), precision, threads=threads())
    return open_run(GPT(size), load_corpus("shakespeare"), config, None, None, False,
                    learning_rate_at, compute=compute)


def threads() -> int:
    "How many share out a batch: those of a CPU."
    return torch.get_num_threads() if choose_device().type == "cpu" else 1


def timed(action) -> float:
    "How many seconds something takes."
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def predicted_hours(name: str, run: Run, done: int) -> float:
    "How long the rest of a run takes in one process, after trying; said in a line."
    config = run.config
    validation = timed(run.validate)
    run.update(0.0)  # the first step is slower: memory is asked for
    step = statistics.median(timed(lambda: run.update(0.0)) for _ in range(3))
    steps = config.steps - done
    validations = steps // config.eval_every + 1
    hours = (steps * step + validations * validation) / 3600
    print(f"{name}: {run.stepper.device}, {name_of(run.stepper.precision)}: {steps:,} steps of "
          f"{config.batch_size} x {run.context_length} at {step:.2f} s, {validations} validations "
          f"at {validation:.1f} s: {hours:.2f} hours")
    return hours


def commit() -> str:
    "The commit of the code that runs, with -dirty if library or tools were changed since."
    def git(*command: str) -> str:
        told = subprocess.run(["git", *command], cwd=ROOT, capture_output=True, text=True)
        return told.stdout.strip()
    try: found = git("rev-parse", "HEAD")
    except FileNotFoundError: found = ""
    if not found: return "unknown (no git here)"
    changed = git("status", "--porcelain", "--untracked-files=no", "--", "minigpt_course", "tools")
    return found + "-dirty" * bool(changed)


def train(folder: Path, seed: int, options: list[str]) -> LearningCurve:
    "A run by the command that readers use, or the rest of it. Exits if it was stopped."
    processes = max(1, torch.cuda.device_count())
    launch = ["-m", "torch.distributed.run", "--standalone", "--local-addr=127.0.0.1",
              f"--nproc_per_node={processes}"] if processes > 1 else []
    command = [sys.executable, *launch, "-m", "minigpt_course", "train", f"--preset={PRESET}",
               "--corpus=shakespeare", f"--run-dir={folder}", "--resume", f"--seed={seed}",
               f"--threads={threads()}", *options]
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    each = str(max(1, torch.get_num_threads() // processes))  # as the prediction had
    environment = {"OMP_NUM_THREADS": each} | os.environ | {"PYTHONPATH": paths}
    with subprocess.Popen(command, env=environment) as process:
        while process.returncode is None:
            try: process.wait()
            except KeyboardInterrupt: pass  # the run has had it too: it saves and stops
    if process.returncode:
        sys.exit(f"the run in {folder} has not come to its end: if it was stopped, the same "
                 "command goes on with it; if it was refused, remove that folder")
    return LearningCurve.from_csv(folder / "curve.csv")


def is_kept(name: str, seed: int, changes: dict) -> bool:
    "Whether a run by this recipe is kept; one by an earlier recipe is not it."
    path, (size, config) = KEPT / f"{name}.csv", recipe(seed, changes)
    if not path.exists(): return False
    wanted = asdict(config) | {field: getattr(size, field) for field in SIZE}
    notes = read_notes(path)
    return all(notes.get(field.replace("_", " ")) == str(value) for field, value in wanted.items())


def make(
    name: str,  # of the files
    seed: int,
    changes: dict,  # of the recipe
    most: float,  # hours that it may take
) -> None:
    "One run, kept as a CSV file when it is whole. Exits if it would take too long."
    folder, (size, config) = UNDER_WAY / name, recipe(seed, changes)
    state = load_checkpoint(folder) or {"precision": "auto", "step": 0}
    commits = folder / "commits.txt"  # a run may be gone on with by later code
    if state["step"] <= config.steps:  # else only the file is missing
        hours = predicted_hours(name, begun(size, config, state["precision"]), state["step"])
        if hours > most:
            sys.exit(f"that is more than the {most:g} hours allowed: take a GPU, or a CPU that is "
                     "fast in bfloat16 (grep bf16 /proc/cpuinfo), or allow more with --hours")
        torch.cuda.empty_cache()  # the training process wants it
        folder.mkdir(parents=True, exist_ok=True)
        before = commits.read_text().split("\n") if commits.exists() else []
        commits.write_text("\n".join(dict.fromkeys([*before, commit()])))
    options = [f"--{option.replace('_', '-')}={value}" for option, value in changes.items()]
    curve = train(folder, seed, options)
    notes = notes_on(load_checkpoint(folder), size, config, choose_device())
    notes |= {"seconds": round(curve.last("seconds")), "minigpt_course": __version__,
              "commit": ", then ".join(commits.read_text().split("\n"))}
    KEPT.mkdir(exist_ok=True)
    curve.to_csv(KEPT / f"{name}.csv", notes)
    draw()
    print(f"kept: kaggle/reference/{name}.csv; the model is in {folder / 'model'}")


def notes_on(state: dict, size: GPTConfig, config: TrainConfig, device: torch.device) -> dict:
    "What a kept file says of its run, of which `state` is the last checkpoint."
    corpus, precision = load_corpus("shakespeare"), PRECISIONS[state["precision"]]
    notes = run_notes(corpus, size, config, device, precision, max(1, torch.cuda.device_count()))
    notes |= {"threads": threads()}
    if state.get("rounding") is not None:
        notes |= {"validated in": state["validates_in"], "rounding": f"{state['rounding']:.5f}"}
    floor = baselines(corpus, corpus.fit_tokenizer(size.vocab_size))
    return notes | {"cpu": cpu_name()} | {f"baseline {name}": f"{loss:.4f}"
                                          for name, loss in floor.items()}


def draw() -> None:
    "kaggle/learning_curve.png: the first seed kept, and the run without dropout, on the band."
    paths = sorted(KEPT.glob("seed*.csv"))
    if not paths: return
    validations = [LearningCurve.from_csv(path).validation() for path in paths]
    band = reference_band(validations) if len(paths) > 1 else {}
    notes = read_notes(paths[0])
    curves = {f"dropout {notes['dropout']}, seed {notes['seed']}": LearningCurve.from_csv(paths[0])}
    if (path := KEPT / "no-dropout.csv").exists():
        curves["without dropout"] = LearningCurve.from_csv(path)
    title = f"{int(notes['parameters']):,} parameters on tiny Shakespeare ({notes['device']})"
    axes = plot.train_and_validation(curves, band, noted_baselines(notes), title)
    axes.figure.savefig(PICTURE, dpi=120)
    plot.plt.close(axes.figure)


def try_out(seed: int, options: list[str]) -> None:
    "A run with other options, of which only the best validation loss is told."
    name = "-".join(["only", str(seed), *(option.strip("-") for option in options)])
    curve = train(UNDER_WAY / name, seed, options)
    step, loss = min(curve.validation(), key=lambda validation: validation[1])
    print(f"{loss:.4f} at step {step}, {curve.last('seconds'):.0f} s: {shlex.join(options)}")


def main() -> None:
    "See the module's own words."
    described = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=described)
    parser.add_argument("--seeds", type=int, nargs="+", default=range(5))
    parser.add_argument("--hours", type=float, default=3, help="that a run may take (default: 3)")
    parser.add_argument("--without-dropout", action="store_true")
    parser.add_argument("--only", help="options of `minigpt train`: try a recipe, keep nothing")
    arguments = parser.parse_args()
    if arguments.only is not None:
        return try_out(arguments.seeds[0], shlex.split(arguments.only))
    try: load_corpus("shakespeare")
    except FileNotFoundError as error: sys.exit(str(error))
    runs = {f"seed{seed}": (seed, {}) for seed in arguments.seeds}
    if arguments.without_dropout: runs = {"no-dropout": (0, WITHOUT_DROPOUT)}
    for name, (seed, changes) in runs.items():
        if not is_kept(name, seed, changes): make(name, seed, changes, arguments.hours)
    print("now: make kaggle outputs readme")


if __name__ == "__main__": main()
