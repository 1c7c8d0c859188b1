"""Two processes train like one and survive being killed; ids in a file train like a text in memory.
Run as a script under torchrun, this file is one of the processes."""
import hashlib
import json
import math
import os
import random
import re
import resource
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from torch import nn

from conftest import assert_same_end, small_corpus, small_gpt
from minigpt_course import bigram, core, devices, runs
from minigpt_course import corpus as corpora
from minigpt_course.corpus import IdFile, load_corpus, open_corpus, write_ids
from minigpt_course.devices import (
    Compute, anyone, choose_device, from_first, native_precision, num_processes, process_group,
    rank, total,
)
from minigpt_course.gpt import GPT, GPTConfig
from minigpt_course.runs import LearningCurve, checkpoints, load_checkpoint
from minigpt_course.scale import predicted_seconds
from minigpt_course.text import CharTokenizer
from minigpt_course.train import TrainConfig, train

CPU = torch.device("cpu")
CONFIG = TrainConfig(steps=200, batch_size=4, warmup_steps=5, eval_every=50, checkpoint_every=5)
BRIEF = TrainConfig(steps=50, batch_size=4, learning_rate=1e-3, warmup_steps=5, eval_every=10)
MEASURES = pytest.mark.parametrize("column", ["train_loss", "validation_loss", "gradient_norm"])


# what one of the processes does


def go_on(folder: Path) -> None:
    "The run that is killed and stopped, begun or gone on with."
    say(f"process {os.getpid()} is rank {rank()}")
    def say_each_step(model, curve): say(f"step {len(curve.rows)}")
    on_step = say_each_step if rank() == 0 else None
    model = small_gpt(dropout=0.3)
    curve = train(model, small_corpus(), CONFIG, folder, resume=True, on_step=on_step)
    say(f"ended after {len(curve.rows)}")


def be_refused(folder: Path) -> None:
    "What each process says of a folder that holds a run."
    try: train(small_gpt(), small_corpus(), BRIEF, folder / "run", resume=folder.name == "resume")
    except Exception as error:
        (folder / f"{rank()}.txt").write_text(f"{type(error).__name__}: {error}")
        raise


def say(line: str) -> None:
    "In one piece: others write to the same pipe, and torchrun leaves it unbuffered."
    print(line + "\n", end="")


def be_inspected(folder: Path) -> None:
    "Everything that is asked of two processes that are left alone, in one start."
    written, run_dir = [], folder / "run"
    def note(event, seen):
        if event not in ("open", "os.rename") or not str(seen[0]).startswith(str(run_dir)): return
        written.append(str(seen[0]))
    sys.addaudithook(note)
    answers = {"said": what_processes_say_to_each_other()}
    answers["averaged"] = train(small_gpt(), small_corpus(), BRIEF, run_dir).rows
    with pytest.MonkeyPatch.context() as each_goes_its_own_way:
        each_goes_its_own_way.setattr(nn.parallel, "DistributedDataParallel", lambda model: model)
        answers["unaveraged"] = train(small_gpt(), small_corpus(), BRIEF).rows
    answers["logits"] = {dropout: logits_on_the_same_window(dropout) for dropout in (0.0, 0.5)}
    answers["written"] = written
    (folder / f"{rank()}.json").write_text(json.dumps(answers))
    go_on(folder / "whole")


def what_processes_say_to_each_other() -> list:
    asked = total(torch.tensor(rank() + 1.0)).item(), anyone(False), anyone(rank() == 1)
    contents = b"", b"b" * 1000, None
    given = [from_first(content if rank() == 0 else b"mine") for content in contents]
    with pytest.MonkeyPatch.context() as tried_here:
        found = "bfloat16" if rank() == 0 else "float32"
        tried_here.setattr(devices, "faster_precision", lambda embed_dim, rows: found)
        tried_here.setattr(
            torch.cuda, "is_bf16_supported", lambda including_emulation: rank() == 0)
        devices_of_all = CPU, torch.device("cuda")  # two GPUs of different kinds, for example
        given += [str(native_precision(device)).encode() for device in devices_of_all]
    return [num_processes(), *asked, *(sent if sent is None else sent.decode() for sent in given)]


