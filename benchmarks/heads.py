"""How many heads at a fixed width: the model of notebook 04 with 1 to 16 heads that share 64
numbers, five seeds each, trained as the notebook trains it. `python benchmarks/heads.py` writes
minigpt_course/weights/heads.json, which notebook 04 reads."""
import json
from statistics import mean, stdev

import torch

from minigpt_course.bigram import evaluate, fit
from minigpt_course.corpus import load_corpus
from minigpt_course.multihead import MultiHeadLM
from minigpt_course.results import SHIPPED
from minigpt_course.text import CharTokenizer

STEPS, SEEDS = 2000, 5


def loss_of(num_heads: int, seed: int, train_ids, validation_ids) -> float:
    "The validation loss of one model, nats per character."
    torch.manual_seed(seed)
    model = MultiHeadLM(vocab_size=77, context_length=64, embed_dim=64, num_heads=num_heads)
    fit(model, train_ids, STEPS, learning_rate=1e-2, seed=seed)
    return evaluate(model, validation_ids, context_length=64)


def main() -> None:
    torch.set_num_threads(1)
    corpus = load_corpus("pydocs")
    tokenizer = CharTokenizer.fit(corpus.text)
    parts = tokenizer.encode(corpus.train), tokenizer.encode(corpus.validation)
    losses = {}
    for num_heads in 1, 2, 4, 8, 16:
        name = f"{num_heads} heads" if num_heads > 1 else "1 head"
        losses[name] = [loss_of(num_heads, seed, *parts) for seed in range(SEEDS)]
        print(name, losses[name], flush=True)
    about = {"made by": "benchmarks/heads.py", "corpus": corpus.sha256, "steps": STEPS,
             "means": [(name, mean(every), stdev(every)) for name, every in losses.items()],
             "losses": losses}
    SHIPPED.with_name("heads.json").write_text(json.dumps(about, indent=1) + "\n")


if __name__ == "__main__": main()
