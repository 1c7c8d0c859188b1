"""Builds a wheel and an sdist, installs each into a fresh environment with nothing but what it
needs to run, the wheel with [share] as well, and uses it from outside the checkout."""
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LEFT_OUT = shutil.ignore_patterns(
    ".*", "__pycache__", "_course", "_alone*", "_reference", "_site", "*.egg-info")
USE = '''
import importlib.util
import pathlib
import subprocess
import sys

import torch

import minigpt_course
from minigpt_course import plot, widgets
from minigpt_course.results import read_results
from minigpt_course.corpus import load_corpus
from minigpt_course.generate import generate
from minigpt_course.gpt import GPT, GPTConfig
from minigpt_course.saved import published
from minigpt_course.share import load, save
from minigpt_course.text import CharTokenizer
from minigpt_course.train import TrainConfig, train

home = pathlib.Path(minigpt_course.__file__)
assert home.is_relative_to(sys.prefix), f"imported from {home}, not from the fresh environment"
for tool in "nbdev", "jupyterlab", "pytest", "papermill":
    assert importlib.util.find_spec(tool) is None, f"{tool} is no run-time dependency"
assert sum(p.numel() for p in GPT(GPTConfig.kaggle()).parameters()) == 13_162_061

def minigpt(*arguments):
    command = pathlib.Path(sys.prefix, "bin", "minigpt"), *arguments
    return subprocess.run(command, capture_output=True, text=True)

# what ships with the library
for name in published():
    assert len(generate(*load(name), "Return the ", 50, seed=0)) == 61
    assert minigpt("generate", name, "--length", "20").returncode == 0
assert {"pydocs", "shakespeare"} <= published().keys()
assert set(read_results()) >= {"sha256", "baselines", "models"}

# a text of the user's own
pathlib.Path("book.txt").write_text("the quick brown fox jumps over the lazy dog. " * 200)
corpus = load_corpus("book.txt")
model, tokenizer = GPT(GPTConfig.laptop()), CharTokenizer.fit(corpus.text)
curve = train(model, corpus, TrainConfig(steps=60, eval_every=60), run_dir="run")
text = generate(model, tokenizer, "the ", 100, temperature=0)
assert curve.validation()[-1][1] < 1 and "quick" in text, (curve.validation(), text)
plot.learning_curve(curve).figure.savefig("curve.png")
save(model, tokenizer, "kept")
pairs = zip(load("kept")[0].parameters(), model.parameters())
assert all(torch.equal(a, b) for a, b in pairs)

# the command
minigpt("export", "kept", "page.html", "--page")
assert "feed(id)" in pathlib.Path("page.html").read_text(encoding="utf-8")
wrote = minigpt("generate", "kept", "--prompt", "the ", "--length", "100", "--temperature", "0")
assert wrote.returncode == 0 and wrote.stdout.strip() == text.strip(), wrote
exported = minigpt("export", "kept", "gpt2")
if importlib.util.find_spec("transformers"):
    assert exported.returncode == 0 and pathlib.Path("gpt2/model.safetensors").exists(), exported
else:
    assert exported.returncode == 1 and "pip install '.[share]'" in exported.stderr, exported
print(minigpt_course.__version__, "from", home.parent.parent.name, "wrote:", text[:48])
'''


def run(*command: str | Path, at: Path = ROOT) -> None:
    "Run a command and stop where it fails."
    subprocess.run(command, cwd=at, check=True)


with tempfile.TemporaryDirectory() as folder:
    dist, fresh, source = (Path(folder) / name for name in ("dist", "fresh", "source"))
    shutil.copytree(ROOT, source, ignore=LEFT_OUT)
    run(sys.executable, "-m", "build", "--outdir", dist, source)
    venv.create(fresh, with_pip=True)
    python, pinned = fresh / "bin" / "python", ROOT / "constraints.txt"
    torch = next(line for line in pinned.read_text().splitlines() if line.startswith("torch=="))
    wheel, sdist = next(dist.glob("*.whl")), next(dist.glob("*.tar.gz"))
    install = python, "-m", "pip", "install", "--quiet", "--no-compile"
    run(*install, torch)
    run(*install, "-c", pinned, sdist)
    run(python, "-c", USE, at=Path(tempfile.mkdtemp(dir=folder)))
    run(*install, "--no-deps", "--force-reinstall", wheel)  # of the same version
    run(*install, "-c", pinned, f"{wheel}[share]")
    run(python, "-c", USE, at=Path(tempfile.mkdtemp(dir=folder)))
    print("the sdist, and the wheel with [share], work from outside the checkout")
