"""A race with nanoGPT: who reaches which loss when, in the same process on the same processor,
taking turns.

    python benchmarks/vs_nanogpt.py --nanogpt PATH_TO_CLONE [--seeds 3] [--share 1] [--json FILE]

Needs tiny Shakespeare: downloaded once, or read from the folder named by MINIGPT_DATA. Prints a
Markdown table; takes about a quarter of an hour on two cores that have nothing else to do.

nanoGPT's own laptop recipe (its README: 4 layers, 4 heads, 128 wide, context 64, batch 12, 2000
steps, dropout 0, no compile), not retuned, against recipes of ours with AdamW and with Muon
(appendix `optimizers`). All see the first nine tenths and are judged on the whole last tenth,
windows of 64 side by side. Only training steps are timed.
"""
import argparse
import json
import math
import platform
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn
from tqdm import tqdm

from minigpt_course.bigram import evaluate
from minigpt_course.corpus import load_corpus
from minigpt_course.gpt import GPT, GPTConfig
from minigpt_course.runs import Run
from minigpt_course.text import CharTokenizer, Corpus, get_batch
from minigpt_course.train import TrainConfig, learning_rate_at

CONTEXT = 64
TURNS = 20  # parts of each run; losses are looked at in the second half
NEVER = 10**9  # the race validates by itself, outside the timed steps
RECIPES = {  # name to size and recipe
    "sprint, AdamW": (
        GPTConfig.laptop(vocab_size=65, num_blocks=1),
        TrainConfig(steps=760, learning_rate=2e-2, eval_every=NEVER)),
    "sprint, Muon": (
        GPTConfig.laptop(vocab_size=65, num_blocks=1),
        TrainConfig(steps=600, learning_rate=3e-2, betas=(0.9, 0.99), eval_every=NEVER,
                    optimizer="muon")),
    "long, Muon": (
        GPTConfig.laptop(vocab_size=65, num_blocks=3, activation="gelu"),
        TrainConfig(steps=2400, batch_size=12, learning_rate=1e-2, min_lr_ratio=0.0,
                    betas=(0.9, 0.99), eval_every=NEVER, optimizer="muon")),
}
LEVEL = 1.63  # the loss that the long run is timed to


class Logits(nn.Module):
    "nanoGPT's model with our models' interface: ids to the logits of every position."
    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, idx: torch.Tensor) -> torch.Tensor: return self.model(idx, idx)[0]


class NanoGPT:
    "nanoGPT's model and optimizer under the settings of its own configuration file and README."
    def __init__(self, clone: Path, ids: torch.Tensor, seed: int, share: float):
        from model import GPT as Model  # the clone's own
        from model import GPTConfig as Config
        r = {"bias": False, "weight_decay": 0.1, "beta1": 0.9, "grad_clip": 1.0}  # its train.py
        exec((clone / "config" / "train_shakespeare_char.py").read_text(), {}, r)
        r |= {"block_size": CONTEXT, "batch_size": 12, "n_layer": 4, "n_head": 4, "n_embd": 128,
              "max_iters": 2000, "lr_decay_iters": 2000, "dropout": 0.0}  # its README
        torch.manual_seed(seed)
        self.generator = torch.Generator().manual_seed(seed)
        self.recipe, self.ids, self.steps = r, ids, shortened(r["max_iters"], share)
        self.done, self.seconds = 0, 0.0
        names = "block_size", "n_layer", "n_head", "n_embd", "dropout", "bias"
        self.model = Model(Config(vocab_size=65, **{name: r[name] for name in names}))
        self.optimizer = self.model.configure_optimizers(
            r["weight_decay"], r["learning_rate"], (r["beta1"], r["beta2"]), "cpu")
        self.judged = Logits(self.model)

    def rate(self) -> float:
        "Linear warm-up, then half a cosine from the highest rate to the lowest."
        r, warmup = self.recipe, self.recipe["warmup_iters"]
        if self.done < warmup: return r["learning_rate"] * (self.done + 1) / (warmup + 1)
        progress = (self.done - warmup) / (r["lr_decay_iters"] - warmup)
        cosine = (1 + math.cos(math.pi * progress)) / 2
        return r["min_lr"] + (r["learning_rate"] - r["min_lr"]) * cosine

    def step(self, inputs: torch.Tensor, targets: torch.Tensor) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        self.model(inputs, targets.contiguous())[1].backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe["grad_clip"])
        self.optimizer.step()

    def advance(self) -> None:
        began = time.perf_counter()
        for group in self.optimizer.param_groups: group["lr"] = self.rate()
        self.step(*get_batch(self.ids, self.recipe["batch_size"], CONTEXT, self.generator))
        self.seconds += time.perf_counter() - began
        self.done += 1


class Ours:
    "A run of the library's own training loop, which validates once, before its first step."
    def __init__(
        self, corpus: Corpus, tokenizer: CharTokenizer, size: GPTConfig, recipe: TrainConfig,
        seed: int, share: float,
    ):
        torch.manual_seed(seed)
        self.judged = GPT(size)
        recipe = replace(recipe, seed=seed)
        self.run = Run(self.judged, corpus, recipe, tokenizer, learning_rate_at)
        self.steps = shortened(recipe.steps, share)

    @property
    def done(self) -> int: return self.run.step

    def advance(self) -> None: self.run.advance()

    @property
    def seconds(self) -> float: return self.run.curve.last("seconds")


