"""The same work by ours, by nanoGPT's model and by transformers' GPT-2: training steps and
generation, at two sizes, taking turns in one process.

    python benchmarks/vs_peers.py --nanogpt PATH_TO_CLONE [--rounds 41] [--json FILE]

Needs `pip install transformers`. Prints a Markdown table of ratios to nanoGPT; takes about an hour
on two cores that have nothing else to do.

Training: forwards, backwards, clipping, AdamW (nanoGPT's and transformers' as their own code makes
it, ours as ours does), same batch, same dropout probability, nothing compiled. nanoGPT as it comes
computes in float32 on a CPU, and a second time under bfloat16 autocast; ours in float32 and in the
number format that the library chooses by trying, each at once and with the windows shared out among
the threads (`Compute(threads=...)`, appendix `devices`). Generation: each project's own `generate`,
one text of 512 characters, greedy or not as it comes. nanoGPT and ours have a window of the model's
context; transformers cannot slide, so its table of positions is as long as the whole text.
"""
import argparse
import json
import platform
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

from minigpt_course.devices import Compute, cpu_name, name_of, native_precision
from minigpt_course.fast import dequantize_rows, quantize_rows
from minigpt_course.generate import generate
from minigpt_course.gpt import GPT, GPTConfig, training_flops
from minigpt_course.optimizers import make_optimizer
from minigpt_course.speed import in_turns, matrix_product_rate
from minigpt_course.text import CharTokenizer
from minigpt_course.train import TrainConfig

SIZES = {  # model, windows in a batch, steps timed as one
    "laptop": (GPTConfig.laptop(), 16, 10),
    "13.1 M": (GPTConfig.kaggle(dropout=0.2), 16, 1),
}
OURS = {  # in training: column to what is chosen
    "ours": {"precision": "float32"},
    "ours, by window": {"precision": "float32", "threads": torch.get_num_threads()},
    "ours, native format": {"precision": "auto"},
    "ours, native by window": {"precision": "auto", "threads": torch.get_num_threads()},
}
COLUMNS = "nanoGPT, bfloat16", "transformers", *OURS, "ours, 8 bits"
LENGTH = 512  # characters to generate


def nanogpt(size: GPTConfig) -> nn.Module:
    "nanoGPT's model of the same width and depth."
    from model import GPT as Model  # the clone's own
    from model import GPTConfig as Config
    return Model(Config(block_size=size.context_length, vocab_size=size.vocab_size,
                        n_layer=size.num_blocks, n_head=size.num_heads, n_embd=size.embed_dim,
                        dropout=size.dropout, bias=False))


def gpt2(size: GPTConfig, positions: int) -> GPT2LMHeadModel:
    "transformers' GPT-2 of the same width and depth."
    p = size.dropout
    return GPT2LMHeadModel(GPT2Config(
        vocab_size=size.vocab_size, n_positions=positions, n_embd=size.embed_dim,
        n_layer=size.num_blocks, n_head=size.num_heads, resid_pdrop=p, embd_pdrop=p,
        attn_pdrop=p, bos_token_id=0, eos_token_id=None, pad_token_id=0))


def their_step(model: nn.Module, optimizer, loss_of: Callable[[], Tensor]) -> None:
    "A training step as both others write it."
    optimizer.zero_grad(set_to_none=True)
    loss_of().backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()


def by_nanogpt(size: GPTConfig, inputs: Tensor, targets: Tensor, half: bool) -> Callable:
    "A training step of nanoGPT, on a CPU as it comes, or under bfloat16 autocast."
    model = nanogpt(size)
    optimizer = model.configure_optimizers(0.1, 1e-3, (0.9, 0.99), "cpu")
    def loss_of():
        with torch.autocast("cpu", torch.bfloat16) if half else nullcontext():
            return model(inputs, targets)[1]
    return lambda: their_step(model, optimizer, loss_of)


def by_transformers(size: GPTConfig, inputs: Tensor, targets: Tensor) -> Callable:
    "A training step of transformers' GPT-2."
    model = gpt2(size, size.context_length).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    def loss_of(): return F.cross_entropy(model(inputs).logits.flatten(0, 1), targets.flatten())
    return lambda: their_step(model, optimizer, loss_of)


def by_ours(size: GPTConfig, inputs: Tensor, targets: Tensor, chosen: dict) -> Callable:
    "A training step of ours."
    model, config = GPT(size), TrainConfig(batch_size=len(inputs))
    optimizer, generator = make_optimizer(model, config), torch.Generator()
    stepper = Compute("cpu", **chosen).prepare(model, config)
    return lambda: stepper.step(optimizer, inputs, targets, 1.0, generator)


