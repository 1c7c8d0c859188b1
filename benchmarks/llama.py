"""What LLaMA's changes are worth at the size of the laptop model: the figures that the appendix
llama shows.

    python benchmarks/llama.py [--seeds 5]

A LLaMA, the same with one part of the course's in place of its own, and the course's GPT, trained
on the course's own corpus with the training configuration of notebook 07: for 300 steps, at two
learning rates and with several seeds, and at the better one for 2,400 steps with two. Equal seeds
have equal batches; the losses are those on the whole validation set. Writes benchmarks/llama.json.
Takes about ten minutes on two cores.
"""
import argparse
import json
import statistics
from pathlib import Path

import torch
from torch import nn

from minigpt_course.bigram import evaluate
from minigpt_course.block import FeedForward
from minigpt_course.corpus import load_corpus
from minigpt_course.gpt import GPT, GPTConfig
from minigpt_course.llama import Llama, LlamaSizes
from minigpt_course.optimizers import make_optimizer
from minigpt_course.text import get_batch
from minigpt_course.train import TrainConfig, learning_rate_at, train_step

RESULT = Path(__file__).with_name("llama.json")
RATES, STEPS, LONG, LONG_SEEDS = (6e-3, 1.2e-2), 300, 2400, 2
C, T, LAPTOP = 96, 64, LlamaSizes(vocab_size=77, embed_dim=96, hidden_dim=237, num_heads=4,
                                  num_key_heads=4, num_blocks=2)


class LearnedPositions(nn.Module):
    "A token embedding with a position embedding, as in the course's GPT."
    def __init__(self, tokens: nn.Embedding):
        super().__init__()
        self.tokens, self.positions = tokens, nn.Embedding(T, C)

    def forward(self, idx): return self.tokens(idx) + self.positions.weight[: idx.shape[1]]


def llama() -> Llama:
    model = Llama(LAPTOP)
    nn.init.normal_(model.lm_head.weight, std=1 / C)  # as the course's: the first loss is ln 77
    return model


def with_learned_positions() -> Llama:
    model = llama()
    model.embed_tokens = LearnedPositions(model.embed_tokens)
    for block in model.layers: block.self_attn.rotate = nn.Identity()
    return model


def with_relu() -> Llama:
    model = llama()
    for block in model.layers: block.mlp = FeedForward(C)
    return model


def with_layer_norm() -> Llama:
    model = llama()
    model.norm = nn.LayerNorm(C)
    for block in model.layers:
        block.input_layernorm, block.post_attention_layernorm = nn.LayerNorm(C), nn.LayerNorm(C)
    return model


def course_gpt() -> GPT: return GPT(GPTConfig.laptop())


MODELS = {"LLaMA": llama, "with learned positions": with_learned_positions,
          "with ReLU": with_relu, "with LayerNorm": with_layer_norm, "the course's GPT": course_gpt}
FOR_LONG = "LLaMA", "with learned positions"


def trained_loss(parts, make, learning_rate: float, seed: int, steps: int) -> float:
    "The validation loss of a new model after some steps."
    train_ids, validation_ids = parts
    config = TrainConfig(steps=steps, learning_rate=learning_rate, seed=seed)
    torch.manual_seed(seed)
    model, generator = make(), torch.Generator().manual_seed(seed)
    optimizer = make_optimizer(model, config)
    for step in range(steps):
        for group in optimizer.param_groups: group["lr"] = learning_rate_at(step, config)
        batch = get_batch(train_ids, config.batch_size, T, generator)
        train_step(model, optimizer, *batch, config.grad_clip)
    return evaluate(model, validation_ids, T)


def size_of(make) -> int: return sum(weight.numel() for weight in make().parameters())


def main() -> None:
    "See the module's own words."
    described = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=described)
    parser.add_argument("--seeds", type=int, default=5)
    seeds, short, long = range(parser.parse_args().seeds), {}, {}
    corpus = load_corpus("pydocs")
    parts = corpus.encode(corpus.fit_tokenizer(77))
    for name, make in MODELS.items():
        runs = {f"{rate:g}": [trained_loss(parts, make, rate, seed, STEPS) for seed in seeds]
                for rate in RATES}
        short[name] = size_of(make), runs
        print(name, {rate: f"{statistics.mean(losses):.3f}" for rate, losses in runs.items()},
              flush=True)
    for name in FOR_LONG:
        runs = short[name][1]
        rate = float(min(runs, key=lambda rate: statistics.mean(runs[rate])))
        make = MODELS[name]
        long[name] = [trained_loss(parts, make, rate, seed, LONG) for seed in range(LONG_SEEDS)]
        print(name, long[name], flush=True)
    figures = {f"after {STEPS} steps": short, f"after {LONG} steps": long,
               "torch": torch.__version__}
    RESULT.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__": main()
