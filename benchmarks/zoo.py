"""The bug zoo of notebook 09: a small model with each fault of the appendix `faults`, trained for
1,200 steps with several seeds, and what `diagnose` says of it then.

    nice python benchmarks/zoo.py --models /tmp/zoo.pt

writes minigpt_course/weights/zoo.json, some twenty minutes on one core. The trained models stay in
the file that --models names: where it is there, only `diagnose` is asked again.
"""
import argparse
import json
import math
import re
from dataclasses import asdict
from pathlib import Path

import torch

from minigpt_course.bigram import evaluate, sample
from minigpt_course.corpus import load_corpus
from minigpt_course.diagnose import diagnose
from minigpt_course.faults import FAULTS, HEALTHY, SMALL, TrainedModel, train_faulty
from minigpt_course.text import CharTokenizer

HERE = Path(__file__).parent
TARGET = HERE.parent / "minigpt_course" / "weights" / "zoo.json"
STEPS, EVERY, CHARACTERS = 1_200, 20, 20_000  # EVERY: steps to a point of the curve
TWO = "mask off by one + learning rate too high"
SEEDS = {"healthy": 8, "healthy, short text": 5}  # the others have 3


def train_all(train_ids: torch.Tensor, validation_ids: torch.Tensor) -> dict[str, list]:
    "Name to the trained models of its seeds."
    cases = {}
    for name in [*HEALTHY, *FAULTS, TWO]:
        cases[name] = [train_faulty(name, train_ids, validation_ids, seed, steps=STEPS,
                                    eval_every=200) for seed in range(SEEDS.get(name, 3))]
        losses = [f"{case.validation_loss:.3f}" for case in cases[name]]
        print(f"{name:40}", *losses, flush=True)
    return cases


def rounded(values) -> list: return [round(value, 3) for value in values]


def run_of(case: TrainedModel, seed: int, other: torch.Tensor, tokenizer: CharTokenizer) -> dict:
    "What is kept of one model."
    report = diagnose(case.model, case.batch, case.fresh, case.optimizer, case.texts, case.step)
    means = torch.tensor(case.losses).unflatten(0, (-1, EVERY)).mean(1).tolist()
    run = {"seed": seed, "first loss": round(case.losses[0], 3), "training": rounded(means),
           "validations": [[step, round(loss, 3)] for step, loss in case.validations],
           "another text": round(evaluate(case.model, other, SMALL.context_length), 3),
           "named": report.suspects, "unusual": report.unusual}
    if seed: return run
    case.model.eval()
    torch.manual_seed(0)
    run["text"] = sample(case.model, tokenizer, "The ", 160, SMALL.context_length)
    run["findings"] = [asdict(each) for each in report.findings if each.unusual]
    return run


def counts(path: Path) -> dict[str, list[int]]:
    "Kind of model to runs, right names, unusual ones, silent ones, false names; from a table."
    found = re.findall(r"^\| (\w+): (\d+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|$",
                       path.read_text(), re.MULTILINE)
    return {kind: [int(number) for number in numbers] for kind, *numbers in found}


def main() -> None:
    "See the module's own words."
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=Path, required=True, help="where the models are kept")
    models = parser.parse_args().models
    torch.set_num_threads(1)
    corpus = load_corpus("pydocs")
    tokenizer = CharTokenizer.fit(corpus.text)
    validation_ids = tokenizer.encode(corpus.validation)[40_000 : 40_000 + CHARACTERS]
    if not models.exists():
        torch.save(train_all(tokenizer.encode(corpus.train), validation_ids), models)
    cases = torch.load(models, weights_only=False)
    runs = {name: [run_of(case, seed, validation_ids, tokenizer)
                   for seed, case in enumerate(group)] for name, group in cases.items()}
    limits = counts(HERE / "diagnose_after.md")
    limits["blind"] = counts(HERE / "diagnose_blind.md")["unseen"]
    about = {"made by": "benchmarks/zoo.py", "corpus sha256": corpus.sha256,
             "torch": torch.__version__, "steps": STEPS, "every": EVERY, "uniform": math.log(77)}
    TARGET.write_text(json.dumps(about | {"limits": limits, "runs": runs}) + "\n")


if __name__ == "__main__": main()