def logits_on_the_same_window(dropout: float) -> list[float]:
    "What this process's model says in a step in which all processes have the same window."
    model, seen = small_gpt(dropout=dropout), []
    model.register_forward_hook(lambda part, given, logits: seen.extend(logits.flatten().tolist()))
    stepper, ids = Compute().prepare(model, CONFIG), torch.zeros(2, 16, dtype=torch.long)
    generator = torch.Generator().manual_seed(0)
    stepper.step(torch.optim.SGD(model.parameters()), ids, ids, 1.0, generator)
    return seen


def learn_from_a_billion(folder: Path) -> None:
    "Training on a large file, and the most memory in KiB that this process ever had."
    def evaluate(model, ids, context_length):  # less time, as much memory
        return bigram.evaluate(model, ids[:50_000], context_length)
    runs.evaluate = evaluate
    curve = train(GPT(GPTConfig.laptop()), IdFile(folder), TrainConfig.laptop(),
                  on_step=lambda model, curve: len(curve.rows) == 20)
    print(len(curve.rows), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


# two processes


def start(folder: Path, job: str = "go_on") -> subprocess.Popen:
    "A job, done by two processes that torchrun starts."
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone",
               "--local-addr=127.0.0.1", "--nproc_per_node=2", __file__, str(folder), job]
    names = "RANK", "WORLD_SIZE", "LOCAL_RANK"
    alone = {name: value for name, value in os.environ.items() if name not in names}
    environment = alone | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, text=True, env=environment, **pipes)


def end(process: subprocess.Popen) -> tuple[str, str]:
    "What was said until the last process of a run has gone: until then its output stays open."
    try: return process.communicate(timeout=300)
    except subprocess.TimeoutExpired:
        kill_all(process)
        raise


def read_until_step(step: int, process: subprocess.Popen) -> dict[int, int]:
    "Wait until that many steps are said since the start; which rank is which process."
    ranks, seen = {}, 0
    while seen < step:
        line = process.stdout.readline()
        assert line, process.stderr.read()
        seen += line.startswith("step")
        named = re.match(r"process (\d+) is rank (\d)", line)
        if named: ranks[int(named[2])] = int(named[1])
    return ranks


def family(process: subprocess.Popen) -> list[int]:
    "The living processes of a run: all have the same folder in their command lines."
    living = psutil.process_iter(["cmdline"])
    return [one.pid for one in living if process.args[-2] in (one.info["cmdline"] or [])]


def kill_all(process: subprocess.Popen) -> None:
    while pids := family(process):  # torchrun may be starting another while it is killed
        for pid in pids: kill(pid)


def kill_one(process: subprocess.Popen, generator: random.Random) -> None:
    "Any worker, or torchrun if it has none yet."
    workers = [pid for pid in family(process) if pid != process.pid]
    if workers: kill(generator.choice(workers))
    else: kill_all(process)


def kill(pid: int) -> None:
    with suppress(ProcessLookupError): os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def inspected(tmp_path_factory) -> Path:
    "What two processes left behind that nothing happened to."
    folder = tmp_path_factory.mktemp("inspected")
    process = start(folder, "be_inspected")
    _, complaint = end(process)
    assert process.returncode == 0, complaint
    return folder


@pytest.fixture(scope="module")
def answers(inspected) -> list[dict]:
    "What each of the two processes found."
    return [json.loads((inspected / f"{number}.json").read_text()) for number in range(2)]


@pytest.fixture(scope="module")
def whole(inspected) -> Path:
    "The run that is not killed."
    return inspected / "whole"


@MEASURES
def test_two_processes_learn_what_one_learns(answers, column):
    def measured(curve): return [value for value in curve.column(column) if value is not None]
    alone = measured(train(small_gpt(), small_corpus(), BRIEF))
    for answer in answers:
        averaged = measured(LearningCurve(answer["averaged"]))
        assert averaged == pytest.approx(alone, rel=1e-5, abs=0)
    unaveraged = measured(LearningCurve(answers[0]["unaveraged"]))
    assert unaveraged != pytest.approx(alone, rel=1e-4, abs=0)


def test_what_processes_say_to_each_other(answers):
    said = [2, 3.0, False, True, "", "b" * 1000, None, "torch.bfloat16", "torch.bfloat16"]
    assert [answer["said"] for answer in answers] == [said, said]


