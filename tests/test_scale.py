"Two processes train like one and survive being killed; ids in a file train like a text in memory. Run as a script under torchrun, this file is one of the processes."
import json, math, os, random, re, signal, subprocess, sys, time
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
import torch.distributed as dist

from conftest import assert_same_end, small_corpus, small_gpt
from minigpt_course import scale, text
from minigpt_course.gpt import GPT, GPTConfig
from minigpt_course.corpus import IdFile, open_corpus, write_ids
from minigpt_course.devices import choose_device, native_precision, process_group
from minigpt_course.reference import judge, reference_band
from minigpt_course.scale import assemble
from minigpt_course.corpus import load_corpus
from minigpt_course.text import CharTokenizer
from minigpt_course.train import train
from minigpt_course.runs import LearningCurve, load_checkpoint
from minigpt_course.train import TrainConfig

CPU = torch.device("cpu")
CONFIG = TrainConfig(steps=200, batch_size=4, warmup_steps=5, eval_every=50, checkpoint_every=5)
BRIEF = TrainConfig(steps=50, batch_size=4, learning_rate=1e-3, warmup_steps=5, eval_every=10)
MEASURES = pytest.mark.parametrize("column", ["train_loss", "validation_loss", "gradient_norm"])


# what one of the processes does


class Unaveraged(DeviceEngine):
    "Each process goes its own way."
    def prepare(self, model, config): return model


def go_on(folder: Path) -> None:
    "The run that is killed and stopped, begun or gone on with."
    say(f"process {os.getpid()} is rank {dist.get_rank()}")
    say_each_step = (lambda model, curve: say(f"step {len(curve.rows)}")) if dist.get_rank() == 0 else None
    curve = train(small_gpt(dropout=0.3), small_corpus(), CONFIG, folder, resume=True, on_step=say_each_step, engine=DeviceEngine(CPU))
    say(f"ended after {len(curve.rows)}")


def say(line: str) -> None: print(line + "\n", end="")  # in one piece: others write to the same pipe, and torchrun leaves it unbuffered


def be_examined(folder: Path) -> None:
    "Everything that is asked of two processes that are left alone, in one start."
    written, run_dir = [], folder / "run"
    sys.addaudithook(lambda event, seen: written.append(str(seen[0])) if event in ("open", "os.rename") and str(seen[0]).startswith(str(run_dir)) else None)
    curves = {engine.__name__: train(small_gpt(), small_corpus(), BRIEF, run_dir if engine is DeviceEngine else None, engine=engine(CPU)).rows for engine in (DeviceEngine, Unaveraged)}
    answers = {"curves": curves, "written": written, "logits": {str(dropout): logits_on_the_same_window(dropout) for dropout in (0.0, 0.5)}}
    (folder / f"{dist.get_rank()}.json").write_text(json.dumps(answers))
    go_on(folder / "whole")


def logits_on_the_same_window(dropout: float) -> list[float]:
    "What this process's model says in a step in which all processes have the same window."
    model, seen = small_gpt(dropout=dropout), []
    model.register_forward_hook(lambda module, given, logits: seen.extend(logits.flatten().tolist()))
    torch.manual_seed(0)
    DeviceEngine(CPU).step(model, torch.optim.SGD(model.parameters()), torch.zeros(2, 16, dtype=torch.long), torch.zeros(2, 16, dtype=torch.long), 1.0)
    return seen


