"""Makes the reference runs in kaggle/reference/ and their picture: the full model on tiny Shakespeare, as the Kaggle notebook trains it.

On a GPU: `python tools/reference.py`, three seeds of the whole run. Without one it makes the notebook's short run, and names the files so.
To compare recipes first: `python tools/reference.py --only "--dropout=0.3 --steps=3000"` trains one seed and prints its best validation, and keeps nothing.
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

from minigpt_course import plot
from minigpt_course.bigram import baselines
from minigpt_course.gpt import GPTConfig
from minigpt_course.devices import choose_device, native_precision
from minigpt_course.reference import read_notes, reference_band, run_notes
from minigpt_course.corpus import load_corpus
from minigpt_course.runs import LearningCurve
from minigpt_course.train import TrainConfig

SHORT = {"steps": 30, "batch_size": 4, "eval_every": 15}  # of kaggle/story.md, where there is no GPU
KEPT = ROOT / "kaggle" / "reference"


def trained(run: Path, seed: int, options: list[str]) -> LearningCurve:
    "The curve of one run by the command that the Kaggle notebook uses."
    processes = max(1, torch.cuda.device_count())
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}", "-m", "minigpt_course", "train",
               "--preset=kaggle", "--corpus=shakespeare", f"--run-dir={run}", "--resume", f"--seed={seed}", *options]
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": str(max(1, os.cpu_count() // processes)), "PYTHONPATH": paths})
    return LearningCurve.from_csv(run / "curve.csv")


def draw() -> None:
    "kaggle/learning_curve.png, from the best kept runs there are: those of a GPU, else the short ones."
    paths = sorted(KEPT.glob("gpu-*.csv")) or sorted(KEPT.glob("cpu-short-*.csv"))
    runs = {f"seed {read_notes(path)['seed']}": LearningCurve.from_csv(path).validation() for path in paths}
    corpus, notes = load_corpus("shakespeare"), read_notes(paths[0])
    baseline_losses = baselines(corpus, corpus.fit_tokenizer(77))
    title = f"13,162,061 parameters on tiny Shakespeare: {notes['device']}, {notes['steps']} steps of {notes['batch size']} x 256 characters"
    plot.reference_curves(runs, reference_band(list(runs.values())), baseline_losses, title).figure.savefig(ROOT / "kaggle" / "learning_curve.png", dpi=120)


def main() -> None:
    "See the module's own words."
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", help="options of `minigpt train`: compare recipes, keep nothing")
    arguments = parser.parse_args()
    device = choose_device()
    changes = {} if device.type == "cuda" else SHORT
    options = [f"--{name.replace('_', '-')}={value}" for name, value in changes.items()]
    with tempfile.TemporaryDirectory() as folder:
        if arguments.only is not None:
            curve = trained(Path(folder), arguments.seeds[0], options + shlex.split(arguments.only))
            step, loss = min(curve.validation(), key=lambda validation: validation[1])
            return print(f"{loss:.4f} at step {step}, {curve.column('seconds')[-1]:.0f} s: {arguments.only}")
        for seed in arguments.seeds:
            curve = trained(Path(folder) / str(seed), seed, options)
            notes = run_notes(load_corpus("shakespeare"), GPTConfig.kaggle(), TrainConfig.kaggle(seed=seed, **changes), device, native_precision(device), max(1, torch.cuda.device_count()))
            curve.to_csv(KEPT / f"{'gpu' if device.type == 'cuda' else 'cpu-short'}-seed{seed}.csv", notes)
    draw()
    print("kept in kaggle/reference; now: make kaggle outputs")


if __name__ == "__main__": main()