def test_two_processes_forget_different_things(answers):
    first, second = (answer["logits"] for answer in answers)
    assert first["0.0"] == second["0.0"]
    assert first["0.5"] != second["0.5"]


def test_only_the_first_process_touches_the_files(answers):
    names = [Path(path).name.lstrip(".") for path in answers[0]["written"]]
    kinds = {re.sub(r"\W\d.*", "", name) for name in names}
    assert kinds >= {"run.json", "checkpoint", "curve.csv"}
    assert not answers[1]["written"]


def test_two_processes_that_are_killed_end_with_the_same_bits(tmp_path, whole):
    generator = random.Random(0)
    for turn in range(3):
        process = start(tmp_path)
        if turn == 0: time.sleep(generator.uniform(1, 4))  # while the processes come up
        else:
            read_until_step(generator.randrange(1, 20), process)
            time.sleep(generator.uniform(0, 0.05))
        if generator.random() < 0.6: kill_all(process)
        else: kill_one(process, generator)
        end(process)
        assert process.returncode != 0
    process = start(tmp_path)
    _, complaint = end(process)
    assert process.returncode == 0, complaint
    assert_same_end(tmp_path, whole, CONFIG.steps)
    assert not list(tmp_path.glob(".*.minigpt-partial"))


@pytest.mark.parametrize("name, reason", [
    ("afresh", "holds a run already"), ("resume", "every checkpoint in .* is damaged"),
])
def test_all_processes_of_a_refused_run_end_with_the_same_sentence(tmp_path, name, reason):
    folder = tmp_path / name
    train(small_gpt(), small_corpus(), BRIEF, folder / "run", on_step=lambda *_: True)
    for path in checkpoints(folder / "run"): path.write_bytes(b"damaged")
    end(start(folder, "be_refused"))
    said = [(folder / f"{number}.txt").read_text() for number in range(2)]
    assert said[0] == said[1] and re.match(f"ValueError: .*{reason}", said[0])


def test_when_a_process_dies_the_others_end_as_well(tmp_path):
    process = start(tmp_path)
    ranks = read_until_step(12, process)
    assert sorted(family(process)) == sorted([process.pid, *ranks.values()])
    kill(ranks[1])
    end(process)
    assert process.returncode > 0 and not family(process)
    step = load_checkpoint(tmp_path)["step"]
    assert step >= 10 and step % CONFIG.checkpoint_every == 0


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends processes with their parent")
def test_a_killed_torchrun_leaves_no_process_that_trains_on(tmp_path):
    process = start(tmp_path)
    read_until_step(3, process)
    kill(process.pid)
    said, _ = end(process)
    assert "ended after" not in said and not family(process)


def test_a_request_to_stop_reaches_all_processes_wherever_it_arrives(tmp_path, whole):
    reached = 0
    for receiver, number in ("torchrun", signal.SIGTERM), (1, signal.SIGINT):
        process = start(tmp_path)
        ranks = read_until_step(12, process)
        os.kill({"torchrun": process.pid, **ranks}[receiver], number)
        said, complaint = end(process)
        stops = re.findall(r"ended after (\d+)", said)
        assert len(stops) == 2 and stops[0] == stops[1], complaint
        assert f"stopped after {stops[0]} of {CONFIG.steps} steps" in said
        assert reached + 12 <= load_checkpoint(tmp_path)["step"] == int(stops[0]) < CONFIG.steps
        reached = int(stops[0])
    process = start(tmp_path)
    end(process)
    assert process.returncode == 0
    assert_same_end(tmp_path, whole, CONFIG.steps)


# precision


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_half_precision_learns_nearly_what_float32_learns(precision):
    exact, rough = (
        train(small_gpt(), small_corpus(), BRIEF, compute=Compute(precision=name))
        .column("train_loss")[:-1] for name in ("float32", precision)
    )
    assert rough == pytest.approx(exact, rel=0.03) and rough != exact
    assert rough[-1] < rough[0]


SCALER = torch.amp.GradScaler


class Overflowing(SCALER):
    "Its scale is too large at first and again every few steps: some updates are left out."
    def __init__(self, *given, **options):
        super().__init__(*given, **options, init_scale=2.0**24, growth_interval=3)


class Forgetful(Overflowing):
    def load_state_dict(self, state): pass


