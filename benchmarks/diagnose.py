"""What `diagnose` says of faults it knows, of healthy models, and of faults it has never seen.

    python benchmarks/diagnose.py [--faults FILE] [--seeds 3] [--only WORD] [--json FILE]

Trains small models briefly, each with one fault, hands each to `diagnose` and writes a Markdown
table; some ten minutes on one core. With --faults only the faults of that file are tried.

Such a file is Python and defines FAULTS, a dictionary from a fault's name to what is different in
its training, any of the following (see `unseen_faults.py`):

    "model"       function of the healthy GPT, called before training; changes it or returns another
    "texts"       function (train_ids, validation_ids) -> the two that are used
    "batch"       function (ids, batch_size, context_length, generator) -> inputs, targets
    "make_batch"  function () -> such a function, for one that has to remember something
    "config"      dictionary of fields of TrainConfig, such as {"learning_rate": 1.0}
    "optimizer"   function (model, config) -> torch.optim.Optimizer
    "step"        function (model, optimizer, inputs, targets, grad_clip): one update
    "names"       list of the names that `diagnose` may give it; what else it names is false

A report is *right* if it names the fault and nothing else, *unusual* if it names nothing and says
that something is unusual, *silent* if it says nothing, *FALSE* if it names what the fault is not:
a name that is not among "names", which a person has to judge where the file has none.
"""
import argparse
import collections
import copy
import functools
import importlib.util
import json
import platform
from pathlib import Path

import torch

from minigpt_course.bigram import evaluate
from minigpt_course.block import GPTDecoderBlock
from minigpt_course.corpus import load_corpus
from minigpt_course.diagnose import diagnose
from minigpt_course.faults import FAULTS, SMALL, train_faulty
from minigpt_course.gpt import GPT, GPTConfig
from minigpt_course.optimizers import make_optimizer
from minigpt_course.text import CharTokenizer, get_batch
from minigpt_course.train import TrainConfig, learning_rate_at, train_step

BRIEF = TrainConfig(steps=200, batch_size=8, learning_rate=6e-3, warmup_steps=20, min_lr_ratio=1.0)


class PostNorm(GPTDecoderBlock):
    "The first transformer's block (Vaswani et al. 2017): not a fault."
    def forward(self, x):
        x = self.norm1(x + self.attention(x))
        return self.norm2(x + self.feed_forward(x))


def post_norm(model: GPT) -> None:
    for block in model.blocks: block.__class__ = PostNorm


def size(context: int, width: int, heads: int, blocks: int, **options) -> GPTConfig:
    options = {"dropout": 0.0} | options
    return GPTConfig(77, context, width, heads, blocks, **options)


HEALTHY = [  # a size, and what is different in training
    (SMALL, {}), (SMALL, {"steps": 600}), (SMALL, {"steps": 50}),
    (SMALL, {"learning_rate": 2e-3}), (SMALL, {"learning_rate": 1e-2, "min_lr_ratio": 0.05}),
    (SMALL, {"optimizer": "muon", "learning_rate": 2e-2}), (SMALL, {"batch_size": 32}),
    (GPTConfig.laptop(), {"learning_rate": 1.2e-2, "min_lr_ratio": 0.05, "steps": 400}),
    (GPTConfig.laptop(dropout=0.1), {}), (size(64, 64, 4, 2, dropout=0.2), {}),
    (size(32, 32, 2, 1), {}), (size(16, 48, 3, 2), {}), (size(128, 64, 1, 2), {}),
    (size(64, 128, 4, 4), {"learning_rate": 3e-3}), (size(64, 64, 8, 6), {"learning_rate": 3e-3}),
    (size(32, 256, 4, 1), {"learning_rate": 2e-3}), (size(64, 64, 4, 2, activation="gelu"), {}),
    (size(64, 64, 4, 2, output_projection=True), {}), (size(64, 64, 4, 2, tied_head=True), {}),
    (SMALL, {"model": post_norm, "learning_rate": 2e-3}),
]


@functools.cache
def texts() -> tuple[torch.Tensor, torch.Tensor]:
    corpus = load_corpus("pydocs")
    tokenizer = CharTokenizer.fit(corpus.text)
    return tokenizer.encode(corpus.train), tokenizer.encode(corpus.validation)[40_000:80_000]


def trained(fault: dict, seed: int, model_size: GPTConfig = SMALL) -> tuple[dict, float]:
    "What `diagnose` is given of a model with a fault, and its validation loss."
    torch.manual_seed(seed)
    model = GPT(model_size)
    model = fault.get("model", lambda model: None)(model) or model
    config = TrainConfig(**vars(BRIEF) | fault.get("config", {}))
    fresh, optimizer = copy.deepcopy(model), fault.get("optimizer", make_optimizer)(model, config)
    train_ids, validation_ids = fault.get("texts", lambda *both: both)(*texts())
    batch = fault["make_batch"]() if "make_batch" in fault else fault.get("batch", get_batch)
    step, generator = fault.get("step", train_step), torch.Generator().manual_seed(seed)
    for number in range(config.steps):
        for group in optimizer.param_groups: group["lr"] = learning_rate_at(number, config)
        pair = batch(train_ids, config.batch_size, model_size.context_length, generator)
        step(model, optimizer, *pair, config.grad_clip)
    given = {"model": model, "batch": pair, "fresh": fresh, "optimizer": optimizer,
             "texts": (train_ids, validation_ids),
             "step": lambda *update: step(*update, config.grad_clip)}
    return given, evaluate(model, validation_ids, model_size.context_length)


