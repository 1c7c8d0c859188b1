"""Campaigns against a run and its folder: killed, crowded, out of disk, left by its terminal, and
files that were made to do harm.

`make torture` runs all of them and says how they ended; `test_torture.py` runs a small sample of
each. Every try is a process of its own, forked from this one, so that it starts at once.
"""
import contextlib
import hashlib
import json
import os
import pty
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Callable

import torch
from tqdm import tqdm

from conftest import assert_same_end, say, small_corpus, small_gpt
from minigpt_course import cli, core
from minigpt_course.gpt import GPTConfig
from minigpt_course.gpt2 import from_transformers, to_transformers
from minigpt_course.runs import BEST, STATE, load_checkpoint, save_checkpoint
from minigpt_course.saved import KINDS
from minigpt_course.share import load, save
from minigpt_course.train import TrainConfig, train

CONFIG = TrainConfig(steps=24, batch_size=2, warmup_steps=5, eval_every=8, checkpoint_every=3)
LINE = ["train", "--device", "cpu", "--steps", "24", "--batch-size", "2", "--eval-every", "8"]
FOREIGN = (".film.mkv.partial", "checkpoint-backup0.pt", "weights-of-mine.safetensors",
           "checkpoint-00000004-backup.pt", ".film.7.partial")


# a process, and a run in it


def begin(
    work: Callable[[], object],
    output: Path | int | None,  # a file, the end of a pipe; None: a terminal of its own
) -> tuple[int, int]:  # process, our end of its terminal
    "Work in a process of its own."
    process, ours = pty.fork() if output is None else (os.fork(), -1)
    if process: return process, ours
    code = 70
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if isinstance(output, Path): output = os.open(output, os.O_WRONLY | os.O_CREAT)
        for number in (1, 2) if output is not None else (): os.dup2(output, number)
        sys.stdout, sys.stderr = (open(number, "w", buffering=1, closefd=False)
                                  for number in (1, 2))
        work()
        code = 0
    except SystemExit as end: code = end.code or 0
    except BaseException as error:
        with contextlib.suppress(OSError): print(f"{type(error).__name__}: {error}")
        code = 1
    finally: os._exit(code)


def end_of(process: int) -> int:
    "The exit code of a process, or minus the signal that ended it."
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def done(work: Callable[[], object], output: Path | int) -> int:
    return end_of(begin(work, output)[0])


def run(folder: Path, **options) -> None:
    "A small run that goes on if it was begun."
    train(small_gpt(dropout=0.3), small_corpus(), CONFIG, folder, resume=True, **options)


def command(folder: Path, *more: str) -> None:
    "The command, with a model that is small."
    small = {"context_length": 16, "embed_dim": 16, "num_heads": 2, "num_blocks": 1}
    GPTConfig.laptop = classmethod(lambda cls, **changes: cls(**small | changes))
    where = ["--corpus", str(folder.parent / "hamlet.txt"), "--run-dir", str(folder)]
    sys.argv = ["minigpt", *LINE, *where, *more]
    cli.main()


def whole_run_of_the_command(folder: Path) -> Path:
    "The folder of a run that nothing happens to, beside the text that all are trained on."
    (folder / "hamlet.txt").write_text(small_corpus().text)
    assert done(lambda: command(folder / "whole"), folder / "log") == 0
    return folder / "whole"


