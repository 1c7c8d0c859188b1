"""What torch.compile gives on this machine: writes minigpt_course/weights/compile.json.

Notebook 10 reads the file, because compiling takes longer than the rest of that page.
`python benchmarks/compile.py`, on a machine that has a C++ compiler and nothing else to do.
"""
import json
import math
import os
import platform
import tempfile
import time
from pathlib import Path

import torch
import torch.nn.functional as F

from minigpt_course.gpt import GPT, GPTConfig
from minigpt_course.speed import in_turns

OUT = Path(__file__).parents[1] / "minigpt_course" / "weights" / "compile.json"


def gelu_in_steps(x: torch.Tensor) -> torch.Tensor:
    "GELU as its formula says; written out, each operation is a pass over all numbers."
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def first_call(work) -> float:
    "Seconds of the first call, which compiles."
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def elementwise() -> dict[str, float]:
    "Several operations on each of many numbers, in one pass or in one for each."
    x, compiled = torch.randn(2**22), torch.compile(gelu_in_steps)
    seconds = first_call(lambda: compiled(x))
    assert torch.allclose(compiled(x), gelu_in_steps(x), atol=1e-6)
    times = in_turns({"plain": lambda: gelu_in_steps(x), "compiled": lambda: compiled(x)}, 25)
    return {"compiling, seconds": seconds, "times as fast": times["plain"] / times["compiled"]}


def training_step() -> dict[str, float]:
    "The laptop model forwards and backwards, 16 sequences at once."
    torch.manual_seed(0)
    config = GPTConfig.laptop()
    model, ids = GPT(config), torch.randint(77, (16, config.context_length + 1))
    fast = torch.compile(model)
    def step(net): F.cross_entropy(net(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten()).backward()
    seconds = first_call(lambda: step(fast))
    times = in_turns({"plain": lambda: step(model), "compiled": lambda: step(fast)}, 25)
    return {"compiling, seconds": seconds, "times as fast": times["plain"] / times["compiled"]}


if __name__ == "__main__":
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = tempfile.mkdtemp()  # nothing is compiled beforehand
    found = {
        "made by": "benchmarks/compile.py",
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "torch": torch.__version__,
        "elementwise operations in a row": elementwise(),
        "training step of the laptop model": training_step(),
    }
    OUT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))