def half_run(run_dir: Path, precision: str = "float16", **options) -> LearningCurve:
    compute = Compute(precision=precision)
    return train(small_gpt(dropout=0.3), small_corpus(), BRIEF, run_dir, compute=compute, **options)


def stopped_and_gone_on_with(run_dir: Path) -> LearningCurve:
    half_run(run_dir, on_step=lambda model, curve: len(curve.rows) == 25)
    return half_run(run_dir, resume=True)


def test_a_run_in_float16_goes_on_with_the_same_bits(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.amp, "GradScaler", Overflowing)
    once = half_run(tmp_path / "once")
    left_out = [not math.isfinite(norm) for norm in once.column("gradient_norm")[:-1]]
    assert any(left_out[25:]) and not all(left_out[25:])
    stopped_and_gone_on_with(tmp_path / "twice")
    assert_same_end(tmp_path / "twice", tmp_path / "once", BRIEF.steps)
    ours, theirs = load_checkpoint(tmp_path / "twice"), load_checkpoint(tmp_path / "once")
    assert ours["scaler"] == theirs["scaler"] and ours["scaler"]["scale"] != 2.0**24
    monkeypatch.setattr(torch.amp, "GradScaler", Forgetful)
    assert not stopped_and_gone_on_with(tmp_path / "forgetful").same_as(once)


@pytest.mark.parametrize("before, after", [("float16", "float32"), ("float32", "float16")])
def test_a_run_goes_on_in_another_precision(tmp_path, before, after):
    half_run(tmp_path, before, on_step=lambda model, curve: len(curve.rows) == 5)
    assert len(half_run(tmp_path, after, resume=True).rows) == BRIEF.steps + 1


# devices


def test_a_device_that_is_not_there():
    said = (r"^cuda:0 cannot compute with PyTorch .* on Kaggle choose the accelerator GPU T4 x2; "
            ".* for example cpu$")
    with pytest.raises(RuntimeError, match=said): choose_device("cuda")


@pytest.mark.skipif(torch.cuda.device_count() > 1, reason="here there is a second GPU")
def test_each_process_asks_for_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(RuntimeError, match="^cuda:1 cannot compute"): choose_device("cuda")


def test_a_gpu_that_this_pytorch_does_not_serve(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *device: "Tesla P100-PCIE-16GB")
    said = "^Tesla P100-PCIE-16GB cannot compute .* GPU T4 x2"
    with pytest.raises(RuntimeError, match=said): choose_device()


