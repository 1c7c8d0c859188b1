"""The bug zoo of notebook 09: a small model with each fault of the appendix `faults`, trained for
1,000 steps with several seeds, and what `diagnose` says of it then.

    nice python benchmarks/zoo.py --models /tmp/zoo

writes minigpt_course/weights/zoo.json, some ten minutes on one core. The trained models stay in the
folder that --models names, and are not trained again where they are there.
"""
import argparse
import json
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
STEPS, EVERY, CHARACTERS = 1_000, 20, 20_000  # EVERY: steps to a point of the curve
TWO = "mask off by one + learning rate too high"
SEEDS = {"healthy": 8, TWO: 1}  # the others have 3


def trained(folder: Path, name: str, seed: int, texts: tuple) -> TrainedModel:
    "A model of the zoo, from the folder or trained now."
    path = folder / f"{name}, {seed}.pt"
    if not path.exists():
        case = train_faulty(name, *texts, seed, steps=STEPS, eval_every=200)
        torch.save(case, path)
        print(f"{name:40} {seed} {case.validation_loss:.3f}", flush=True)
    return torch.load(path, weights_only=False)


def rounded(values) -> list: return [round(value, 3) for value in values]


def run_of(case: TrainedModel, seed: int) -> dict:
    "What is kept of one model."
    means = torch.tensor(case.losses).unflatten(0, (-1, EVERY)).mean(1).tolist()
    return {"seed": seed, "training": rounded(means),
            "validations": [[step, round(loss, 3)] for step, loss in case.validations]}


def diagnosis_of(case: TrainedModel, other: torch.Tensor, tokenizer: CharTokenizer) -> dict:
    "What `diagnose` says of one model, its loss on another text, and what it writes."
    report = diagnose(case.model, case.batch, case.fresh, case.optimizer, case.texts, case.step)
    case.model.eval()
    return {"named": report.suspects, "unusual": report.unusual,
            "findings": [asdict(each) for each in report.findings if each.unusual],
            "another text": round(evaluate(case.model, other, SMALL.context_length), 3),
            "text": sample(case.model, tokenizer, "The ", 160, SMALL.context_length)}


def counts(path: Path) -> dict[str, list[int]]:
    "Kind of model to runs, right names, unusual ones, silent ones, false names; from a table."
    found = re.findall(r"^\| (\w+): (\d+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|$",
                       path.read_text(), re.MULTILINE)
    return {kind: [int(number) for number in numbers] for kind, *numbers in found}


def main() -> None:
    "See the module's own words."
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=Path, required=True, help="the folder of the models")
    folder = parser.parse_args().models
    folder.mkdir(exist_ok=True)
    torch.set_num_threads(1)
    corpus = load_corpus("pydocs")
    tokenizer = CharTokenizer.fit(corpus.text)
    validation_ids = tokenizer.encode(corpus.validation)[40_000 : 40_000 + CHARACTERS]
    texts, runs = (tokenizer.encode(corpus.train), validation_ids), {}
    for name in [*HEALTHY, *FAULTS, TWO]:
        group = [trained(folder, name, seed, texts) for seed in range(SEEDS.get(name, 3))]
        runs[name] = [run_of(case, seed) for seed, case in enumerate(group)]
        first = runs[name][0] | diagnosis_of(group[0], validation_ids, tokenizer)
        print(f"{name:40}", *first["named"], "|", *first["unusual"], flush=True)
        runs[name][0] = first
    limits = counts(HERE / "diagnose_after.md")
    limits["blind"] = counts(HERE / "diagnose_blind.md")["unseen"]
    about = {"made by": "benchmarks/zoo.py", "corpus sha256": corpus.sha256,
             "torch": torch.__version__, "steps": STEPS, "every": EVERY}
    TARGET.write_text(json.dumps(about | {"limits": limits, "runs": runs}) + "\n")


if __name__ == "__main__": main()