def learn_from_a_billion(folder: Path) -> None:
    "Training on a large file, and the most memory in KiB that this process ever had."
    import resource
    from minigpt_course import bigram, train as training
    training.evaluate = lambda model, ids, context_length: bigram.evaluate(model, ids[:50_000], context_length)  # less time, as much memory
    curve = train(GPT(GPTConfig.laptop()), IdFile(folder), TrainConfig.laptop(), on_step=lambda model, curve: len(curve.rows) == 20)
    print(len(curve.rows), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


# two processes


def start(folder: Path, job: str = "go_on") -> subprocess.Popen:
    "A job, done by two processes that torchrun starts."
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", __file__, str(folder), job]
    alone = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=alone | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"})


def end(process: subprocess.Popen) -> tuple[str, str]:
    "What was said until the last process of a run has gone: until then its output stays open."
    try: return process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        kill_all(process)
        raise


def read_until_step(step: int, process: subprocess.Popen) -> dict[str, int]:
    "Wait until that many steps are said since the start; which rank is which process."
    ranks, seen = {}, 0
    while seen < step:
        line = process.stdout.readline()
        assert line, process.stderr.read()
        seen += line.startswith("step")
        if named := re.match(r"process (\d+) is rank (\d)", line): ranks[int(named[2])] = int(named[1])
    return ranks


def family(process: subprocess.Popen) -> list[int]:
    "The living processes of a run: torchrun and its workers have the same folder in their command lines."
    return [one.pid for one in psutil.process_iter(["cmdline"]) if process.args[-2] in (one.info["cmdline"] or [])]


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
    process = start(folder, "be_examined")
    _, complaint = end(process)
    assert process.returncode == 0, complaint
    return folder


@pytest.fixture(scope="module")
def answers(inspected) -> list[dict]:
    "What each of the two processes found."
    return [json.loads((inspected / f"{rank}.json").read_text()) for rank in range(2)]


@pytest.fixture(scope="module")
def whole(inspected) -> Path:
    "The run that is not killed."
    return inspected / "whole"


@MEASURES
def test_two_processes_learn_what_one_learns(answers, column):
    alone = train(small_gpt(), small_corpus(), BRIEF, engine=DeviceEngine(CPU)).column(column)
    for rank in range(2 if column != "validation_loss" else 1):
        assert LearningCurve(answers[rank]["curves"]["DeviceEngine"]).column(column) == pytest.approx(alone, rel=1e-5, abs=0, nan_ok=True)
    assert LearningCurve(answers[0]["curves"]["Unaveraged"]).column(column) != pytest.approx(alone, rel=1e-4, abs=0, nan_ok=True)


def test_two_processes_forget_different_things(answers):
    first, second = (answer["logits"] for answer in answers)
    assert first["0.0"] == second["0.0"]
    assert first["0.5"] != second["0.5"]


def test_only_the_first_process_touches_the_files(answers):
    assert {re.sub(r"\W\d.*", "", Path(path).name.lstrip(".")) for path in answers[0]["written"]} >= {"run.json", "checkpoint", "curve.csv"}
    assert not answers[1]["written"]


def test_a_batch_that_the_processes_cannot_share_equally():
    engine = DeviceEngine(CPU)
    engine.num_processes = 3
    with pytest.raises(ValueError, match="batch_size=4 cannot be shared equally by 3 processes: make it a multiple of 3"): engine.prepare(small_gpt(), CONFIG)


def test_two_processes_that_are_killed_ten_times_end_with_the_same_bits(tmp_path, whole):
    generator = random.Random(0)
    for turn in range(10):
        process = start(tmp_path)
        if turn < 3: time.sleep(generator.uniform(1, 4))  # while the processes come up
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
    assert not list(tmp_path.glob(".*.partial"))


def test_when_a_process_dies_the_others_end_as_well(tmp_path):
    process = start(tmp_path)
    ranks = read_until_step(12, process)
    assert sorted(family(process)) == sorted([process.pid, *ranks.values()])
    kill(ranks[1])
    end(process)
    assert process.returncode > 0 and not family(process)
    assert load_checkpoint(tmp_path)["step"] >= 10 and load_checkpoint(tmp_path)["step"] % CONFIG.checkpoint_every == 0


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


@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16])
def test_half_precision_learns_nearly_what_float32_learns(precision):
    exact, rough = (train(small_gpt(), small_corpus(), BRIEF, engine=DeviceEngine(CPU, kind)) for kind in (torch.float32, precision))
    losses = rough.column("train_loss")[:-1]
    assert losses == pytest.approx(exact.column("train_loss")[:-1], rel=0.03) and losses != exact.column("train_loss")[:-1]
    assert losses[-1] < losses[0]


class Overflowing(DeviceEngine):
    "In float16 with a scale that is too large at first and again every few steps, so that some updates are left out."
    def __init__(self):
        super().__init__(CPU, torch.float16)
        self.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**24, growth_interval=3)


class Forgetful(Overflowing):
    def load_state_dict(self, state): pass


def half_run(run_dir: Path, engine: DeviceEngine, **options) -> LearningCurve:
    return train(small_gpt(dropout=0.3), small_corpus(), BRIEF, run_dir, engine=engine, **options)


