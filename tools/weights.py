"""Publishes a trained model with the library, in 8 bits a weight and with a model card.

`python tools/weights.py` keeps the laptop model of the last `make outputs` as `pydocs`;
`python tools/weights.py RUN shakespeare` the best model of a run of the full model.
"""
import argparse
import platform
from pathlib import Path

from minigpt_course.bigram import evaluate
from minigpt_course.core import read_about, write_atomically
from minigpt_course.corpus import load_corpus
from minigpt_course.generate import generate
from minigpt_course.gpt import GPT, GPTConfig
from minigpt_course.gpt2 import model_card
from minigpt_course.runs import RUN_FORMAT, RUN_KINDS, load_best
from minigpt_course.saved import WEIGHTS
from minigpt_course.share import load, save
from minigpt_course.text import CharTokenizer, Corpus

ROOT = Path(__file__).resolve().parents[1]
PIECE = 50  # characters: longer than a phrase that two writers would both find
LICENCES = {"pydocs": "the manual that comes with Python, under the PSF licence",
            "shakespeare": "plays by William Shakespeare, in the public domain"}
PROMPTS = {"pydocs": "Return the ", "shakespeare": "ROMEO:"}


def pieces(text: str, length: int) -> list[str]:
    return [text[i : i + length] for i in range(len(text) - length + 1)]


def memorised(
    samples: list[str],
    text: str,  # that may stand in them
) -> tuple[str, float]:  # the longest passage in both; the share of the samples' pieces that are
    "How much of some samples stands in a text, word for word."
    def in_both(length):
        mine = {piece for sample in samples for piece in pieces(sample, length)}
        return mine.intersection(pieces(text, length))
    low, high = 0, max(map(len, samples)) + 1  # a passage of `low` characters, none of `high`
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if in_both(middle) else (low, middle)
    there = in_both(PIECE)
    mine = [piece for sample in samples for piece in pieces(sample, PIECE)]
    return min(in_both(low)), sum(piece in there for piece in mine) / len(mine)


def memory_of(model: GPT, tokenizer: CharTokenizer, corpus: Corpus) -> dict[str, str]:
    "What the model's samples repeat of the training set, beside what the validation set does."
    length, count = 1000, 20
    samples = [generate(model, tokenizer, "\n", length, temperature=0.8, seed=seed)
               for seed in range(count)]
    real = corpus.validation[: count * length]
    others = [real[i : i + length] for i in range(0, len(real), length)]
    notes = {}
    for whose, texts in ("its samples", samples), ("the validation set", others):
        longest, share = memorised(texts, corpus.train)
        notes[f"longest passage of {whose} that stands in the training set"] = (
            f"{len(longest)} characters: {longest!r}")
        notes[f"{PIECE}-character pieces of {whose} that stand there"] = f"{share:.2%}"
    return notes


def publish(run_dir: Path, name: str) -> None:
    "Save a run's best model among the library's weights, with what a receiver should know."
    about, folder = read_about(run_dir / "run.json", RUN_FORMAT, RUN_KINDS), WEIGHTS / name
    corpus, tokenizer = load_corpus(about["corpus"]["name"]), CharTokenizer(about["chars"])
    if corpus.sha256 != about["corpus"]["sha256"]:
        raise SystemExit(f"{run_dir} was trained on another text than the {corpus.name} here: "
                         "train it again")
    model = GPT(GPTConfig(**about["model"]))
    step, loss = load_best(model, run_dir)
    notes = {"corpus": corpus.name, "corpus sha256": corpus.sha256, "step": step,
             "validation loss": loss, "python": platform.python_version()}
    save(model, tokenizer, folder, bits=8, notes=notes)
    small, ids = load(folder)[0], tokenizer.encode(corpus.validation)
    # `loss` may have been computed in another number format
    exact, rough = (evaluate(it, ids, model.config.context_length) for it in (model, small))
    notes["8 bits cost"] = rough - exact
    save(model, tokenizer, folder, bits=8, notes=notes)
    print(f"{name}: measuring what it repeats of its text")
    recipe = {"dropout": about["model"]["dropout"]} | {
        field.replace("_", " "): value for field, value in about["training"].items()}
    card = {"trained on": LICENCES[corpus.name]} | notes | memory_of(small, tokenizer, corpus)
    card = {what: f"{value:.5g}" if isinstance(value, float) else value
            for what, value in (card | recipe).items()}
    card["validation loss"] += ", a little flattered: the weights were chosen by it"
    told = {"step": "best step", "8 bits cost": "nats that 8 bits cost"}
    card = {told.get(what, what): value for what, value in card.items()}
    usage = f'```\nminigpt generate {name} --prompt "{PROMPTS[corpus.name]}"\n```'
    write_atomically(folder / "README.md", model_card(model, card, usage).encode())
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(f"{name}: {size:,} bytes, loss {loss:.4f}, 8 bits cost {notes['8 bits cost']:+.5f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", nargs="?", type=Path, default=ROOT / "_course" / "runs" / "laptop")
    parser.add_argument("name", nargs="?", default="pydocs")
    arguments = parser.parse_args()
    publish(arguments.run, arguments.name)
