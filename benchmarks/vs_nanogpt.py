"""Ours against nanoGPT, the same work in the same process on the same processor, taking turns.

    python benchmarks/vs_nanogpt.py --nanogpt PATH_TO_CLONE [--seeds 3] [--measure throughput generation training] [--json FILE]

Needs tiny Shakespeare: downloaded once, or read from the folder named by MINIGPT_DATA. Prints a Markdown table; takes about fifteen minutes on two cores.

Training: nanoGPT's own laptop recipe (its README: 4 layers, 4 heads, 128 wide, context 64, batch 12, 2000 steps, dropout 0, no compile), not retuned, against two
recipes of ours, both with AdamW alone. All see the first nine tenths and are judged on the whole last tenth, windows of 64 side by side. Only training steps are timed.
"""
import argparse
import json
import math
import operator
import platform
import statistics
import sys
import time
from pathlib import Path

import torch
from torch import nn
from tqdm import tqdm

from minigpt_course.bigram import evaluate
from minigpt_course.generate import generate
from minigpt_course.gpt import GPT, GPTConfig
from minigpt_course.text import CharTokenizer, Corpus, get_batch, load_corpus
from minigpt_course.train import Run, TrainConfig, make_optimizer, train_step

CONTEXT = 64
PARTS = ["throughput", "generation", "training"]
TURNS = 20  # each contender's run is cut into so many turns
SPRINT = GPTConfig.laptop(vocab_size=65, num_blocks=1), TrainConfig(steps=1040, learning_rate=2e-2, eval_every=10**9)
LONG = GPTConfig.laptop(vocab_size=65), TrainConfig(steps=3200, eval_every=10**9)


class Logits(nn.Module):
    "nanoGPT's model with our models' interface: ids to the logits of every position."
    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, idx: torch.Tensor) -> torch.Tensor: return self.model(idx, idx)[0]


class NanoGPT:
    "nanoGPT's model and optimiser under the settings of its own configuration file and README."
    def __init__(self, clone: Path, ids: torch.Tensor, seed: int):
        from model import GPT as Model, GPTConfig as Config  # the clone's own
        recipe = {"bias": False, "weight_decay": 0.1, "beta1": 0.9, "grad_clip": 1.0}  # its train.py
        exec((clone / "config" / "train_shakespeare_char.py").read_text(), {}, recipe)
        recipe |= {"block_size": CONTEXT, "batch_size": 12, "n_layer": 4, "n_head": 4, "n_embd": 128, "max_iters": 2000, "lr_decay_iters": 2000, "dropout": 0.0}  # its README
        torch.manual_seed(seed)
        self.dice = torch.Generator().manual_seed(seed)
        self.recipe, self.ids, self.steps, self.done, self.seconds = recipe, ids, recipe["max_iters"], 0, 0.0
        size = {name: recipe[name] for name in ("block_size", "n_layer", "n_head", "n_embd", "dropout", "bias")}
        self.model = Model(Config(vocab_size=65, **size))
        self.optimizer = self.model.configure_optimizers(recipe["weight_decay"], recipe["learning_rate"], (recipe["beta1"], recipe["beta2"]), "cpu")
        self.judged = Logits(self.model)

    def rate(self) -> float:
        "Linear warm-up, then half a cosine from the highest rate to the lowest."
        r, warmup = self.recipe, self.recipe["warmup_iters"]
        if self.done < warmup: return r["learning_rate"] * (self.done + 1) / (warmup + 1)
        progress = (self.done - warmup) / (r["lr_decay_iters"] - warmup)
        return r["min_lr"] + (r["learning_rate"] - r["min_lr"]) * (1 + math.cos(math.pi * progress)) / 2

    def step(self, inputs: torch.Tensor, targets: torch.Tensor) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        self.model(inputs, targets.contiguous())[1].backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe["grad_clip"])
        self.optimizer.step()

    def advance(self) -> None:
        began = time.perf_counter()
        for group in self.optimizer.param_groups: group["lr"] = self.rate()
        self.step(*get_batch(self.ids, self.recipe["batch_size"], CONTEXT, self.dice))
        self.seconds, self.done = self.seconds + time.perf_counter() - began, self.done + 1


class Ours:
    "A run of the library's own training loop."
    def __init__(self, corpus: Corpus, tokenizer: CharTokenizer, size: GPTConfig, recipe: TrainConfig, seed: int):
        torch.manual_seed(seed)
        self.judged = self.model = GPT(size)
        self.run, self.steps, self.done = Run(self.model, corpus, TrainConfig(**{**vars(recipe), "seed": seed}), tokenizer), recipe.steps, 0

    def advance(self) -> None:
        self.run.advance()
        self.done += 1

    @property
    def seconds(self) -> float: return self.run.curve.rows[-1][2]


def reached(points: list[tuple[float, float]], loss: float) -> float:
    "Training seconds after which a loss was first reached, between two looks by a straight line; infinite if it never was."
    for (before, high), (after, low) in zip(points, points[1:]):
        if low <= loss: return before + (after - before) * (high - loss) / (high - low)
    return math.inf