def stopped_and_gone_on_with(run_dir: Path, kind: type) -> LearningCurve:
    half_run(run_dir, kind(), on_step=lambda model, curve: len(curve.rows) == 25)
    return half_run(run_dir, kind(), resume=True)


def test_a_run_in_float16_goes_on_with_the_same_bits(tmp_path):
    once = half_run(tmp_path / "once", Overflowing())
    left_out = [not math.isfinite(norm) for norm in once.column("gradient_norm")[:-1]]
    assert any(left_out[25:]) and not all(left_out[25:])
    assert stopped_and_gone_on_with(tmp_path / "twice", Overflowing).same_as(once)
    ours, theirs = load_checkpoint(tmp_path / "twice"), load_checkpoint(tmp_path / "once")
    assert ours["engine"] == theirs["engine"] and ours["engine"]["scale"] != 2.0**24
    assert all(torch.equal(ours["model"][name], theirs["model"][name]) for name in theirs["model"])
    assert not stopped_and_gone_on_with(tmp_path / "forgetful", Forgetful).same_as(once)


@pytest.mark.parametrize("before, after", [(torch.float16, torch.float32), (torch.float32, torch.float16)])
def test_a_run_goes_on_in_another_precision(tmp_path, before, after):
    half_run(tmp_path, DeviceEngine(CPU, before), on_step=lambda model, curve: len(curve.rows) == 5)
    assert len(half_run(tmp_path, DeviceEngine(CPU, after), resume=True).rows) == BRIEF.steps + 1


# devices


def test_a_device_that_is_not_there():
    with pytest.raises(RuntimeError, match=r"^cuda:0 cannot compute with PyTorch .* on Kaggle choose the accelerator GPU T4 x2; .* for example cpu$"): choose_device("cuda")


def test_a_gpu_that_this_pytorch_does_not_serve(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *device: "Tesla P100-PCIE-16GB")
    with pytest.raises(RuntimeError, match=r"^Tesla P100-PCIE-16GB cannot compute .* GPU T4 x2"): choose_device()


def test_a_gpu_that_does_not_even_say_its_name(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(RuntimeError, match="GPU T4 x2"): choose_device()


@pytest.mark.skipif(torch.cuda.is_available(), reason="here auto is a GPU")
def test_without_a_gpu_the_processor_is_chosen_and_float32(): assert choose_device() == choose_device("cpu") == CPU and native_precision(CPU) == torch.float32


@pytest.mark.parametrize("native, precision", [(False, torch.float16), (True, torch.bfloat16)], ids=["T4", "L4"])
def test_the_precision_of_a_gpu_is_one_that_it_has_natively(monkeypatch, native, precision):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or native)
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


def all_ids(file: IdFile) -> torch.Tensor: return torch.cat([file.train[torch.arange(len(file.train))], file.validation])


@pytest.mark.parametrize("content", [PLAY, PLAY + "End", ("\ufeff" + PLAY)], ids=["1720", "1723", "with a mark in front"])
def test_ids_in_a_file_are_learnt_like_a_text_in_memory(tmp_path, content):
    path, file = encoded(tmp_path, content, vocab_size=24)
    corpus = load_corpus(path)
    assert (file.name, file.sha256) == (corpus.name, corpus.sha256)
    assert train(small_gpt(), file, BRIEF).same_as(train(small_gpt(), corpus, BRIEF))


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 8192, 4_000_000])
def test_no_character_is_lost_between_two_chunks(tmp_path, chunk):
    content = MIXED * 40  # more bytes than are read at once
    _, file = encoded(tmp_path, content, chunk=chunk)
    assert torch.equal(all_ids(file), CharTokenizer.fit(content).encode(content))
    assert file.sha256 == text.sha256(content)


@pytest.mark.parametrize("vocab_size, width", [(256, 1), (257, 2), (400, 2)])
def test_a_vocabulary_of_more_than_256_characters_takes_two_bytes_each(tmp_path, vocab_size, width):
    content = "".join(map(chr, range(0x4E00, 0x4E00 + 500))) * 3
    _, file = encoded(tmp_path, content, vocab_size=vocab_size)
    assert (tmp_path / "ids" / "ids.bin").stat().st_size == width * len(content)
    assert file.tokenizer.vocab_size == vocab_size and torch.equal(all_ids(file), CharTokenizer.fit(content, vocab_size).encode(content))


