"""The same work by ours, by nanoGPT's model and by transformers' GPT-2: training steps and
generation, at two sizes, taking turns in one process.

    python benchmarks/vs_peers.py --nanogpt PATH_TO_CLONE [--rounds 41] [--json FILE]

Needs `pip install transformers`. Prints a Markdown table of ratios to nanoGPT; takes about a
quarter of an hour on two cores that have nothing else to do.

Training: forwards, backwards, clipping, AdamW (nanoGPT's and transformers' as their own code makes
it, ours as ours does), same batch, no dropout; ours a second time with the windows shared out among
the threads (`Compute(threads=...)`, appendix `devices`). Generation: each project's own `generate`,
one text of 512 characters, greedy or not as it comes. nanoGPT and ours have a window of the model's
context; transformers cannot slide, so its table of positions is made long enough for the whole
text.
"""
import argparse
import json
import platform
import sys
from pathlib import Path
from typing import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

from minigpt_course.devices import Compute
from minigpt_course.generate import generate
from minigpt_course.gpt import GPT, GPTConfig, training_flops
from minigpt_course.optimizers import make_optimizer
from minigpt_course.speed import in_turns, matrix_product_rate
from minigpt_course.text import CharTokenizer
from minigpt_course.train import TrainConfig, train_step

SIZES = {  # model, windows in a batch, steps timed as one
    "laptop": (GPTConfig.laptop(dropout=0.0), 16, 10),
    "13.1 M": (GPTConfig.kaggle(dropout=0.0), 4, 1),
}
LENGTH = 512  # characters to generate


def nanogpt(size: GPTConfig) -> nn.Module:
    "nanoGPT's model of the same width and depth."
    from model import GPT as Model  # the clone's own
    from model import GPTConfig as Config
    return Model(Config(block_size=size.context_length, vocab_size=size.vocab_size,
                        n_layer=size.num_blocks, n_head=size.num_heads, n_embd=size.embed_dim,
                        dropout=0.0, bias=False))


def gpt2(size: GPTConfig, positions: int) -> GPT2LMHeadModel:
    "transformers' GPT-2 of the same width and depth."
    return GPT2LMHeadModel(GPT2Config(
        vocab_size=size.vocab_size, n_positions=positions, n_embd=size.embed_dim,
        n_layer=size.num_blocks, n_head=size.num_heads, resid_pdrop=0.0, embd_pdrop=0.0,
        attn_pdrop=0.0, bos_token_id=0, eos_token_id=None, pad_token_id=0))


def their_step(model: nn.Module, optimizer, loss_of: Callable[[], Tensor]) -> None:
    "A training step as both others write it."
    optimizer.zero_grad(set_to_none=True)
    loss_of().backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()


def training(size: GPTConfig, inputs: Tensor, targets: Tensor) -> dict[str, Callable]:
    "A training step of each."
    config = TrainConfig(batch_size=len(inputs))
    ours, shared = GPT(size), GPT(size)
    optimizer, shared_optimizer = (make_optimizer(model, config) for model in (ours, shared))
    threads = torch.get_num_threads()  # that share out the windows
    stepper = Compute("cpu", threads=threads).prepare(shared, config)
    generator = torch.Generator().manual_seed(0)
    nano, theirs = nanogpt(size), gpt2(size, size.context_length)
    nano_optimizer = nano.configure_optimizers(0.1, 1e-3, (0.9, 0.99), "cpu")
    their_optimizer = torch.optim.AdamW(theirs.parameters(), lr=1e-3)
    def loss_of_theirs():
        return F.cross_entropy(theirs(inputs).logits.flatten(0, 1), targets.flatten())
    return {
        "nanoGPT": lambda: their_step(nano, nano_optimizer, lambda: nano(inputs, targets)[1]),
        "transformers": lambda: their_step(theirs, their_optimizer, loss_of_theirs),
        "ours": lambda: train_step(ours, optimizer, inputs, targets, 1.0),
        "ours, by window": lambda: stepper.step(shared_optimizer, inputs, targets, 1.0, generator),
    }


def generation(size: GPTConfig) -> dict[str, Callable]:
    "A text of each."
    ours, nano, theirs = GPT(size).eval(), nanogpt(size).eval(), gpt2(size, LENGTH + 1).eval()
    tokenizer = CharTokenizer.fit("a", size.vocab_size)
    start = torch.zeros(1, 1, dtype=torch.long)
    def by_nanogpt():
        with torch.no_grad(): nano.generate(start, LENGTH)
    def by_transformers():
        theirs.generate(start, attention_mask=torch.ones_like(start), max_new_tokens=LENGTH,
                        do_sample=True, top_k=0, use_cache=True)
    def by_ours(): generate(ours, tokenizer, "a", LENGTH, seed=0)
    return {"nanoGPT": by_nanogpt, "transformers": by_transformers, "ours": by_ours}


def measure(name: str, rounds: int) -> dict[str, dict[str, float]]:
    "Seconds of each, a step or a text, and what share of the machine's peak our training reaches."
    size, windows, repeats = SIZES[name]
    torch.manual_seed(0)
    text = torch.randint(size.vocab_size, (windows, size.context_length + 1))
    inputs, targets = text[:, :-1].contiguous(), text[:, 1:].contiguous()
    peaks = [matrix_product_rate()]
    works = training(size, inputs, targets)
    several = {who: lambda step=step: [step() for _ in range(repeats)]
               for who, step in works.items()}
    steps = {who: seconds / repeats for who, seconds in in_turns(several, rounds).items()}
    peaks.append(matrix_product_rate())
    operations = training_flops(size) * inputs.numel()
    shares = {who: operations / steps[who] / max(peaks) for who in ("ours", "ours, by window")}
    return {f"training, {name}": steps,
            f"generation, {name}": in_turns(generation(size), max(3, rounds // 8)),
            f"share of the peak, {name}": shares}


def table(figures: dict) -> str:
    "Ratios as Markdown."
    columns = "transformers", "ours", "ours, by window"
    heading = ["models of one size, how many times as fast", "nanoGPT", *columns]
    lines = [f"| {' | '.join(heading)} |", "|---|---|---|---|---|"]
    shares = []
    for what, seconds in figures["seconds"].items():
        if "nanoGPT" in seconds:
            ratios = [f"{seconds['nanoGPT'] / seconds[who]:.2f}" if who in seconds else ""
                      for who in columns]
            lines.append(f"| {what} | 1 | " + " | ".join(ratios) + " |")
        else:
            shares.append(f"{what.split(', ')[1]}: **{seconds['ours']:.0%}**, "
                          f"by window {seconds['ours, by window']:.0%}")
    return "\n".join([*lines, "", "Share of the machine's measured matrix-product peak that our "
                      f"training reaches: {'; '.join(shares)}. Medians of turns; "
                      f"{figures['machine']}."])


def main() -> None:
    "See the module's own words."
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--nanogpt", type=Path, required=True, help="path of a clone of karpathy/nanoGPT")
    parser.add_argument(
        "--rounds", type=int, default=41,
        help="turns of each in training; generation gets an eighth, but at least 3")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    if not (options.nanogpt / "model.py").is_file():
        sys.exit(f"{options.nanogpt} is not a clone of nanoGPT: it has no model.py")
    sys.path.insert(0, str(options.nanogpt))
    seconds = {}
    for name in SIZES: seconds |= measure(name, options.rounds)
    machine = (f"{platform.machine()}, {torch.get_num_threads()} threads, "
               f"torch {torch.__version__}, Python {platform.python_version()}")
    figures = {"seconds": seconds, "machine": machine}
    print(table(figures))
    if options.json: options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__": main()
