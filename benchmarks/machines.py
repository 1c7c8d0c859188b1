"""How far the same run ends apart where the arithmetic is rounded otherwise: with one thread and
with two, and in bfloat16. What the index says of readers' numbers is read from its output.

`python benchmarks/machines.py --json benchmarks/machines.json` takes a few minutes.
"""
import argparse
import json
import os
from pathlib import Path

import torch

from minigpt_course.corpus import load_corpus
from minigpt_course.devices import Compute
from minigpt_course.gpt import GPT, GPTConfig
from minigpt_course.text import CharTokenizer
from minigpt_course.train import TrainConfig, train

STEPS, SEEDS = 600, (0, 1, 2)
WAYS = {  # name to threads and number format
    "float32, one thread": (1, "float32"),
    "float32, two threads": (2, "float32"),
    "bfloat16, one thread": (1, "bfloat16"),
}


def ends_at(seed: int, threads: int, precision: str) -> float:
    "Validation loss of the laptop model after a short run, nats per character."
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    corpus = load_corpus("pydocs")
    model = GPT(GPTConfig.laptop())
    config = TrainConfig(steps=STEPS, eval_every=STEPS, seed=seed)
    curve = train(model, corpus, config, tokenizer=CharTokenizer.fit(corpus.text),
                  compute=Compute(precision=precision))
    return curve.validation()[-1][1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, required=True)
    losses = {name: [ends_at(seed, *way) for seed in SEEDS] for name, way in WAYS.items()}
    base = losses["float32, one thread"]
    apart = {name: max(abs(a - b) for a, b in zip(losses[name], base)) for name in WAYS}
    about = {"steps": STEPS, "seeds": len(SEEDS), "torch": torch.__version__,
             "cores": os.cpu_count(), "losses": losses, "apart": apart,
             "between seeds": max(base) - min(base)}
    path = parser.parse_args().json
    path.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__": main()