def race(clone: Path, corpus: Corpus, tokenizer: CharTokenizer, seed: int) -> dict[str, list[tuple[float, float]]]:
    "Train all contenders from one seed, taking turns; training seconds and held-out loss after each turn."
    held_out = tokenizer.encode(corpus.held_out)
    runners = {"nanoGPT": NanoGPT(clone, tokenizer.encode(corpus.train), seed), "sprint": Ours(corpus, tokenizer, *SPRINT, seed), "long": Ours(corpus, tokenizer, *LONG, seed)}
    points = {name: [] for name in runners}
    for turn in tqdm(range(1, TURNS + 1), desc=f"seed {seed}: training, in turns"):
        for name, runner in runners.items():
            while runner.done < runner.steps * turn // TURNS: runner.advance()
            points[name].append((runner.seconds, evaluate(runner.judged, held_out, CONTEXT)))
    return points


def in_turns(first, second, rounds: int) -> tuple[float, float]:
    "Median seconds of two pieces of work that alternate."
    seconds = [], []
    for _ in range(rounds):
        for work, times in zip((first, second), seconds):
            began = time.perf_counter()
            work()
            times.append(time.perf_counter() - began)
    return statistics.median(seconds[0]), statistics.median(seconds[1])


def throughput(clone: Path, ids: torch.Tensor) -> tuple[float, float]:
    "Seconds for twenty training steps of the same size and batch: nanoGPT's and ours."
    nano = NanoGPT(clone, ids, seed=0)
    ours = GPT(GPTConfig(vocab_size=65, context_length=CONTEXT, embed_dim=128, num_heads=4, num_blocks=4, dropout=0.0))
    optimizer, batch = make_optimizer(ours, TrainConfig()), get_batch(ids, 12, CONTEXT)
    return in_turns(lambda: [nano.step(*batch) for _ in range(20)], lambda: [train_step(ours, optimizer, *batch, 1.0) for _ in range(20)], rounds=21)


def generation() -> tuple[float, float]:
    "Seconds for 512 characters with models of 13 million parameters: nanoGPT's own generate and ours."
    from model import GPT as Model, GPTConfig as Config
    nano = Model(Config(block_size=256, vocab_size=77, n_layer=8, n_head=6, n_embd=384, dropout=0.0, bias=False)).eval()
    ours, tokenizer, start = GPT(GPTConfig.kaggle()).eval(), CharTokenizer.fit("a"), torch.zeros(1, 1, dtype=torch.long)
    with torch.no_grad(): return in_turns(lambda: nano.generate(start, 512), lambda: generate(ours, tokenizer, "a", 512, seed=0), rounds=3)


def training_figures(races: list[dict]) -> dict:
    "What is claimed of training: medians over seeds of ratios within a seed."
    rows = []
    for points in races:
        seconds, loss = points["nanoGPT"][-1]
        rows.append({"nanoGPT seconds": seconds, "nanoGPT loss": loss, "sprint to that loss": reached(points["sprint"], loss) / seconds, "sprint loss": points["sprint"][-1][1],
                     "long to 1.70": reached(points["long"], 1.70) / seconds, "long seconds": points["long"][-1][0] / seconds, "long loss": points["long"][-1][1]})
    return {"seeds": rows, **{name: statistics.median(row[name] for row in rows) for name in rows[0]}}


def table(figures: dict) -> str:
    "The figures as Markdown."
    f = figures
    return f"""| what | nanoGPT | ours |
|---|---|---|
| final loss of nanoGPT's laptop recipe (nats per character, whole held-out part) | {f['nanoGPT loss']:.3f} after {f['nanoGPT seconds']:.0f} s of training | the same loss in **{f['sprint to that loss']:.3f}** of that time, one seventh is {1 / 7:.3f} (one block; goes on to {f['sprint loss']:.3f}) |
| 1.70 | not reached | in **{f['long to 1.70']:.2f}** of nanoGPT's time (two blocks; goes on to {f['long loss']:.3f} at {f['long seconds']:.2f}) |
| training throughput, same size and batch | 1 | **{f['training throughput']:.2f}** |
| generating 512 characters, 13 million parameters | 1 | **{f['generation']:.1f}** |

Medians over {len(f['seeds'])} seeds; {f['machine']}. nanoGPT's recipe was not retuned."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nanogpt", type=Path, required=True, help="path of a clone of karpathy/nanoGPT")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--measure", nargs="+", choices=PARTS, default=PARTS, help="measure only these and keep the other figures of the file")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    if not (options.nanogpt / "model.py").is_file(): sys.exit(f"{options.nanogpt} is not a clone of nanoGPT: it has no model.py")
    if set(options.measure) != set(PARTS) and not (options.json and options.json.is_file()): sys.exit("--measure keeps the other figures of a file: name an earlier run's with --json")
    sys.path.insert(0, str(options.nanogpt))
    corpus = load_corpus("shakespeare")
    tokenizer = CharTokenizer.fit(corpus.text, vocab_size=None)
    figures = json.loads(options.json.read_text()) if set(options.measure) != set(PARTS) else {}
    if "throughput" in options.measure: figures["training throughput"] = operator.truediv(*throughput(options.nanogpt, tokenizer.encode(corpus.train)))
    if "generation" in options.measure: figures["generation"] = operator.truediv(*generation())
    if "training" in options.measure: figures |= training_figures([race(options.nanogpt, corpus, tokenizer, seed) for seed in range(options.seeds)])
    figures["machine"] = f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}, Python {platform.python_version()}"
    print(table(figures))
    if options.json: options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__": main()