def test_a_gpu_that_does_not_even_say_its_name(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(RuntimeError, match="GPU T4 x2"): choose_device()


@pytest.mark.skipif(torch.cuda.is_available(), reason="here auto is a GPU")
def test_without_a_gpu_the_cpu_is_chosen():
    assert choose_device() == choose_device("cpu") == CPU
    model = small_gpt()
    made = Compute("auto").prepare(model, CONFIG), Compute().prepare(model, CONFIG)
    assert [(one.device, one.precision) for one in made] == [(CPU, torch.float32)] * 2


GPUS = {"T4": (False, torch.float16), "L4": (True, torch.bfloat16)}


@pytest.mark.parametrize("native, precision", GPUS.values(), ids=GPUS)
def test_the_precision_of_a_gpu_is_one_that_it_has_natively(monkeypatch, native, precision):
    def is_supported(including_emulation=True): return including_emulation or native
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", is_supported)
    assert native_precision(torch.device("cuda")) == precision


# ids in a file


PLAY = "To be, or not to be: that is the question.\n" * 40
MIXED = "aé€😀\r\n\r\r\n" * 30 + "x"


def encoded(folder: Path, content: str | bytes, **options) -> tuple[Path, IdFile]:
    "A text as a file, and its ids."
    folder.mkdir(exist_ok=True)
    path = folder / "play.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    write_ids(path, folder / "ids", **options)
    return path, IdFile(folder / "ids")


def parts_of(file: IdFile) -> list[torch.Tensor]:
    "Training, validation and test set, as ids."
    train_ids, test_ids = (ids[torch.arange(len(ids))] for ids in (file.train, file.test))
    return [train_ids, file.validation, test_ids]


def all_ids(file: IdFile) -> torch.Tensor: return torch.cat(parts_of(file))


UNEVEN = PLAY + "to be " * 50  # no two of its parts are the same
LENGTHS = {
    "1720": PLAY, "1723": PLAY + "End", "2020": UNEVEN, "with a mark in front": "\ufeff" + PLAY,
}


@pytest.mark.parametrize("content", LENGTHS.values(), ids=LENGTHS)
def test_ids_in_a_file_are_learnt_like_a_text_in_memory(tmp_path, content):
    path, file = encoded(tmp_path, content, vocab_size=24)
    corpus = load_corpus(path)
    assert (file.name, file.sha256) == (corpus.name, corpus.sha256)
    assert train(small_gpt(), file, BRIEF).same_as(train(small_gpt(), corpus, BRIEF))


@pytest.mark.parametrize("content", [*LENGTHS.values(), *(PLAY[:n] for n in range(20, 40))])
def test_ids_in_a_file_have_the_parts_that_a_text_in_memory_has(tmp_path, content):
    path, file = encoded(tmp_path, content, vocab_size=24)
    corpus = load_corpus(path)
    texts = corpus.train, corpus.validation, corpus.test
    for ids, text in zip(parts_of(file), texts, strict=True):
        assert torch.equal(ids, file.tokenizer.encode(text))


def test_the_test_set_of_ids_in_a_file_is_that_of_a_text_in_memory(tmp_path, capsys):
    path, file = encoded(tmp_path, UNEVEN, vocab_size=24)
    corpus, model, losses = load_corpus(path), small_gpt().eval(), []
    for one in file, corpus: losses.append(runs.evaluate_test(model, one, file.tokenizer))
    assert losses[0] == losses[1] > 0
    said = capsys.readouterr().out
    assert said.count("The test set of play.txt was opened (202 characters)") == 2


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 8192, 4_000_000])
def test_no_character_is_lost_between_two_chunks(tmp_path, chunk):
    content = MIXED * 40  # more bytes than are read at once
    _, file = encoded(tmp_path, content, chunk=chunk)
    content = content.replace("\r\n", "\n").replace("\r", "\n")
    assert torch.equal(all_ids(file), CharTokenizer.fit(content).encode(content))
    assert file.sha256 == core.sha256(content)


@pytest.mark.parametrize("vocab_size, width", [(256, 1), (257, 2), (400, 2)])
def test_a_vocabulary_of_more_than_256_characters_takes_two_bytes_each(tmp_path, vocab_size, width):
    content = "".join(map(chr, range(0x4E00, 0x4E00 + 500))) * 3
    _, file = encoded(tmp_path, content, vocab_size=vocab_size)
    assert (tmp_path / "ids" / "ids.bin").stat().st_size == width * len(content)
    assert file.tokenizer.vocab_size == vocab_size
    assert torch.equal(all_ids(file), CharTokenizer.fit(content, vocab_size).encode(content))


NOT_UTF8 = {
    "at the beginning": b"caf\xe9 " * 100,
    "behind what the characters are chosen by": b"a" * 10_100_000 + b"\xff",
}


@pytest.mark.parametrize("content", NOT_UTF8.values(), ids=NOT_UTF8)
def test_a_file_that_is_not_utf8_leaves_nothing_behind(tmp_path, content):
    said = r"play.txt is not UTF-8 text \(.*\): save it as UTF-8 first"
    with pytest.raises(ValueError, match=said): encoded(tmp_path, content)
    assert not list((tmp_path / "ids").iterdir())


NO_TEXT = {"empty": (b"", "empty"), "NUL": (b"PK\0\0" * 100, "NUL")}


@pytest.mark.parametrize("content, complaint", NO_TEXT.values(), ids=NO_TEXT)
def test_a_file_that_is_no_text_leaves_no_ids(tmp_path, content, complaint):
    with pytest.raises(ValueError, match=complaint): encoded(tmp_path, content)
    assert not (tmp_path / "ids" / "ids.json").exists()


def test_a_file_of_ids_that_was_cut(tmp_path):
    encoded(tmp_path, PLAY)
    os.truncate(tmp_path / "ids" / "ids.bin", 1000)
    said = "ids.bin does not have the 1,720 ids that it should: delete .*ids and write it again"
    with pytest.raises(ValueError, match=said): IdFile(tmp_path / "ids")