def known(name: str, seed: int) -> tuple[dict, float]:
    case = train_faulty(name, *texts(), seed)
    parts = "model", "batch", "fresh", "optimizer", "texts", "step"
    return {part: getattr(case, part) for part in parts}, case.validation_loss


def verdict(names: list[str], unusual: list[str], right: list[str]) -> str:
    if set(names) - set(right): return "FALSE"
    if names: return "right"
    return "unusual" if unusual else "silent"


def judged(kind: str, name: str, seed: int, given: dict, loss: float, right: list[str]) -> dict:
    "One row of the table."
    try:
        report = diagnose(**given)
        names, unusual = report.suspects, report.unusual
    except Exception as error: names, unusual = [f"{type(error).__name__}: {error}"], []
    row = {"kind": kind, "name": name, "seed": seed, "validation_loss": round(loss, 3),
           "names": names, "unusual": unusual, "verdict": verdict(names, unusual, right)}
    print(f"{kind:8} {name:36} {seed} {loss:7.3f} {row['verdict']:8}", *names, *unusual, sep=" | ",
          flush=True)
    return row


def of_file(path: str) -> dict[str, dict]:
    spec = importlib.util.spec_from_file_location("faults_of_a_file", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.FAULTS


def healthy_row(number: int) -> dict:
    model_size, changes = HEALTHY[number]
    parts = {key: value for key, value in changes.items() if key == "model"}
    config = {key: value for key, value in changes.items() if key != "model"}
    name = f"{number + 1}: C={model_size.embed_dim}, {model_size.num_blocks} blocks"
    name += "".join(f", {key}={getattr(value, '__name__', value)}"
                    for key, value in changes.items())
    case = trained(parts | {"config": config}, number, model_size)
    return judged("healthy", name, number, *case, [])


def all_rows(faults: dict[str, dict], seeds: int, only: str, alone: bool) -> list[dict]:
    rows = [judged("unseen", name, seed, *trained(fault, seed), fault.get("names", []))
            for name, fault in faults.items() if only in name for seed in range(seeds)]
    if alone: return rows
    rows += [judged("known", name, seed, *known(name, seed), [name])
             for name in FAULTS if only in name for seed in range(seeds)]
    return rows + [healthy_row(number) for number in range(len(HEALTHY)) if only in "healthy"]


def table(rows: list[dict]) -> str:
    "Counts by kind, then a line for each fault, in Markdown."
    words = "right", "unusual", "silent", "FALSE"
    lines = ["| models | right name | unusual, no name | nothing said | FALSE name |",
             "|---|---|---|---|---|"]
    kinds = collections.defaultdict(collections.Counter)
    for row in rows: kinds[row["kind"]][row["verdict"]] += 1
    for kind, counts in kinds.items():
        cells = " | ".join(str(counts[word]) for word in words)
        lines.append(f"| {kind}: {counts.total()} | {cells} |")
    lines += ["", "| | fault | validation loss | verdicts | said |", "|---|---|---|---|---|"]
    groups = collections.defaultdict(list)
    for row in rows: groups[row["kind"], row["name"]].append(row)
    for (kind, name), group in groups.items():
        losses = ", ".join(f"{row['validation_loss']:.2f}" for row in group)
        verdicts = ", ".join(f"{count} {word}" for word, count in
                             collections.Counter(row["verdict"] for row in group).items())
        said = "; ".join(dict.fromkeys(f"**{words}**" for row in group for words in row["names"]))
        unusual = "; ".join(dict.fromkeys(words for row in group for words in row["unusual"]))
        said = "; ".join(filter(None, [said, unusual])) or "-"
        lines.append(f"| {kind} | {name} | {losses} | {verdicts} | {said} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faults", help="a Python file with faults of your own")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", default="", help="a part of the names of the faults to try")
    parser.add_argument("--json", type=Path, help="where to write the rows; the table beside it")
    given = parser.parse_args()
    torch.set_num_threads(1)
    file = given.faults or str(Path(__file__).with_name("unseen_faults.py"))
    rows = all_rows(of_file(file), given.seeds, given.only, bool(given.faults))
    print(table(rows))
    if given.json:
        notes = {"torch": torch.__version__, "python": platform.python_version()}
        given.json.write_text(json.dumps({"made with": notes, "rows": rows}, indent=1) + "\n")
        given.json.with_suffix(".md").write_text(table(rows) + "\n")


if __name__ == "__main__": main()
