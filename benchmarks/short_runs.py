"""Short runs of a small model, right ones and faulty ones: what `reference_band` and `judge` are
measured on, in nbs/appendix/reference.ipynb.

`python benchmarks/short_runs.py --json benchmarks/short_runs.json` makes them, 36 in a quarter
of an hour.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path

import torch

from minigpt_course.corpus import load_corpus
from minigpt_course.devices import Compute, process_group
from minigpt_course.gpt import GPT, GPTConfig
from minigpt_course.multihead import MultiHeadAttention
from minigpt_course.text import Corpus
from minigpt_course.train import TrainConfig, train

SIZE = GPTConfig.laptop(embed_dim=64, dropout=0.1)
CONFIG = TrainConfig(steps=480, batch_size=16, learning_rate=3e-2, warmup_steps=50,
                     betas=(0.9, 0.99), eval_every=30, optimizer="muon")  # 17 validations
HEALTHY, FAULTY = range(12), range(6)  # seeds


class SeesTheFuture(MultiHeadAttention):
    "Attention without its mask."
    def forward(self, x):
        query, key, value = self.split_heads(x)
        scores = query @ key.mT / query.shape[-1] ** 0.5
        return self.merge_heads(scores.softmax(-1) @ value)


class Leaking(Corpus):
    "A text whose validation set is in its training set as well."
    @property
    def train(self) -> str: return self.text


class Unaveraged(Compute):
    "Processes that each keep their own gradients."
    def prepare(self, model, config):
        stepper = super().prepare(model, config)
        stepper.network = model  # not wrapped in DistributedDataParallel
        return stepper


def run(seed: int, config: TrainConfig, corpus: Corpus, compute=Compute("cpu"), leak=False) -> list:
    "The validations of a run: steps and losses."
    torch.manual_seed(seed)
    model = GPT(SIZE)
    for block in model.blocks if leak else []: block.attention.__class__ = SeesTheFuture
    return train(model, corpus, replace(config, seed=seed), compute=compute).validation()


def unaveraged(corpus: Corpus) -> list:
    "Of each seed, what the first of two processes validates; called in both of them."
    with process_group(torch.device("cpu")):
        return [run(seed, CONFIG, corpus, Unaveraged("cpu")) for seed in FAULTY]


def by_two_processes() -> list:
    "`unaveraged`, started by torchrun."
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "unaveraged.json"
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone",
                   "--nproc_per_node=2", __file__, "--unaveraged", f"--json={path}"]
        subprocess.run(command, check=True, env={"OMP_NUM_THREADS": "1"} | os.environ)
        return json.loads(path.read_text())


def all_runs(corpus: Corpus) -> dict[str, list]:
    "Kind of run to the validations of its seeds."
    half = replace(CONFIG, learning_rate=CONFIG.learning_rate / 2)
    seen = Leaking(**vars(corpus))
    return {
        "healthy": [run(seed, CONFIG, corpus) for seed in HEALTHY],
        "learning rate halved": [run(seed, half, corpus) for seed in FAULTY],
        "attention sees the future": [run(seed, CONFIG, corpus, leak=True) for seed in FAULTY],
        "validation text in the training text": [run(seed, CONFIG, seen) for seed in FAULTY],
        "two processes that do not average": by_two_processes(),
    }


def main() -> None:
    "See the module's own words."
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, required=True, help="the file to write")
    parser.add_argument("--unaveraged", action="store_true", help="for torchrun")
    arguments = parser.parse_args()
    text = load_corpus("shakespeare").text[:400_000]
    corpus = Corpus.from_text(text, "shakespeare, its first 400,000 characters", has_test=False)
    if arguments.unaveraged:
        runs = unaveraged(corpus)
        if int(os.environ["RANK"]): return
        arguments.json.write_text(json.dumps(runs))
        return
    about = {"corpus": corpus.name, "corpus sha256": corpus.sha256, "model": asdict(SIZE),
             "training": asdict(CONFIG), "torch": torch.__version__,
             "made by": "benchmarks/short_runs.py"}
    arguments.json.write_text(json.dumps(about | {"runs": all_runs(corpus)}) + "\n")


if __name__ == "__main__": main()
