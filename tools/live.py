"""What the site's live controls show: made from the library and the published model, written as
scripts that a page can read without a server."""
import base64
import json
from dataclasses import asdict
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

import heads
from clues import CLUES, NO_MISTAKE
from minigpt_course.corpus import load_corpus
from minigpt_course.counted import count_runs
from minigpt_course.faults import FAULTS, HEALTHY, SMALL, faulty_model, faults_of, load_zoo, twin_of
from minigpt_course.gpt import GPTConfig, parameter_ledger
from minigpt_course.pages import PAGE, page_weights
from minigpt_course.plot import PART_COLORS
from minigpt_course.probes import dependence, weight_sums
from minigpt_course.share import load
from minigpt_course.train import TrainConfig

ROOT = Path(__file__).resolve().parents[1]
LIVE = ROOT / "site" / "live"
MAKERS = {}  # name of a control to the function that makes its data
SHARED = {}  # name of a control to the scripts of the page that it uses as well


def scripts(
    name: str,  # of a control
    folder: Path,  # where its scripts are put
) -> list[str]:  # the names of the scripts that a page with the control loads, in this order
    "Write what a page needs for one control. A page with several loads a script of one name once."
    folder.mkdir(parents=True, exist_ok=True)
    files = [LIVE / "live.js", *(PAGE / file for file in SHARED.get(name, ())), LIVE / f"{name}.js"]
    made = {file.name: file.read_text(encoding="utf-8") for file in files}
    made[f"{name}.data.js"] = f"live_data.{name} = {data_of(name)}\n"
    for file, text in made.items(): (folder / file).write_text(text, encoding="utf-8")
    return [*made]


@cache
def data_of(name: str) -> str:  # JSON
    "What a control shows."
    return json.dumps(MAKERS[name](), separators=(",", ":"))


def published_model() -> dict:
    "The laptop model as `loadModel` in live.js reads it: its matrices in 8 bits."
    model, tokenizer = load("pydocs")
    tensors, content = page_weights(model.state_dict())
    return {"config": asdict(model.config), "chars": tokenizer.chars, "tensors": tensors,
            "weights": base64.b64encode(content).decode()}


GPT2_SMALL = GPTConfig(vocab_size=50_257, context_length=1024, embed_dim=768, num_heads=12,
                       num_blocks=12, output_projection=True, activation="gelu", tied_head=True)
GPT2_PARAMETERS = 124_439_808  # of the published one


def gpt2_note() -> str:
    "By what GPT-2 small's size differs from what the course's ledger says."
    c, counted = GPT2_SMALL, sum(parameter_ledger(GPT2_SMALL).values())
    more, fewer = 3 * c.embed_dim * c.num_blocks, c.vocab_size
    assert counted + more - fewer == GPT2_PARAMETERS
    return (f"The published GPT-2 small has {GPT2_PARAMETERS:,}: {more:,} biases of queries, keys "
            f"and values more than the course's model has, and no {fewer:,} biases of lm_head.")


def parameters() -> dict:
    "Known models to begin with, and the colours that the parts have in every picture."
    known = [
        ("laptop", "the laptop model", GPTConfig.laptop(), "The one that you train in 07."),
        ("full model", "the full model", GPTConfig.kaggle(), "The one for a GPU."),
        ("GPT-2 small", "GPT-2 small", GPT2_SMALL, gpt2_note())]
    presets = [{"name": name, "says": says, "note": note, "config": asdict(config),
                "batch_size": TrainConfig().batch_size} for name, says, config, note in known]
    return {"presets": presets, "colours": PART_COLORS}


MAKERS["parameters"] = parameters


BIGRAM_STARTS = [  # name of a button, where the text begins, rows and columns of a frame
    ("after q", "q", "q", "u", "After “q” comes “u” {share:.0%} of the time: one cell stands out."),
    ("digits", "1", "0123456789", "0123456789",
     "After a digit comes a digit {share:.0%} of the time, after anything else {other:.1%}."),
    ("after a comma", ",", ",", "\n ",
     "After a comma comes a space or a line break {share:.0%} of the time.")]


def bigram_starts(
    counts: Tensor,  # (V, V)
    chars: str,
) -> list[dict]:
    "Where a reader may begin in the table of notebook 02, and what is to be seen there."
    def members(wanted): return torch.tensor([char in wanted for char in chars])
    starts = []
    for name, start, rows, columns, note in BIGRAM_STARTS:
        rows, columns = ([char for char in chars if char in part] for part in (rows, columns))
        inside, these = members(rows), counts[:, members(columns)]
        share, other = (these[part].sum() / counts[part].sum() for part in (inside, ~inside))
        note = heads.spaced(note.format(share=share.item(), other=other.item()))
        starts.append({"name": name, "start": start, "note": note,
                       "frame": [*map(chars.index, (rows[0], rows[-1], columns[0], columns[-1]))]})
    return starts


def bigram() -> dict:
    "The table of notebook 02 as counts, and what its smoothing needs."
    corpus = load_corpus("pydocs")
    tokenizer = corpus.fit_tokenizer()
    train_ids, _ = corpus.encode(tokenizer)
    counts = count_runs(train_ids, 2, tokenizer.vocab_size)
    frequencies = train_ids.bincount(minlength=tokenizer.vocab_size)
    return {"chars": tokenizer.chars, "counts": counts.tolist(), "weight": 4,
            "frequencies": frequencies.tolist(), "presets": bigram_starts(counts, tokenizer.chars)}


MAKERS["bigram"] = bigram
SHARED["bigram"] = ["writer.js"]


def attention() -> dict:
    "The laptop model, and where to look in it."
    return {"model": published_model(),
            "presets": heads.presets(*load("pydocs"), load_corpus("pydocs").validation)}


MAKERS["attention"] = attention
SHARED["attention"] = ["gpt.js"]


def sampling() -> dict:
    "The published model and a prompt to begin with."
    return {**published_model(), "prompt": "This is a co"}


MAKERS["sampling"] = sampling
SHARED["sampling"] = "gpt.js", "writer.js"


def case_of(name: str, zoo: dict) -> dict:
    "A trained model of the bug zoo, as a player sees it, and what is the matter with it."
    run, (fault,) = zoo["runs"][name][0], faults_of(name)
    attention = faulty_model(name).eval().blocks[0].attention
    return {
        "name": name, "diagnosis": NO_MISTAKE if name in HEALTHY else name,
        "twin": twin_of(name), "seed": run["seed"], "characters": fault.training.get("characters"),
        "training": run["training"], "validations": run["validations"],
        "another text": run["another text"], "text": run["text"],
        "findings": [{"what": each["what"], "value": each["value"], "expected": each["expected"],
                      "telling": each["suspect"] == name} for each in run["findings"]],
        "map": dependence(attention, SMALL.embed_dim).int().tolist(),
        "sums": [round(each, 3) for each in weight_sums(attention).tolist()],
        "right": fault.right, "wrong": fault.wrong}


def faults() -> dict:
    "Every single fault of the bug zoo, and its healthy models."
    zoo = load_zoo()
    clues = {name: clue._asdict() for name, clue in CLUES.items()}
    twins = {name: [{key: run[key] for key in ("seed", "training", "validations")}
                    for run in zoo["runs"][name]] for name in HEALTHY}
    return {"cases": [case_of(name, zoo) for name in FAULTS | HEALTHY], "twins": twins,
            "clues": clues, "every": zoo["every"], "steps": zoo["steps"],
            "characters": len(load_corpus("pydocs").train), "page": "09_diagnose.html"}


MAKERS["faults"] = faults
SHARED["faults"] = ("writer.js",)  # for its generator of random numbers
