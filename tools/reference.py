"""Makes the reference runs in kaggle/reference/ and their picture: the full model on tiny
Shakespeare, as the Kaggle notebook trains it.

On a GPU: `python tools/reference.py`, three seeds of the whole run. Without one it makes the
notebook's short run, and names the files so. To compare hyperparameters first,
`python tools/reference.py --only "--dropout=0.3 --steps=3000"` trains one seed and prints its best
validation, and keeps nothing.
"""
import argparse
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # works on a machine where the library is not installed

from minigpt_course import plot  # noqa: E402
from minigpt_course.bigram import baselines  # noqa: E402
from minigpt_course.corpus import load_corpus  # noqa: E402
from minigpt_course.devices import choose_device, native_precision  # noqa: E402
from minigpt_course.gpt import GPTConfig  # noqa: E402
from minigpt_course.reference import read_notes, reference_band, run_notes  # noqa: E402
from minigpt_course.runs import LearningCurve  # noqa: E402
from minigpt_course.train import TrainConfig  # noqa: E402

SHORT = {"steps": 30, "batch_size": 4, "eval_every": 15}  # of kaggle/story.md, without a GPU
KEPT = ROOT / "kaggle" / "reference"


def trained(run: Path, seed: int, options: list[str]) -> LearningCurve:
    "The curve of one run by the command that the Kaggle notebook uses."
    processes = max(1, torch.cuda.device_count())
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone",
               f"--nproc_per_node={processes}", "-m", "minigpt_course", "train", "--preset=kaggle",
               "--corpus=shakespeare", f"--run-dir={run}", "--resume", f"--seed={seed}", *options]
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    threads = str(max(1, os.cpu_count() // processes))
    environment = os.environ | {"OMP_NUM_THREADS": threads, "PYTHONPATH": paths}
    subprocess.run(command, check=True, env=environment)
    return LearningCurve.from_csv(run / "curve.csv")


def draw() -> None:
    "kaggle/learning_curve.png, from the best kept runs there are: a GPU's, else the short ones."
    paths = sorted(KEPT.glob("gpu-*.csv")) or sorted(KEPT.glob("cpu-short-*.csv"))
    curves = {path: LearningCurve.from_csv(path).validation() for path in paths}
    runs = {f"seed {read_notes(path)['seed']}": curve for path, curve in curves.items()}
    corpus, notes = load_corpus("shakespeare"), read_notes(paths[0])
    floor = baselines(corpus, corpus.fit_tokenizer(77))
    title = (f"13,162,061 parameters on tiny Shakespeare: {notes['device']}, {notes['steps']} "
             f"steps of {notes['batch size']} x 256 characters")
    axes = plot.lines(runs, floor, reference_band(list(runs.values())), title=title, xlabel="step",
                      ylabel=f"validation {plot.LOSS}")
    axes.figure.savefig(ROOT / "kaggle" / "learning_curve.png", dpi=120)


def main() -> None:
    "See the module's own words."
    described = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=described)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", help="options of `minigpt train`: compare, keep nothing")
    arguments = parser.parse_args()
    device = choose_device()
    on_gpu = device.type == "cuda"
    changes, kind = ({}, "gpu") if on_gpu else (SHORT, "cpu-short")
    options = [f"--{name.replace('_', '-')}={value}" for name, value in changes.items()]
    with tempfile.TemporaryDirectory() as folder:
        if arguments.only is not None:
            only = options + shlex.split(arguments.only)
            curve = trained(Path(folder), arguments.seeds[0], only)
            step, loss = min(curve.validation(), key=lambda validation: validation[1])
            print(f"{loss:.4f} at step {step}, {curve.last('seconds'):.0f} s: {arguments.only}")
            return
        for seed in arguments.seeds:
            curve = trained(Path(folder) / str(seed), seed, options)
            config, processes = TrainConfig.kaggle(seed=seed, **changes), torch.cuda.device_count()
            notes = run_notes(load_corpus("shakespeare"), GPTConfig.kaggle(), config, device,
                              native_precision(device), max(1, processes))
            curve.to_csv(KEPT / f"{kind}-seed{seed}.csv", notes)
    draw()
    print("kept in kaggle/reference; now: make kaggle outputs")


if __name__ == "__main__": main()
