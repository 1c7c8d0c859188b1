"""The moving picture of the README: what the laptop model writes while it is trained. `train` keeps
losses and samples in nbs/pictures/training.json, `draw` makes training.svg from them."""
import html
import json
import math
import sys
import textwrap

import torch

from derive import ROOT
from minigpt_course.bigram import evaluate
from minigpt_course.corpus import load_corpus
from minigpt_course.generate import generate
from minigpt_course.gpt import GPT, GPTConfig
from minigpt_course.text import CharTokenizer
from minigpt_course.train import TrainConfig, train

PICTURES = ROOT / "nbs" / "pictures"
STEPS = (0, 25, 100, 200, 400, 800, 1600, 2400)
TITLE = "A GPT of 225,677 parameters learns to write like Python's manual"
PROMPT, LENGTH, COLUMNS, SECONDS = "Return the ", 240, 68, 1.8
STYLE = """
svg { background: #fff; font: 15px ui-monospace, Menlo, Consolas, monospace; }
text { fill: #1b1b1b; } .quiet { fill: #5a5a5a; font-size: 13px; }
.end { text-anchor: end; } .prompt { fill: #0b5fa5; }
.title { font: 600 17px system-ui, sans-serif; } .axis { stroke: #bbb; }
.line { stroke: #0b5fa5; fill: #0b5fa5; }
.frame { opacity: 0; animation: show %(whole).1fs infinite; }
@keyframes show { 0%%, %(share).2f%% { opacity: 1; } %(after).2f%%, 100%% { opacity: 0; } }
@media (prefers-reduced-motion: reduce) { .frame { animation: none; } .last { opacity: 1; } }
@media (prefers-color-scheme: dark) {
  svg { background: #16181c; } text { fill: #e8e8e8; } .quiet { fill: #a5a5a5; }
  .prompt { fill: #7fbcf2; } .axis { stroke: #555; } .line { stroke: #7fbcf2; fill: #7fbcf2; }
}
"""
SVG = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 860 300" role="img"
  aria-label="A small GPT writes better and better while it is trained">
<style>{style}</style>
<text class="title" x="24" y="44">{title}</text>
<text class="quiet" x="680" y="88">validation loss</text>
{axes}{pictures}</svg>
"""


def keep() -> None:
    "Train the laptop model and keep what it wrote on the way."
    corpus = load_corpus("pydocs")
    tokenizer, frames = CharTokenizer.fit(corpus.text), []
    ids = tokenizer.encode(corpus.validation)

    def note(model: GPT, step: int) -> None:
        text = generate(model, tokenizer, PROMPT, LENGTH, temperature=0.6, seed=0)
        loss = evaluate(model, ids, model.config.context_length)
        frames.append({"step": step, "loss": round(loss, 3), "text": text})

    def on_step(model: GPT, curve) -> None:
        if len(curve.rows) in STEPS: note(model, len(curve.rows))
    torch.manual_seed(0)
    model, config = GPT(GPTConfig.laptop()), TrainConfig.laptop()
    note(model, 0)
    train(model, corpus, config, tokenizer=tokenizer, on_step=on_step)
    if frames[-1]["step"] != config.steps: note(model, config.steps)
    path = PICTURES / "training.json"
    path.write_text(json.dumps(frames, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def lines_of(text: str) -> list[str]:
    "A text as it would stand on a page, six lines of it."
    wrapped = [textwrap.wrap(line, COLUMNS) or [""]
               for line in text.splitlines()]
    return [line for lines in wrapped for line in lines][:6]


def place(step: int, loss: float) -> tuple[float, float]:
    "Where a loss stands in the picture: 2,400 steps to the right, 4.5 nats up."
    return 690 + 140 * step / STEPS[-1], 260 - 160 * loss / 4.5


def axes() -> str:
    "Both axes with their numbers."
    (left, bottom), (right, top) = place(0, 0), place(STEPS[-1], 4.5)
    lines = [f'<path class="axis" fill="none" d="M{left} {top}V{bottom}H{right}"/>']
    for loss in range(5):
        x, y = place(0, loss)
        lines.append(f'<text class="quiet end" x="{x - 6:.0f}" y="{y + 4:.0f}">{loss}</text>')
    lines.append(f'<text class="quiet" x="{left}" y="280">0</text>'
                 f'<text class="quiet end" x="{right}" y="280">{STEPS[-1]:,} steps</text>')
    return "".join(lines)


def curve(frames: list[dict], upto: int) -> str:
    "The losses so far, as a line."
    places = [place(frame["step"], frame["loss"]) for frame in frames[: upto + 1]]
    points = " ".join(f"{x:.0f},{y:.0f}" for x, y in places)
    x, y = places[-1]
    return (f'<polyline class="line" points="{points}" style="fill: none" stroke-width="2"/>'
            f'<circle class="line" cx="{x:.0f}" cy="{y:.0f}" r="4"/>')


def frame_of(frames: list[dict], i: int) -> str:
    "One picture of the film strip."
    frame, rows = frames[i], []
    for row, line in enumerate(lines_of(frame["text"])):
        start = f'<tspan class="prompt">{PROMPT}</tspan>' if row == 0 else ""
        rest = html.escape(line[len(PROMPT) :] if row == 0 else line)
        rows.append(f'<text x="24" y="{122 + 27 * row}" xml:space="preserve">{start}{rest}</text>')
    choices = math.exp(frame["loss"])
    said = (f'after {frame["step"]:,} steps: loss {frame["loss"]:.2f}, as unsure as if it chose '
            f'among {choices:.{0 if choices > 10 else 1}f} characters')
    last = " last" if i == len(frames) - 1 else ""
    return (f'<g class="frame{last}" style="animation-delay: {i * SECONDS:.1f}s">'
            f'<text class="quiet" x="24" y="88">{said}</text>{"".join(rows)}'
            f'{curve(frames, i)}</g>')


def draw() -> None:
    "Make the picture from what was kept."
    frames = json.loads((PICTURES / "training.json").read_text(encoding="utf-8"))
    share = 100 / len(frames)
    style = STYLE % {"whole": SECONDS * len(frames), "share": share, "after": share + 0.01}
    pictures = "".join(frame_of(frames, i) for i in range(len(frames)))
    picture = SVG.format(style=style, title=TITLE, axes=axes(), pictures=pictures)
    (PICTURES / "training.svg").write_text(picture, encoding="utf-8")


COMMANDS = {"train": keep, "draw": draw}

if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in COMMANDS: sys.exit(__doc__)
    COMMANDS[sys.argv[1]]()