def shortened(steps: int, share: float) -> int:
    "So many steps of a run are made; the rates stay those of the whole."
    return max(TURNS, round(steps * share))


def reached(points: list[tuple[float, float]], loss: float) -> float:
    """Training seconds after which a loss was first reached, between two looks by a straight line;
    infinite if it never was; at the first look, at most so many."""
    if points[0][1] <= loss: return points[0][0]
    for (before, high), (after, low) in zip(points, points[1:]):
        if low <= loss: return before + (after - before) * (high - loss) / (high - low)
    return math.inf


def race(
    clone: Path, corpus: Corpus, tokenizer: CharTokenizer, seed: int, share: float
) -> dict[str, list[tuple[float, float]]]:
    """Train all contenders from one seed, taking turns; training seconds and validation loss after
    each turn."""
    validation = tokenizer.encode(corpus.validation)
    runners = {"nanoGPT": NanoGPT(clone, tokenizer.encode(corpus.train), seed, share)}
    for name, recipe in RECIPES.items():
        runners[name] = Ours(corpus, tokenizer, *recipe, seed, share)
    points = {name: [] for name in runners}
    for turn in tqdm(range(1, TURNS + 1), desc=f"seed {seed}: training, in turns"):
        for name, runner in runners.items():
            while runner.done < runner.steps * turn // TURNS: runner.advance()
            if turn < TURNS // 2: continue
            loss = evaluate(runner.judged, validation, CONTEXT)
            points[name].append((runner.seconds, loss))
    return points


def row(points: dict[str, list[tuple[float, float]]]) -> dict[str, float]:
    "What is claimed of one seed's race."
    seconds, loss = points["nanoGPT"][-1]
    figures = {"nanoGPT seconds": seconds, "nanoGPT loss": loss}
    for name in RECIPES:
        level = LEVEL if name.startswith("long") else loss
        figures[f"{name}: to the level"] = reached(points[name], level) / seconds
        figures[f"{name}: seconds"] = points[name][-1][0] / seconds
        figures[f"{name}: loss"] = points[name][-1][1]
    return figures


def spread(values: list[float]) -> str:
    "Median, lowest and highest."
    low, high = min(values), max(values)
    if math.isinf(low): return "not reached"
    if math.isinf(high): return f"not by all seeds ({low:.3f} at best)"
    return f"{statistics.median(values):.3f} ({low:.3f} to {high:.3f})"


def table(rows: list[dict[str, float]], machine: str) -> str:
    "The figures as Markdown: medians, and the lowest and highest of the seeds."
    def column(name: str) -> list[float]: return [row[name] for row in rows]
    lines = ["| recipe | ends at (nats per character) | its time | "
             "reaches the level (see below) after |", "|---|---|---|---|",
             f"| nanoGPT | {spread(column('nanoGPT loss'))} | "
             f"1 ({statistics.median(column('nanoGPT seconds')):.0f} s) | |"]
    for name in RECIPES:
        whats = "loss", "seconds", "to the level"
        figures = [spread(column(f"{name}: {what}")) for what in whats]
        lines.append(f"| ours: {name} | " + " | ".join(figures) + " |")
    return "\n".join([*lines, "", "The level of a sprint is nanoGPT's last loss, that of the long "
                      f"run {LEVEL}. Medians over {len(rows)} seeds, with the lowest and the "
                      f"highest; times in units of nanoGPT's; {machine}."])


def as_json(rows: list[dict[str, float]], machine: str) -> str:
    "The figures seed by seed, and their medians; null where a level was not reached."
    medians = {name: statistics.median(row[name] for row in rows) for name in rows[0]}
    finite = [{name: None if math.isinf(value) else value for name, value in row.items()}
              for row in [medians, *rows]]
    figures = {"medians": finite[0], "seeds": finite[1:], "machine": machine}
    return json.dumps(figures, indent=1) + "\n"


def main() -> None:
    "See the module's own words."
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--nanogpt", type=Path, required=True, help="path of a clone of karpathy/nanoGPT")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--share", type=float, default=1.0,
        help="make only this share of each run's steps, to see whether it works")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    if not (options.nanogpt / "model.py").is_file():
        sys.exit(f"{options.nanogpt} is not a clone of nanoGPT: it has no model.py")
    sys.path.insert(0, str(options.nanogpt))
    corpus = load_corpus("shakespeare")
    tokenizer = CharTokenizer.fit(corpus.text, vocab_size=None)
    rows = [row(race(options.nanogpt, corpus, tokenizer, seed, options.share))
            for seed in range(options.seeds)]
    machine = (f"{platform.machine()}, {torch.get_num_threads()} threads, "
               f"torch {torch.__version__}, Python {platform.python_version()}")
    print(table(rows, machine))
    if options.json: options.json.write_text(as_json(rows, machine))


if __name__ == "__main__": main()