@pytest.mark.parametrize("content", [b"caf\xe9 " * 100, b"a" * 10_100_000 + b"\xff"], ids=["at the beginning", "behind what the characters are chosen by"])
def test_a_file_that_is_not_utf8_leaves_nothing_behind(tmp_path, content):
    with pytest.raises(ValueError, match=r"play.txt is not UTF-8 text \(.*\): save it as UTF-8 first"): encoded(tmp_path, content)
    assert not list((tmp_path / "ids").iterdir())


@pytest.mark.parametrize("content, complaint", [(b"", "empty"), (b"PK\0\0" * 100, "NUL")], ids=["empty", "NUL"])
def test_a_file_that_is_no_text_leaves_no_ids(tmp_path, content, complaint):
    with pytest.raises(ValueError, match=complaint): encoded(tmp_path, content)
    assert not (tmp_path / "ids" / "ids.json").exists()


def test_a_file_of_ids_that_was_cut(tmp_path):
    encoded(tmp_path, PLAY)
    os.truncate(tmp_path / "ids" / "ids.bin", 1000)
    with pytest.raises(ValueError, match=r"ids.bin does not have the 1,720 ids that it should: delete .*ids and write it again"): IdFile(tmp_path / "ids")


@pytest.mark.parametrize("content", ["", "{", "{}", "[]", '{"name": "play.txt"}'])
def test_a_damaged_description_of_ids(tmp_path, content):
    encoded(tmp_path, PLAY)
    (tmp_path / "ids" / "ids.json").write_text(content)
    with pytest.raises(ValueError): IdFile(tmp_path / "ids")


def test_ids_of_other_characters(tmp_path):
    _, file = encoded(tmp_path, PLAY, vocab_size=24)
    with pytest.raises(ValueError, match="play.txt was encoded with other characters: leave the tokenizer out, or write the ids again"):
        train(small_gpt(), file, BRIEF, tokenizer=CharTokenizer.fit("abc", vocab_size=24))


def test_ids_that_are_too_few(tmp_path):
    _, file = encoded(tmp_path, PLAY[:100], vocab_size=24)
    with pytest.raises(ValueError, match="the validation set of play.txt has 10 characters, too few for a window of context_length=16 and its targets"): train(small_gpt(), file, BRIEF)


def write_description(folder: Path, length: int) -> None:
    (folder / "ids.json").write_text(json.dumps({"name": "large.txt", "sha256": "0" * 64, "length": length, "dtype": "uint8", "chars": CharTokenizer.fit("a").chars}))


def test_at_most_a_million_characters_are_held_out_and_none_of_them_learnt(tmp_path):
    np.repeat(np.array([0, 1], "uint8"), [11_000_000, 1_000_000]).tofile(tmp_path / "ids.bin")
    write_description(tmp_path, 12_000_000)
    file = IdFile(tmp_path)
    assert len(file.validation) == 1_000_000 and file.validation.min() == 1
    assert len(file.train) == 11_000_000 and not file.train[torch.arange(len(file.train))].any()
    with pytest.raises(IndexError): file.train[torch.tensor([11_000_000])]


def test_a_large_text_is_encoded_once_and_another_in_its_place_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(scale, "LARGE", 1000)
    path, other = tmp_path / "play.txt", tmp_path / "other.txt"
    path.write_text(PLAY)
    other.write_text(PLAY.upper())
    assert isinstance(open_corpus(str(path), tmp_path), IdFile)
    written = (tmp_path / "ids" / "ids.bin").stat().st_mtime_ns
    assert open_corpus(str(path), tmp_path).sha256 == text.sha256(PLAY) and (tmp_path / "ids" / "ids.bin").stat().st_mtime_ns == written
    train(small_gpt(vocab_size=77), open_corpus(str(path), tmp_path), BRIEF, tmp_path, on_step=lambda model, curve: len(curve.rows) == 5)
    with pytest.raises(ValueError): train(small_gpt(vocab_size=77), open_corpus(str(other), tmp_path), BRIEF, tmp_path, resume=True)


