"""What each part of a training configuration is worth: the short trials that notebook 07 shows.

`python benchmarks/training_choices.py --json minigpt_course/weights/training_choices.json` makes
them on the default corpus, one after another, in about a quarter of an hour on one core.
"""
import argparse
import copy
import json
import platform
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minigpt_course.bigram import evaluate
from minigpt_course.corpus import load_corpus
from minigpt_course.gpt import GPT, GPTConfig
from minigpt_course.optimizers import adamw
from minigpt_course.text import CharTokenizer, get_batch
from minigpt_course.train import TrainConfig, learning_rate_at

SEEDS, STEPS = range(5), 200
SMALL = GPTConfig(context_length=32, embed_dim=48, num_heads=2, num_blocks=1)
OURS = {"betas": (0.8, 0.95), "min_lr_ratio": 0.05, "warmup_steps": 50, "weight_decay": 0.1,
        "grad_clip": 1.0}
NOT_CLIPPED = 1e9
# each row makes one change to the row before it; the first is the bare loop
IMPROVEMENTS = {
    "bare loop": {"betas": (0.9, 0.999), "min_lr_ratio": 1.0, "warmup_steps": 0,
                  "weight_decay": 0.0, "grad_clip": NOT_CLIPPED},
    "+ warm-up over 50 steps": {"warmup_steps": 50},
    "+ rate falls to a twentieth": {"min_lr_ratio": 0.05},
    "+ betas (0.8, 0.95), not (0.9, 0.999)": {"betas": (0.8, 0.95)},
    "+ weight decay on everything": {"weight_decay": 0.1, "everything_decays": True},
    "then weight decay on matrices only": {"everything_decays": False},
    "+ gradient clipping at 1": {"grad_clip": 1.0},
}
HOT = {  # eight times the rate
    f"{warm}, {clipped}": OURS | {"learning_rate": 0.1, "warmup_steps": warmup, "grad_clip": clip}
    for warm, warmup in (("no warm-up", 0), ("warm-up", 50))
    for clipped, clip in (("not clipped", NOT_CLIPPED), ("clipped", 1.0))
}


class Trial:
    "A model in training by the bare loop of notebook 07."
    def __init__(
        self, ids: Tensor, seed: int, size: GPTConfig = GPTConfig.laptop(),
        everything_decays: bool = False, **changes,
    ):
        torch.manual_seed(seed)
        self.ids, self.config = ids, TrainConfig(**{"steps": STEPS} | changes)
        self.model = GPT(size)
        self.optimizer = adamw(self.model, self.config)
        if everything_decays:
            for group in self.optimizer.param_groups:
                group["weight_decay"] = self.config.weight_decay
        self.step, self.losses = 0, []
        self.generator = torch.Generator().manual_seed(seed)

    def go(self, steps: int) -> "Trial":
        for self.step in range(self.step, self.step + steps):
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate_at(self.step, self.config)
            x, y = get_batch(self.ids, self.config.batch_size, self.model.config.context_length,
                             self.generator)
            loss = F.cross_entropy(self.model(x).flatten(0, 1), y.flatten())
            self.optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.grad_clip)
            self.optimizer.step()
            self.losses.append(round(loss.item(), 4))
        self.step += 1
        return self


    def judged(self, ids: Tensor) -> float:
        return round(evaluate(self.model, ids, self.model.config.context_length), 4)


def cumulative(rows: dict[str, dict], **others) -> dict[str, dict]:
    "Each row with the changes of all rows before it, and others."
    changes, whole = others, {}
    for name, change in rows.items(): whole[name] = changes = changes | change
    return whole


def validations(
    train_ids: Tensor, validation_ids: Tensor, variants: dict[str, dict], seeds: range = SEEDS,
) -> dict:
    "Of each variant the validation loss of each seed, and the mean of their training losses."
    found = {name: {"validation": [], "training": []} for name in variants}
    for seed in seeds:
        for name, changes in variants.items():
            trial = Trial(train_ids, seed, **changes)
            loss = trial.go(trial.config.steps).judged(validation_ids)
            found[name]["validation"].append(loss)
            found[name]["training"].append(trial.losses)
            print(f"seed {seed}: {loss:.3f}  {name}", flush=True)
    for trial in found.values():
        trial["training"] = [round(sum(losses) / len(seeds), 4)
                             for losses in zip(*trial["training"])]
    return found


def improvements(train_ids: Tensor, validation_ids: Tensor) -> dict[str, dict]:
    "Of a small model, at two rates: change to the validation loss of each seed."
    found = {}
    for rate in 0.012, 0.05:
        rows = cumulative(IMPROVEMENTS, size=SMALL, steps=1000, learning_rate=rate)
        trials = validations(train_ids, validation_ids, rows, SEEDS[:3])
        found[str(rate)] = {name: trial["validation"] for name, trial in trials.items()}
    return found


def forgotten_moments(train_ids: Tensor, steps: int = 60) -> dict[str, list]:
    "The training losses after step 200, of runs that go on with AdamW's moments and without."
    found = {"with the moments": [], "without them": []}
    for seed in SEEDS:
        trial = Trial(train_ids, seed, **OURS | {"min_lr_ratio": 1.0}).go(STEPS)
        forgetful = copy.deepcopy(trial)
        forgetful.optimizer = adamw(forgetful.model, forgetful.config)
        found["with the moments"].append(trial.go(steps).losses[STEPS:])
        found["without them"].append(forgetful.go(steps).losses[STEPS:])
    return found


def overfitted(train_ids: Tensor, validation_ids: Tensor, characters: int = 20_000) -> dict:
    "Losses on a short text and on the validation set, every 100 steps of 800."
    found = {"steps": [*range(0, 801, 100)], "training": [], "validation": []}
    for seed in SEEDS[:3]:
        trial = Trial(train_ids[:characters], seed, **OURS | {"steps": 800})
        rows = []
        for step in found["steps"]:
            rows.append([trial.judged(ids) for ids in (trial.ids, validation_ids)])
            if step < found["steps"][-1]: trial.go(100)
        for name, losses in zip(("training", "validation"), zip(*rows)):
            found[name].append(losses)
        print(f"seed {seed}: {rows[-1]}", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, required=True, help="file for the results")
    path = parser.parse_args().json
    corpus = load_corpus("pydocs")
    train_ids, validation_ids = corpus.encode(CharTokenizer.fit(corpus.text))
    found = {"made by": "benchmarks/training_choices.py", "torch": torch.__version__,
             "python": platform.python_version(), "corpus sha256": corpus.sha256,
             "small model": asdict(SMALL)}
    for name, make in {
        "hot": lambda: validations(train_ids, validation_ids, HOT),
        "moments": lambda: forgotten_moments(train_ids),
        "improvements": lambda: improvements(train_ids, validation_ids),
        "overfitting": lambda: overfitted(train_ids, validation_ids),
    }.items():
        print(name, flush=True)
        found[name] = make()
        path.write_text(json.dumps(found) + "\n", encoding="utf-8")


if __name__ == "__main__": main()
