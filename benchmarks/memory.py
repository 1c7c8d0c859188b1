"""How much memory a text of a billion characters takes: to encode it into a file of ids, and to
train on that file.

    python benchmarks/memory.py [--folder FOLDER] [--json FILE]

The text is Python's manual again and again. Needs 2 GB of disk below FOLDER (the system's temporary
folder if none is named) and gives them back; takes about a minute on two cores. Each part runs in a
process of its own, and its memory is the most that this process ever held (ru_maxrss): Python,
PyTorch and the pages of the file it has touched included. This process stays small, since Linux
counts a parent's memory against the processes it starts.
"""
import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

STEPS = 200


def write_text(folder: Path, characters: int) -> None:
    "The manual again and again, to the character."
    from minigpt_course.corpus import load_corpus
    manual = load_corpus("pydocs").text
    with open(folder / "text.txt", "w", encoding="utf-8", newline="") as file:
        for _ in range(characters // len(manual)): file.write(manual)
        file.write(manual[: characters % len(manual)])


def only_import(folder: Path, characters: int) -> None: pass  # `main` has done it


def encode(folder: Path, characters: int) -> None:
    from minigpt_course.corpus import write_ids
    write_ids(folder / "text.txt", folder / "ids")


def train(folder: Path, characters: int) -> None:
    from minigpt_course.corpus import IdFile
    from minigpt_course.gpt import GPT, GPTConfig
    from minigpt_course.train import TrainConfig
    from minigpt_course.train import train as run_training
    config = TrainConfig.laptop(steps=STEPS)
    run_training(GPT(GPTConfig.laptop()), IdFile(folder / "ids"), config)


PARTS = {part.__name__: part for part in (write_text, only_import, encode, train)}


def measured(part: str, folder: Path, characters: int) -> dict[str, int]:
    "The most memory in MiB and the seconds of a part, in a process of its own."
    command = [sys.executable, __file__, "--part", part, "--folder", folder,
               "--characters", str(characters)]
    answer = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout
    return json.loads(answer.splitlines()[-1])


def figures(folder: Path, characters: int) -> dict[str, int]:
    "What the JSON file says."
    measured("write_text", folder, characters)
    parts = "encode", "train", "only_import"
    encoding, training, alone = (measured(part, folder, characters) for part in parts)
    length = json.loads((folder / "ids" / "ids.json").read_text())["length"]
    return {"characters": length, "encoding peak MiB": encoding["MiB"],
            "encoding seconds": encoding["seconds"], "training peak MiB": training["MiB"],
            "torch alone MiB": alone["MiB"]}


def main() -> None:
    "See the module's own words."
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--folder", type=Path, help="where the text and its ids are kept meanwhile: 2 GB")
    parser.add_argument("--characters", type=int, default=1_000_000_000, help="length of the text")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        import minigpt_course.train  # noqa: F401  and with it torch
        began = time.perf_counter()
        PARTS[options.part](options.folder, options.characters)
        unit = 2**20 if sys.platform == "darwin" else 2**10
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // unit
        print(json.dumps({"MiB": most, "seconds": round(time.perf_counter() - began)}))
    else:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            found = figures(Path(folder), options.characters)
        print(json.dumps(found, indent=1))
        if options.json: options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__": main()
