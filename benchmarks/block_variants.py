"""What depth, the parts of a block and dropout are worth: the figures that notebook 05 shows.

    python benchmarks/block_variants.py [--seeds 5] [--steps 500]

Variants are stacks of six blocks, 48 wide, trained on the course's own corpus; equal seeds have
equal batches, and the losses are those on the whole validation set. The course's block is also
trained in stacks of 1, 2, 4 and 8, and with and without LayerNorm at a higher learning rate, with
three seeds, everything else being equal. With dropout and without, one
block reads 5,000 characters of it again and again. Writes after each seed what notebook 05 reads,
minigpt_course/weights/block_variants.json. Takes some minutes on one core.
"""
import argparse
import json
import platform
from pathlib import Path

import numpy as np
import torch

from minigpt_course.bigram import evaluate, fit
from minigpt_course.block import BlockLM
from minigpt_course.corpus import load_corpus
from minigpt_course.text import CharTokenizer

RESULT = Path(__file__).parents[1] / "minigpt_course" / "weights" / "block_variants.json"
SILENT = "no feed-forward layer"
UNNORMED = "no LayerNorm"
COURSE = "the course's block"
VARIANTS = {
    COURSE: {},
    "GELU": {"activation": "gelu"},
    "output projection": {"output_projection": True},
    SILENT: {},
    UNNORMED: {},
}
DEPTHS, HIGHER_RATE, FEWER_SEEDS = (1, 2, 4, 8), 1e-2, 3
SIZE = {"context_length": 32, "embed_dim": 48, "num_heads": 4, "num_blocks": 6}
TRAINING = {"learning_rate": 3e-3, "batch_size": 16}
FEW = 5_000  # characters that are read again and again


def trained_loss(parts, name: str, seed: int, steps: int, **other) -> float:
    "Train one variant, with another num_blocks or learning_rate if given; its validation loss."
    train_ids, validation_ids = parts
    torch.manual_seed(seed)
    num_blocks = {"num_blocks": other.pop("num_blocks", SIZE["num_blocks"])}
    model = BlockLM(77, **SIZE | num_blocks, **VARIANTS[name])
    for block in model.blocks:
        if name == SILENT: block.feed_forward = Silent()
        if name == UNNORMED: block.norm1 = block.norm2 = torch.nn.Identity()
    length = SIZE["context_length"]
    fit(model, train_ids, steps, context_length=length, seed=seed, **TRAINING | other)
    return evaluate(model, validation_ids, length)


class Silent(torch.nn.Module):
    "Adds nothing to the residual stream."
    def forward(self, x): return torch.zeros_like(x)


def overfitted(parts, dropout: float, seed: int, steps: int) -> tuple[float, float]:
    "One block trained on few characters: its loss on them, and on the validation set."
    train_ids, validation_ids = parts
    torch.manual_seed(seed)
    model = BlockLM(77, 32, embed_dim=64, num_heads=4, dropout=dropout)
    fit(model, train_ids[:FEW], steps, 1e-2, batch_size=16, context_length=32, seed=seed)
    return evaluate(model, train_ids[:FEW], 32), evaluate(model, validation_ids, 32)


def variant_rows(losses: dict[str, list[float]]) -> list[tuple]:
    "Variant, mean loss, and mean and standard deviation of its change from the course's block."
    rows = []
    for name in losses:
        change = np.subtract(losses[name], losses[COURSE])
        rows.append((name, np.mean(losses[name]), change.mean(), change.std(ddof=1)))
    return rows


def spread_rows(losses: dict) -> list[tuple]:
    "What was tried, its mean loss and the standard deviation over the seeds."
    return [(name, np.mean(every), np.std(every, ddof=1)) for name, every in losses.items()]


def dropout_rows(losses: dict[float, list[tuple]]) -> list[tuple]:
    "Dropout probability, mean losses on both sets, and the second's standard deviation."
    return [(str(p), *np.mean(pairs, axis=0), np.std(pairs, axis=0, ddof=1)[1])
            for p, pairs in losses.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=500)
    wanted = parser.parse_args()
    corpus = load_corpus("pydocs")
    tokenizer = CharTokenizer.fit(corpus.text)
    parts = tokenizer.encode(corpus.train), tokenizer.encode(corpus.validation)
    losses, overfitting = {name: [] for name in VARIANTS}, {p: [] for p in (0.0, 0.3)}
    depths, fast = {depth: [] for depth in DEPTHS}, {name: [] for name in (COURSE, UNNORMED)}
    for seed in range(wanted.seeds):
        for name in VARIANTS:
            losses[name].append(trained_loss(parts, name, seed, wanted.steps))
        for p in overfitting:
            overfitting[p].append(overfitted(parts, p, seed, wanted.steps))
        if seed < FEWER_SEEDS:
            for depth, found in depths.items():
                found.append(trained_loss(parts, COURSE, seed, wanted.steps, num_blocks=depth))
            for name, found in fast.items():
                rate = {"learning_rate": HIGHER_RATE}
                found.append(trained_loss(parts, name, seed, wanted.steps, **rate))
        about = {"corpus": corpus.sha256, "steps": wanted.steps}
        write(losses, overfitting, depths, fast, about)


def write(losses: dict, overfitting: dict, depths: dict, fast: dict, about: dict) -> None:
    "Keep every loss, and the rows that are shown."
    about = {"made by": "benchmarks/block_variants.py", "PyTorch": torch.__version__,
             "Python": platform.python_version()} | about | SIZE | TRAINING
    shown = {"variants": variant_rows(losses), "dropout": dropout_rows(overfitting),
             "depths": spread_rows(depths), "higher rate": spread_rows(fast)}
    every = {"losses": losses, "losses with few characters": overfitting,
             "losses by depth": depths, "losses at the higher rate": fast}
    RESULT.write_text(json.dumps(about | shown | every, indent=1) + "\n")


if __name__ == "__main__": main()