def training(size: GPTConfig, *batch: Tensor) -> dict[str, Callable]:
    "A training step of each."
    theirs = {"nanoGPT": by_nanogpt(size, *batch, half=False),
              "nanoGPT, bfloat16": by_nanogpt(size, *batch, half=True),
              "transformers": by_transformers(size, *batch)}
    return theirs | {who: by_ours(size, *batch, chosen) for who, chosen in OURS.items()}


def generation(size: GPTConfig) -> dict[str, Callable]:
    "A text of each."
    ours, nano, theirs = GPT(size).eval(), nanogpt(size).eval(), gpt2(size, LENGTH + 1).eval()
    tokenizer = CharTokenizer.fit("a", size.vocab_size)
    start = torch.zeros(1, 1, dtype=torch.long)
    def nano_text():
        with torch.no_grad(): nano.generate(start, LENGTH)
    def their_text():
        theirs.generate(start, attention_mask=torch.ones_like(start), max_new_tokens=LENGTH,
                        do_sample=True, top_k=0, use_cache=True)
    def text_of(model): generate(model, tokenizer, "a", LENGTH, seed=0)
    eight = GPT(size).eval()  # as a published model is
    for weight in eight.parameters():
        if weight.dim() == 2: weight.data = dequantize_rows(*quantize_rows(weight.data))
    return {"nanoGPT": nano_text, "transformers": their_text, "ours": lambda: text_of(ours),
            "ours, 8 bits": lambda: text_of(eight)}


def native_format(name: str) -> torch.dtype:
    "What the library chooses for a size on this machine."
    size, windows, _ = SIZES[name]
    return native_precision(torch.device("cpu"), size.embed_dim, windows * size.context_length)


def measure(name: str, rounds: int) -> dict[str, dict[str, float]]:
    "Seconds of each, a step or a text, and what share of the machine's peak our training reaches."
    size, windows, repeats = SIZES[name]
    torch.manual_seed(0)
    text = torch.randint(size.vocab_size, (windows, size.context_length + 1))
    inputs, targets = text[:, :-1].contiguous(), text[:, 1:].contiguous()
    native = native_format(name)
    formats = {who: native if chosen["precision"] == "auto" else torch.float32
               for who, chosen in OURS.items()}
    def rates(): return {one: matrix_product_rate(precision=one) for one in formats.values()}
    before, works = rates(), training(size, inputs, targets)
    several = {who: lambda step=step: [step() for _ in range(repeats)]
               for who, step in works.items()}
    steps = {who: seconds / repeats for who, seconds in in_turns(several, rounds).items()}
    after, operations = rates(), training_flops(size) * inputs.numel()
    shares = {who: operations / steps[who] / max(before[one], after[one])
              for who, one in formats.items()}
    return {f"training, {name}": steps,
            f"generation, {name}": in_turns(generation(size), max(3, rounds // 8)),
            f"share of the peak, {name}": shares}


def table(figures: dict) -> str:
    "Ratios as Markdown."
    heading = ["models of one size, how many times as fast", "nanoGPT", *COLUMNS]
    lines = [f"| {' | '.join(heading)} |", "|---" * len(heading) + "|"]
    shares = []
    for what, found in figures["seconds"].items():
        kind, name = what.split(", ", 1)
        if kind == "share of the peak":
            shares.append(f"{name}: **{found['ours']:.0%}**, by window "
                          f"{found['ours, by window']:.0%}, in the native format "
                          f"{found['ours, native format']:.0%} of that format's, by window "
                          f"{found['ours, native by window']:.0%}")
        else:
            ratios = [f"{found['nanoGPT'] / found[who]:.2f}" if who in found else ""
                      for who in COLUMNS]
            lines.append(f"| {what} | 1 | " + " | ".join(ratios) + " |")
    return "\n".join([*lines, "", "Share of the machine's measured matrix-product peak that our "
                      f"training reaches: {'; '.join(shares)}. Native format of each: "
                      f"{', '.join(figures['formats'])}. Medians of turns; {figures['machine']}."])


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
    machine = (f"{cpu_name()}, {torch.get_num_threads()} threads, "
               f"torch {torch.__version__}, Python {platform.python_version()}")
    formats = [name_of(native_format(name)) for name in SIZES]
    figures = {"seconds": seconds, "formats": formats, "machine": machine}
    print(table(figures))
    if options.json: options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__": main()