def test_a_billion_characters_are_learnt_in_less_than_a_gibibyte(tmp_path):
    with open(tmp_path / "ids.bin", "wb") as file: file.truncate(10**9)  # takes no disk
    write_description(tmp_path, 10**9)
    command = ["sh", "-c", '"$@"; exit $?', "sh", sys.executable, __file__, str(tmp_path), "learn_from_a_billion"]  # sh: Linux counts the memory of the process that starts another
    rows, kibibytes = map(int, subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True, timeout=120).stdout.split()[-2:])
    assert rows == 20 and 100 * 2**10 < kibibytes < 2**20


# notebooks for Kaggle


STORY = """# A story

```python
first = 1
print("```")
```

In between.

```python
# files
```

```python
second = 2
```

The end."""
FILES = {"pieces/strange.py": '"""Quotes, {braces}, $HOME and %time."""\n!ls\n\n\nx = "é😀\\n"\n', "settings.ini": "[DEFAULT]\nlist = a\n\tb\n"}


def test_a_story_becomes_a_notebook_in_its_order():
    import nbformat  # takes as long as PyTorch, and the processes import this file
    notebook = nbformat.reads(json.dumps(assemble(STORY, FILES)), as_version=4)
    nbformat.validate(notebook)
    begins = [cell.source.splitlines()[0] for cell in notebook.cells]
    assert begins == ["# A story", "first = 1", "In between.", "%%writefile pieces/strange.py", "%%writefile settings.ini", "second = 2", "The end."]
    assert notebook.cells[1].source == 'first = 1\nprint("```")'
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)
    assert [cell.cell_type for cell in notebook.cells] == ["markdown", "code", "markdown", "code", "code", "code", "markdown"]


def test_the_files_of_a_notebook_are_written_as_they_were(tmp_path, monkeypatch):
    from IPython.core.interactiveshell import InteractiveShell
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pieces").mkdir()
    shell = InteractiveShell()
    for cell in assemble(STORY, FILES)["cells"]:
        if cell["cell_type"] == "code": shell.run_cell("".join(cell["source"])).raise_error()
    assert {path: (tmp_path / path).read_text(encoding="utf-8") for path in FILES} == FILES


# a run and its references


REFERENCES = [[(0, 4.0), (100, 2.0), (150, 1.8)], [(0, 4.0), (100, 2.2), (200, 1.5)]]


def test_a_band_has_the_steps_that_all_references_have():
    band = reference_band(REFERENCES)
    assert list(band) == [0, 100]
    assert band[0] == pytest.approx((3.99, 4.01)) and band[100] == pytest.approx((2.09 - 3 * 0.02**0.5, 2.11 + 3 * 0.02**0.5))  # 0.02 is the variance of 2.0 and 2.2


@pytest.mark.parametrize("references", [[], REFERENCES[:1]])
def test_a_band_needs_two_references(references):
    with pytest.raises(ValueError, match="a band needs two reference runs at least"): reference_band(references)


@pytest.mark.parametrize("validation, verdict", [
    ([(0, 4.0), (100, 2.1)], "inside the reference band at all 2 validations"),
    ([(0, 4.0), (50, 9.0), (100, 2.1)], "inside the reference band at all 2 validations"),
    ([(0, 4.4), (100, 2.0)], r"outside the reference band at 1 of 2 validations, first at step 0: 4.400, .*\(it does not begin like the reference: .*\)"),
    ([(0, 4.0), (100, 3.0)], r"outside the reference band at 1 of 2 validations, first at step 100: 3.000, .*\(it learns more slowly: .*\)"),
    ([(0, 3.5), (100, 1.0)], r"outside the reference band at 2 of 2 validations, first at step 0: 3.500, where the band is 3.990 to 4.010 \(it is better than it should be: .*\)"),
    ([(100, math.nan)], "outside the reference band at 1 of 1 validations.*"),
    ([(50, 2.0)], "no validation of this run is at a step of the reference: it cannot be judged"),
    ([], "no validation of this run is at a step of the reference: it cannot be judged"),
], ids=["inside", "a validation more", "begins too high", "above", "below", "not a number", "no common step", "no validation"])
def test_a_run_is_judged_by_its_references(validation, verdict): assert re.fullmatch(verdict, judge(validation, reference_band(REFERENCES)))


if __name__ == "__main__":
    with process_group(): globals()[sys.argv[2]](Path(sys.argv[1]))
