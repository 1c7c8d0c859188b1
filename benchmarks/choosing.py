"""Many trainings of which the best is chosen: how much the choice by a validation set flatters.

`python benchmarks/choosing.py` trains a small model 48 times, with four learning rates and twelve
seeds, and keeps its losses on blocks of the validation set and of the test set of pydocs, for
the appendix notebook reference; a few minutes on one core.
"""
import json
from pathlib import Path

import torch
import torch.nn.functional as F

from minigpt_course.bigram import evaluate
from minigpt_course.corpus import load_corpus
from minigpt_course.gpt import GPT, GPTConfig
from minigpt_course.optimizers import adamw
from minigpt_course.text import CharTokenizer, get_batch
from minigpt_course.train import TrainConfig, learning_rate_at

KEPT = Path(__file__).parents[1] / "minigpt_course" / "weights" / "choosing.json"
SIZE = GPTConfig.laptop(context_length=32, embed_dim=32)
RATES, SEEDS = (2e-2, 3e-2, 4e-2, 6e-2), range(12)
BLOCK = 4096  # characters, which are judged together


def trained(ids: torch.Tensor, rate: float, seed: int) -> GPT:
    "A small model after 600 steps."
    torch.manual_seed(seed)
    model, generator = GPT(SIZE), torch.Generator().manual_seed(seed)
    config = TrainConfig(steps=600, learning_rate=rate)
    optimizer = adamw(model, config)
    for step in range(config.steps):
        for group in optimizer.param_groups: group["lr"] = learning_rate_at(step, config)
        x, y = get_batch(ids, config.batch_size, SIZE.context_length, generator)
        loss = F.cross_entropy(model(x).flatten(0, 1), y.flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.grad_clip)
        optimizer.step()
    return model


def block_losses(model: GPT, ids: torch.Tensor) -> list[float]:
    "Nats per character on each whole block of a text."
    blocks = ids.split(BLOCK)[: len(ids) // BLOCK]
    return [round(evaluate(model, block, SIZE.context_length), 4) for block in blocks]


def main() -> None:
    corpus = load_corpus("pydocs")
    tokenizer = CharTokenizer.fit(corpus.text)
    train = tokenizer.encode(corpus.train)
    parts = {part: tokenizer.encode(getattr(corpus, part)) for part in ("validation", "test")}
    about = {"corpus sha256": corpus.sha256, "block": BLOCK, "torch": torch.__version__}
    runs = []
    for rate in RATES:
        for seed in SEEDS:
            model = trained(train, rate, seed)
            losses = {part: block_losses(model, ids) for part, ids in parts.items()}
            runs.append({"learning rate": rate, "seed": seed} | losses)
            print(rate, seed, {part: sum(each) / len(each) for part, each in losses.items()},
                  flush=True)
    KEPT.write_text(json.dumps(about | {"runs": runs}) + "\n")


if __name__ == "__main__": main()
