"""Keeps the laptop model of the last `make outputs` as the one that ships with the library, in 8
bits a weight, and measures what the rounding costs."""
import platform
import sys
from pathlib import Path

from minigpt_course.bigram import evaluate
from minigpt_course.core import read_about
from minigpt_course.corpus import load_corpus
from minigpt_course.gpt import GPT, GPTConfig
from minigpt_course.runs import RUN_FORMAT, load_best
from minigpt_course.share import WEIGHTS, load, save
from minigpt_course.text import CharTokenizer

ROOT = Path(__file__).resolve().parents[1]


def publish(run_dir: Path, name: str) -> None:
    "Save a run's best model among the library's weights, with what a receiver should know."
    about, folder = read_about(run_dir / "run.json", RUN_FORMAT), WEIGHTS / name
    corpus, tokenizer = load_corpus(about["corpus"]["name"]), CharTokenizer(about["chars"])
    if corpus.sha256 != about["corpus"]["sha256"]:
        sys.exit(f"{run_dir} was trained on another text than the {corpus.name} of this Python")
    model = GPT(GPTConfig(**about["model"]))
    step, loss = load_best(model, run_dir)
    notes = {"corpus": corpus.name, "corpus sha256": corpus.sha256, "step": step,
             "validation loss": loss, "python": platform.python_version()}
    save(model, tokenizer, folder, bits=8, notes=notes)
    ids = tokenizer.encode(corpus.validation)
    cost = evaluate(load(folder)[0], ids, model.config.context_length) - loss
    save(model, tokenizer, folder, bits=8, notes=notes | {"8 bits cost": cost})
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(f"{folder.relative_to(ROOT)}: {size:,} bytes, loss {loss:.4f}, 8 bits cost {cost:+.5f}")


if __name__ == "__main__":
    publish(Path(sys.argv[1]) if sys.argv[1:] else ROOT / "_course" / "runs" / "laptop", "pydocs")