def leave_foreign_files(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in FOREIGN: (folder / name).write_text("mine")


def assert_nothing_foreign_touched(folder: Path) -> None:
    assert all((folder / name).read_text() == "mine" for name in FOREIGN)


def assert_whole(folder: Path, whole: Path) -> None:
    "Whether a run has ended as the one that nothing happened to, and left nothing behind."
    assert_same_end(folder, whole, CONFIG.steps)
    left = {path.name for path in folder.iterdir()} - {*FOREIGN, "model", "samples.txt"}
    kinds = sorted(name.split("-")[0] for name in left)
    assert kinds == ["checkpoint", "checkpoint", "curve.csv", "run.json"], kinds


# the campaigns: each gives what happened, and how often


def killed_at_random(folder: Path, times: int, generator: random.Random) -> Counter:
    "`kill -9` at random moments, again and again in the same run."
    whole, here, log, seen = folder / "whole", folder / "run", folder / "log", Counter()
    began = time.perf_counter()
    assert done(lambda: run(whole), log) == 0
    takes = time.perf_counter() - began
    leave_foreign_files(here)
    while seen["killed"] < times:
        process, _ = begin(lambda: run(here), log)
        time.sleep(generator.uniform(0, takes))
        os.kill(process, signal.SIGKILL)
        if end_of(process):
            seen["killed"] += 1
            load_checkpoint(here)  # raises if nothing whole is left
            if generator.random() < 0.8: continue
            assert done(lambda: run(here), log) == 0, log.read_text()[-2000:]
        assert_whole(here, whole)
        assert_nothing_foreign_touched(here)
        seen["ended with the same bits"] += 1
        shutil.rmtree(here)
        leave_foreign_files(here)
    return seen


class DiesIn:
    "Kills its process in front of the n-th thing that is done to files in a folder."
    def __init__(self, folder: Path, number: int):
        self.folder, self.number, self.sync, self.open = str(folder), number, os.fsync, open

    def count(self) -> None:
        self.number -= 1
        if not self.number: os.kill(os.getpid(), signal.SIGKILL)

    def audit(self, event: str, given: tuple) -> None:
        if event not in ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir"): return
        writes = event != "open" or given[1] is None or set(str(given[1])) & set("wax+")
        if writes and given and str(given[0]).startswith(self.folder): self.count()

    def fsync(self, file: int) -> None:
        self.count()
        self.sync(file)

    def half(self, path, mode="r", *given, **options):
        "A file whose first half is on the disk when the process dies."
        file = self.open(path, mode, *given, **options)
        if mode != "wb": return file
        write = file.write
        def write_half(data) -> int:
            if self.number == 1: os.write(file.fileno(), bytes(data)[: len(data) // 2])
            self.count()
            return write(data)
        file = _Writing(file, write_half)
        return file

    def begin(self) -> None:
        os.fsync, core.open = self.fsync, self.half
        sys.addaudithook(self.audit)


class _Writing:
    "A file with another way to write."
    def __init__(self, file, write): self.file, self.write = file, write
    def __getattr__(self, name): return getattr(self.file, name)
    def __enter__(self): return self
    def __exit__(self, *error): self.file.close()


def killed_at_every_point(folder: Path, every: int) -> Counter:
    "`kill -9` in front of each thing that a run does to files, or of every n-th."
    whole, log, seen = folder / "whole", folder / "log", Counter()
    assert done(lambda: run(whole), log) == 0
    for number in range(1, 10_000, every):
        here = folder / str(number)
        leave_foreign_files(here)
        def work():
            DiesIn(here, number).begin()
            run(here)
        code = done(work, log)
        if code == 0: break
        assert code == -signal.SIGKILL, log.read_text()[-2000:]
        load_checkpoint(here)
        assert done(lambda: run(here), log) == 0, log.read_text()[-2000:]
        assert_whole(here, whole)
        assert_nothing_foreign_touched(here)
        shutil.rmtree(here)
        seen["points"] += 1
    return seen


def two_at_once(folder: Path, times: int, generator: random.Random) -> Counter:
    "Two commands on one folder, one by another path, with --resume or without, in both orders."
    whole, seen = whole_run_of_the_command(folder), Counter()
    for number in range(times):
        here, other = folder / f"run{number}", folder / f"link{number}"
        leave_foreign_files(here)
        other.symlink_to(here)
        first, second = [["--resume"] * (number >> bit & 1) for bit in (0, 1)]
        logs = folder / f"{number}-first.log", folder / f"{number}-second.log"
        one, _ = begin(lambda: command(here, *first), logs[0])
        time.sleep(generator.choice([0, generator.uniform(0, 1)]))
        two, _ = begin(lambda: command(other, *second), logs[1])
        codes = end_of(one), end_of(two)
        said = [log.read_text().strip().splitlines()[-1] for log in logs]
        for code, last in zip(codes, said):
            if code: assert code == 1 and last.startswith("minigpt: "), last
            refused = "is in use by another run, process" in last or "holds a run already" in last
            assert code == 0 or refused, last
        assert 0 in codes, said
        seen["both ended, one after the other" if codes == (0, 0) else "one was refused"] += 1
        assert_same_end(here, whole, CONFIG.steps)
        assert_nothing_foreign_touched(here)
        load(here / "model")
    return seen


def out_of_disk(folder: Path, sizes: list[int]) -> Counter:
    "Files may have no more than so many bytes."
    whole, log, seen = whole_run_of_the_command(folder), folder / "log", Counter()
    for size in sizes:
        here = folder / str(size)
        leave_foreign_files(here)
        def work():
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
            command(here)
        code, last = said_through_a_pipe(work)  # for a file the limit would hold as well
        if code:
            assert code == 1 and last.startswith("minigpt: ") and str(here) in last, last
            assert "could not be written (File too large)" in last and "free some space" in last
            seen["refused in a sentence"] += 1
        else: seen["ended"] += 1
        assert not list(here.glob(".*.minigpt-partial"))
        begun = (here / "run.json").exists()
        assert done(lambda: command(here, *["--resume"] * begun), log) == 0
        assert_same_end(here, whole, CONFIG.steps)
        assert_nothing_foreign_touched(here)
    return seen


def said_through_a_pipe(work: Callable[[], object]) -> tuple[int, str]:
    "The exit code and the last line."
    reads, writes = os.pipe()
    process, _ = begin(work, writes)
    os.close(writes)
    with open(reads, encoding="utf-8", errors="replace") as pipe: said = pipe.read()
    return end_of(process), said.strip().splitlines()[-1]


def left_by_its_terminal(folder: Path, times: int, generator: random.Random) -> Counter:
    "A terminal that is closed, with and without `nohup`; a pipe whose reader has gone."
    whole, log, seen = whole_run_of_the_command(folder), folder / "log", Counter()
    for number in range(times):
        here, ignored = folder / f"run{number}", number % 2 == 1
        leave_foreign_files(here)
        def work():
            if ignored: signal.signal(signal.SIGHUP, signal.SIG_IGN)
            command(here)
        process, terminal = begin(work, None)
        read_until(terminal, b"step 0: validation loss")
        time.sleep(generator.uniform(0, 0.05))
        os.close(terminal)
        code = end_of(process)
        assert code in ((0,) if ignored else (0, 3)), code
        assert load_checkpoint(here)["step"] > 0 and load(here / "model")
        seen["went on, as SIGHUP was ignored" if ignored else f"ended with {code}"] += 1
        assert done(lambda: command(here, "--resume"), log) == 0
        assert_same_end(here, whole, CONFIG.steps)
        assert_nothing_foreign_touched(here)
    here, (reads, writes) = folder / "pipe", os.pipe()
    os.close(reads)
    assert done(lambda: command(here), writes) == 0
    os.close(writes)
    assert_same_end(here, whole, CONFIG.steps)
    seen["went on when its reader had gone"] += 1
    return seen


def read_until(terminal: int, words: bytes) -> None:
    said = b""
    while words not in said: said += os.read(terminal, 1000)


# files that were made to do harm, each with the right hash


JUNK = [None, "x", [], {}, -1.5, True]
SIZES = ("vocab_size", "context_length", "embed_dim", "num_heads", "num_blocks")


def saved(folder: Path) -> dict:
    "A saved model; what its minigpt.json says."
    save(small_gpt(), small_corpus().fit_tokenizer(24), folder)
    return json.loads((folder / "minigpt.json").read_text(encoding="utf-8"))


def junk(kind: type, generator: random.Random):
    "A value of another type."
    return generator.choice([value for value in JUNK if not isinstance(value, kind)])


def make_fields(folder: Path, generator: random.Random) -> None:
    about = saved(folder)
    if generator.random() < 0.5: del about[generator.choice(list(KINDS.keys() - {"bits"}))]
    else: about["config"][f"field{generator.randrange(10**9)}"] = 1
    say(folder, about)


def make_types(folder: Path, generator: random.Random) -> None:
    about = saved(folder)
    name = generator.choice([*KINDS, *SIZES])
    if name in KINDS: about[name] = junk(KINDS[name], generator)
    else: about["config"][name] = generator.choice(JUNK)
    say(folder, about)


def make_sizes(folder: Path, generator: random.Random) -> None:
    about = saved(folder)
    about["config"][generator.choice(SIZES)] = generator.randrange(10**6, 10**18)
    say(folder, about)


def make_header(folder: Path, generator: random.Random) -> None:
    about = saved(folder)
    header = bytearray((folder / about["weights"]).read_bytes())
    for _ in range(generator.randrange(1, 9)):
        header[generator.randrange(200)] = generator.choice(b'{}[]",:0123456789eFI\0\xff')
    header += bytes(generator.randrange(1, 99))  # so that no header is right by chance
    (folder / about["weights"]).write_bytes(header)
    say(folder, about | {"weights_sha256": hashlib.sha256(header).hexdigest()})


def make_state(folder: Path, generator: random.Random) -> None:
    train(small_gpt(), small_corpus(), TrainConfig(steps=1, batch_size=2), folder)
    state = load_checkpoint(folder)
    for path in folder.glob("checkpoint-*.pt"): path.unlink()
    name = generator.choice([*STATE, *BEST])
    if name in STATE: state[name] = junk(STATE[name], generator)
    else: state["best"][name] = junk(BEST[name], generator)
    if name == "best" and not state[name]: state = generator.choice(JUNK)
    save_checkpoint(folder, state, 2)


def make_pipe(folder: Path, generator: random.Random) -> None:
    if generator.random() < 0.5: saved(folder)
    else: train(small_gpt(), small_corpus(), TrainConfig(steps=1, batch_size=2), folder)
    kinds = "minigpt.json", "weights-*", "run.json", "checkpoint-*"
    path = generator.choice([path for kind in kinds for path in folder.glob(kind)])
    path.unlink()
    os.mkfifo(path)


def exported(folder: Path, name: str) -> dict:
    "A GPT-2; what one of its files says."
    to_transformers(small_gpt(embed_dim=32), small_corpus().fit_tokenizer(24), folder)
    return json.loads((folder / name).read_text(encoding="utf-8"))


def make_vocabulary(folder: Path, generator: random.Random) -> None:
    about = exported(folder, "tokenizer.json")
    ids = about["model"]["vocab"]
    own = generator.choice(list(ids))
    ids[own] = generator.choice([number for number in range(99) if number != ids[own]])
    (folder / "tokenizer.json").write_text(json.dumps(about), encoding="utf-8")


def make_layers(folder: Path, generator: random.Random) -> None:
    about = exported(folder, "config.json")
    about["n_layer"] = generator.choice([generator.randrange(3, 10), generator.randrange(10**9)])
    (folder / "config.json").write_text(json.dumps(about), encoding="utf-8")


HOSTILE = {
    "unknown or missing fields": (make_fields, load), "wrong types": (make_types, load),
    "absurd sizes": (make_sizes, load), "malformed headers": (make_header, load),
    "checkpoints of nonsense": (make_state, load), "pipes in place of files": (make_pipe, load),
    "gaps and doubles in a vocabulary": (make_vocabulary, from_transformers),
    "fewer weights than layers": (make_layers, from_transformers),
}


def refuse(read: Callable[[Path], object], folder: Path) -> None:
    "A file must be refused in one sentence, within a gigabyte and twenty seconds."
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * os.sysconf("SC_PAGE_SIZE") + 2**30
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    signal.alarm(20)
    try: read(folder)
    except (ValueError, OSError) as error:
        assert str(error) and "\n" not in str(error), error
        return
    raise AssertionError(f"{folder} was read")


def read_hostile_files(folder: Path, each: int, generator: random.Random) -> Counter:
    "Of each kind so many files, which differ."
    seen, log = Counter(), folder / "log"
    for kind, (make, read) in HOSTILE.items():
        for number in range(each):
            here = folder / kind / str(number)
            make(here, generator)
            assert done(lambda: refuse(read, here), log) == 0, (here, log.read_text())
            seen[kind] += 1
    return seen


CAMPAIGNS = {  # whole, as `make torture` runs them
    "kill -9 at random moments": lambda at: killed_at_random(at, 100, random.Random(0)),
    "kill -9 at every point of the writer": lambda at: killed_at_every_point(at, 1),
    "two commands on one folder": lambda at: two_at_once(at, 50, random.Random(0)),
    "a full disk": lambda at: out_of_disk(at, [0, 1, 100, 1000, *range(2000, 130_000, 8000)]),
    "a terminal that is closed": lambda at: left_by_its_terminal(at, 20, random.Random(0)),
    "hostile files": lambda at: read_hostile_files(at, 30, random.Random(0)),
}

SAMPLES = {  # as test_torture.py runs them
    "kill -9 at random moments": lambda at: killed_at_random(at, 3, random.Random(1)),
    "kill -9 at every point of the writer": lambda at: killed_at_every_point(at, 61),
    "two commands on one folder": lambda at: two_at_once(at, 2, random.Random(1)),
    "a full disk": lambda at: out_of_disk(at, [0, 40_000]),
    "a terminal that is closed": lambda at: left_by_its_terminal(at, 2, random.Random(1)),
    "hostile files": lambda at: read_hostile_files(at, 3, random.Random(1)),
}

if __name__ == "__main__":
    torch.set_num_threads(1)
    tqdm.monitor_interval = 0  # no thread but this one, or a fork may inherit a lock that is held
    campaigns = SAMPLES if "--sample" in sys.argv else CAMPAIGNS
    words = [word for word in sys.argv[1:] if word != "--sample"]
    for name, campaign in campaigns.items():
        if words and not any(word in name for word in words): continue
        with tempfile.TemporaryDirectory() as folder:
            began, seen = time.perf_counter(), campaign(Path(folder).resolve())
        assert seen.total() > 0
        said = ", ".join(f"{count} {what}" for what, count in seen.items())
        print(f"{name}: {said} ({time.perf_counter() - began:.0f} s)", flush=True)