@pytest.mark.parametrize("content", ["", "{", "{}", "[]", '{"name": "play.txt"}'])
def test_a_damaged_description_of_ids(tmp_path, content):
    encoded(tmp_path, PLAY)
    (tmp_path / "ids" / "ids.json").write_text(content)
    with pytest.raises(ValueError): IdFile(tmp_path / "ids")


def test_ids_of_other_characters(tmp_path):
    _, file = encoded(tmp_path, PLAY, vocab_size=24)
    said = "play.txt was encoded with other characters: leave the tokenizer out, or write the ids"
    with pytest.raises(ValueError, match=said):
        train(small_gpt(), file, BRIEF, tokenizer=CharTokenizer.fit("abc", vocab_size=24))


def test_ids_that_are_too_few(tmp_path):
    _, file = encoded(tmp_path, PLAY[:100], vocab_size=24)
    said = ("the validation set of play.txt has 10 characters, too few for a window of "
            "context_length=16 and its targets")
    with pytest.raises(ValueError, match=said): train(small_gpt(), file, BRIEF)


def write_description(folder: Path, length: int) -> None:
    with open(folder / "ids.bin", "rb") as ids:
        digest = hashlib.file_digest(ids, "sha256").hexdigest()
    about = {"name": "large.txt", "sha256": "0" * 64, "length": length, "dtype": "uint8",
             "chars": CharTokenizer.fit("a").chars,
             "ids_sha256": digest}
    (folder / "ids.json").write_text(json.dumps(about))


def test_at_most_a_million_characters_are_held_out_and_none_of_them_learnt(tmp_path):
    lengths = [11_000_000, 1_000_000, 1_000_000]
    np.repeat(np.array([0, 1, 2], "uint8"), lengths).tofile(tmp_path / "ids.bin")
    write_description(tmp_path, sum(lengths))
    file = IdFile(tmp_path)
    for expected, ids, length in zip([0, 1, 2], parts_of(file), lengths, strict=True):
        assert len(ids) == length and ids.min() == ids.max() == expected
    with pytest.raises(IndexError): file.train[torch.tensor([11_000_000])]


def test_a_large_text_is_encoded_once_and_another_in_its_place_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(corpora, "LARGE", 1000)
    path, other = tmp_path / "play.txt", tmp_path / "other.txt"
    path.write_text(PLAY)
    other.write_text(PLAY.upper())
    assert isinstance(open_corpus(str(path), tmp_path), IdFile)
    written = (tmp_path / "ids" / "ids.bin").stat().st_mtime_ns
    again = open_corpus(str(path), tmp_path)
    assert again.sha256 == core.sha256(PLAY)
    assert (tmp_path / "ids" / "ids.bin").stat().st_mtime_ns == written
    train(small_gpt(vocab_size=77), again, BRIEF, tmp_path,
          on_step=lambda model, curve: len(curve.rows) == 5)
    with pytest.raises(ValueError, match="holds the ids of another text than .*other.txt: choose"):
        open_corpus(str(other), tmp_path)


def test_a_billion_characters_are_learnt_in_less_than_a_gibibyte(tmp_path):
    with open(tmp_path / "ids.bin", "wb") as file: file.truncate(10**9)  # takes no disk
    write_description(tmp_path, 10**9)
    shell = ["sh", "-c", '"$@"; exit $?', "sh"]  # Linux counts the memory of the one that starts us
    command = [*shell, sys.executable, __file__, str(tmp_path), "learn_from_a_billion"]
    options = {"stdout": subprocess.PIPE, "check": True, "text": True, "timeout": 120}
    rows, kibibytes = map(int, subprocess.run(command, **options).stdout.split()[-2:])
    assert rows == 20 and 100 * 2**10 < kibibytes < 2**20


if __name__ == "__main__":
    with process_group(): globals()[sys.argv[2]](Path(sys.argv[1]))


# how long it takes


def test_a_prediction_is_arithmetic_or_launches_whichever_takes_longer():
    size, config = GPTConfig.kaggle(), TrainConfig.kaggle(steps=10)
    arithmetic = predicted_seconds(size, config, 65e12)
    assert arithmetic == pytest.approx(10 * 87_471_360 * 4096 / 65e12 / 0.4, rel=1e-3)
    assert predicted_seconds(size, config, 65e12, launch_seconds=1e-9) == arithmetic
    assert predicted_seconds(size, config, 1e18, launch_seconds=1e-5) == pytest.approx(10 * 595e-5)
