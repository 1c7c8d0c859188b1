"The command `minigpt`: what it says, what it leaves, and how it ends."
import importlib
import importlib.metadata
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from configparser import ConfigParser
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch

from conftest import assert_same_end, small_corpus
import minigpt_course
from minigpt_course import cli, devices, saved
from minigpt_course.devices import PRECISIONS, Compute
from minigpt_course.generate import generate
from minigpt_course.gpt import GPTConfig, parameter_ledger
from minigpt_course.optimizers import OPTIMIZERS
from minigpt_course.runs import LearningCurve, load_checkpoint
from minigpt_course.saved import WEIGHTS, notes_of, published
from minigpt_course.share import load, save


def start(*line, code=("-m", "minigpt_course"), **options) -> subprocess.Popen:
    "The command in a process of its own."
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1",
                                "PYTHONIOENCODING": "utf-8"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "encoding": "utf-8"}
    command = [sys.executable, *code, *map(str, line)]
    return subprocess.Popen(command, env=environment, **pipes, **options)


def ended(process: subprocess.Popen) -> tuple[int, str, str]:
    "Its exit code and what it said."
    said, complained = process.communicate(timeout=300)
    return process.returncode, said, complained


@pytest.fixture
def called(monkeypatch, capsys):
    """Calls the command without a process of its own, which takes seconds to start; an error that
    it does not catch fails the test."""
    def call(*line) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["minigpt", *map(str, line)])
        with pytest.raises(SystemExit) as end: cli.main()
        return end.value.code or 0, *capsys.readouterr()
    return call


def training(folder) -> list:
    "The line that trains on a text next to the run's folder."
    (folder.parent / "hamlet.txt").write_text(small_corpus().text)
    where = ["--corpus", folder.parent / "hamlet.txt", "--run-dir", folder, "--device", "cpu"]
    return ["train", *where, "--steps", 30, "--batch-size", 2, "--eval-every", 15]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    "The folder of a run that nothing happened to."
    folder = tmp_path_factory.mktemp("cli") / "run"
    code, said, complained = ended(start(*training(folder)))
    assert code == 0 and "Traceback" not in complained
    assert f"that model is in {folder / 'model'}: minigpt generate {folder}" in said
    return folder


def assert_refused(answer, complaint):
    code, said, complained = answer
    assert (code, said) == (1, "")
    assert re.fullmatch(f"minigpt: .*{complaint}.*\n", complained), complained


def assert_same_weights(model, other) -> None:
    ours, theirs = model.state_dict(), other.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(weights.equal(theirs[name]) for name, weights in ours.items())


# train


def test_a_run_leaves_its_curve_its_samples_and_its_model(trained):
    names = {path.name for path in trained.iterdir()}
    assert names > {"run.json", "curve.csv", "samples.txt", "model"}
    assert (trained / "model" / "minigpt.json").is_file()
    curve = LearningCurve.from_csv(trained / "curve.csv")
    samples = (trained / "samples.txt").read_text(encoding="utf-8")
    sampled = [int(step) for step in re.findall("^--- step (\\d+),", samples, re.MULTILINE)]
    assert [step for step, _ in curve.validation()] == sampled == [0, 15, 30]
    (model, tokenizer), (best, others) = load(trained / "model"), load(trained)
    assert tokenizer.chars == others.chars and model.config == best.config == GPTConfig.laptop()
    assert_same_weights(model, best)


def test_a_run_is_not_overwritten_and_the_way_out_is_named(trained, called):
    before = {path: path.stat().st_mtime_ns for path in trained.rglob("*")}
    said = "holds a run already: go on with --resume, or choose another --run-dir"
    assert_refused(called(*training(trained)), f"{re.escape(str(trained))} {said}")
    assert before == {path: path.stat().st_mtime_ns for path in trained.rglob("*")}


def test_a_run_that_is_asked_to_stop_goes_on_as_if_nothing_had_happened(trained, tmp_path):
    process = start(*training(tmp_path / "run"))
    while not process.stdout.readline().startswith("step 0:"): assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    code, said, _ = ended(process)
    assert code == 3
    assert 0 < load_checkpoint(tmp_path / "run")["step"] < 30 and load(tmp_path / "run" / "model")
    code, _, complained = ended(start(*training(tmp_path / "run"), "--resume"))
    assert code == 0 and "Traceback" not in complained
    assert_same_end(tmp_path / "run", trained, 30)
    for name in "samples.txt", "model/minigpt.json":
        assert (tmp_path / "run" / name).read_bytes() == (trained / name).read_bytes()
    assert "the same line with --resume" in said


def test_a_missing_corpus(tmp_path, called):
    missing, folder = tmp_path / "missing.txt", tmp_path / "run"
    answer = called("train", "--corpus", missing, "--run-dir", folder)
    assert_refused(answer, f"no text file at {re.escape(str(missing))}")
    assert not folder.exists()


def test_the_seed_is_also_that_of_the_first_weights():
    size = {"embed_dim": 16, "num_heads": 2, "num_blocks": 1}
    first, same, other = (cli.begun(None, "laptop", size, seed)[0].lm_head.weight
                          for seed in (0, 0, 1))
    assert first.equal(same) and not first.equal(other)


def test_the_optimizer_is_chosen_by_name_and_kept_with_the_run(tmp_path, called):
    line = [*training(tmp_path / "run"), "--steps", 4]
    code, _, _ = called(*line, "--optimizer", "muon")
    about = json.loads((tmp_path / "run" / "run.json").read_text())
    assert code == 0 and about["training"]["optimizer"] == "muon"
    code, _, complained = called(*line, "--resume")
    assert code == 1 and "there --optimizer 'muon', here --optimizer 'adamw'" in complained


def test_compiling_threads_and_accumulating_reach_the_library(tmp_path, called, monkeypatch):
    asked = []
    def compute(device, precision, compile, threads, accumulate):
        asked.append((precision, compile, threads, accumulate))
        return Compute(device, precision, compile and "eager", threads, accumulate)
    monkeypatch.setattr(devices, "Compute", compute)
    line = ["--steps", 2]
    assert called(*training(tmp_path / "run"), *line, "--compile", "--accumulate", 2)[0] == 0
    assert called(*training(tmp_path / "shared"), *line, "--threads", 2)[0] == 0
    assert asked == [("auto", True, 1, 2), ("auto", False, 2, 1)]
    for options, sentence in (
            (["--accumulate", 3], "--accumulate 3 is more than the 2 sequences"),
            (["--threads", 0], "--threads 0 must be a whole number of at least 1"),
            (["--threads", 2, "--compile"], "leave out compile or threads")):
        code, _, complained = called(*training(tmp_path / "other"), *options)
        assert code == 1 and sentence in complained, complained


def test_a_line_that_is_refused_leaves_no_run(tmp_path, called):
    code, _, complained = called(*training(tmp_path / "run"), "--prompt", "")
    assert code == 1 and "the prompt is empty" in complained
    assert not (tmp_path / "run" / "run.json").exists()


# generate, info, export


def test_the_text_is_reproducible_and_the_librarys(trained, called):
    line = ["--length", 80, "--prompt", "To be", "--seed", 5]
    text = generate(*load(trained), "To be", 80, temperature=0.8, seed=5)
    for folder in trained, trained, trained / "model":
        assert called("generate", folder, *line) == (0, text + "\n", "")


def test_the_characters_come_as_they_are_drawn(trained):
    process = start("generate", trained, "--length", 1_000_000, "--prompt", "To be", "--seed", 5)
    # a command that keeps its text back would run for long
    watch = threading.Timer(120, process.kill)
    watch.start()
    text = "".join(process.stdout.read(1) for _ in range(85))
    watch.cancel()
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert text == generate(*load(trained), "To be", 80, temperature=0.8, seed=5)


def test_info_counts_every_parameter_and_shows_the_curve(trained, called):
    (code, said, complained), (model, tokenizer) = called("info", trained), load(trained)
    counted = re.findall(r"^ +([\d,]+)  (\D+)$", said, re.MULTILINE)
    counts = {name: int(count.replace(",", "")) for count, name in counted}
    total = counts.pop("parameters")
    assert (code, complained) == (0, "") and counts == parameter_ledger(model.config)
    assert total == sum(counts.values()) == sum(weights.numel() for weights in model.parameters())
    curve = LearningCurve.from_csv(trained / "curve.csv")
    shown = re.findall(r"step (\d+)  validation loss (\S+)", said)
    assert shown == [(str(step), f"{loss:.4f}") for step, loss in curve.validation()]
    assert repr(tokenizer.chars) in said
    for name, value in vars(model.config).items():
        assert re.search(rf"^ *{name}  {value}$", said, re.MULTILINE)


@torch.no_grad()
def test_what_is_exported_opens_in_transformers(trained, tmp_path, called):
    transformers = pytest.importorskip("transformers")
    code, said, _ = called("export", trained, tmp_path)
    (model, _), idx = load(trained), torch.randint(77, (1, 64))
    twin = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert code == 0 and said == f"written: {', '.join(names)}\n"
    torch.testing.assert_close(model(idx), twin(idx).logits, rtol=0, atol=2e-5)
    assert f"| {notes_of(trained)['validation loss']} |" in (tmp_path / "README.md").read_text()


def test_what_is_exported_plain_opens_with_load(trained, tmp_path, called):
    code, said, _ = called("export", trained, tmp_path, "--plain")
    (model, tokenizer), (best, others) = load(tmp_path), load(trained)
    assert code == 0 and said.startswith("written: minigpt.json, weights-")
    assert tokenizer.chars == others.chars and notes_of(tmp_path) == notes_of(trained)
    assert_same_weights(model, best)


def test_a_page_holds_what_is_known_of_the_model(trained, tmp_path, called):
    code, said, _ = called("export", trained, tmp_path / "page.html", "--page")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert code == 0 and re.fullmatch(r"written: .*page.html \([\d,]+ bytes\): open .*\n", said)
    assert re.search(r"facts.>[\d,]+ parameters · corpus .* · step \d+ · validation loss", page)


def test_a_page_is_a_file_and_no_other_format(trained, tmp_path, called):
    assert_refused(called("export", trained, tmp_path, "--page"), ".* is a folder: name a file")
    two = "--plain and --page are two ways to write: choose one"
    assert_refused(called("export", trained, tmp_path / "new", "--page", "--plain"), two)


def test_without_transformers_the_extra_is_named(trained, tmp_path, called, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    said = r"(transformers|tokenizers).*: pip install '\.\[share\]' in the course's folder"
    assert_refused(called("export", trained, tmp_path), said)


# what it says, and what it refuses


def test_the_entry_point_is_there():
    settings = ConfigParser()
    settings.read(Path(__file__).parents[1] / "settings.ini", encoding="utf-8")
    name, _, place = settings["DEFAULT"]["console_scripts"].partition("=")
    module, _, function = place.partition(":")
    assert name == "minigpt" and callable(getattr(importlib.import_module(module), function))
    assert importlib.metadata.entry_points(group="console_scripts", name="minigpt")


def test_ctrl_c_during_imports_ends_in_one_line():
    code = ("import importlib.abc, os, signal, sys\n"
            "class Interrupt(importlib.abc.MetaPathFinder):\n"
            "    def find_spec(self, name, *_):\n"
            "        if name == 'torch': os.kill(os.getpid(), signal.SIGINT)\n"
            "sys.meta_path.insert(0, Interrupt())\n"
            "sys.argv = ['minigpt', 'generate', 'pydocs']\n"
            "from minigpt_course.__main__ import main; main()")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "minigpt: interrupted\n")


def test_a_run_that_diverges_ends_with_4_and_says_what_to_do(tmp_path, called):
    folder = tmp_path / "my run"
    line = [*training(folder), "--learning-rate", 1e5]
    code, said, complained = called(*line)
    last = complained.strip().splitlines()[-1]
    assert code == 4 and re.fullmatch(
        r"minigpt: training diverged at step \d+, .*; its best model is kept, and minigpt train "
        rf'--from "{folder}" --learning-rate 10000 '
        rf'--run-dir "{folder}-again" begins a new run from it, '
        "given its --corpus and --preset", last)
    assert "at step 0, before any training; that model is in" in said
    assert load(folder) and load(folder / "model")
    assert called(*line, "--resume")[0] == 4  # bit for bit


def test_help_says_how_training_ends(called):
    said = " ".join(called("train", "--help")[1].split())
    assert "1 after an error, 3 if it was stopped, and 4 if it diverged" in said


def test_samples_that_cannot_be_written_do_not_end_a_run(trained, tmp_path, called):
    (tmp_path / "run" / "samples.txt").mkdir(parents=True)
    code, said, _ = called(*training(tmp_path / "run"))
    assert code == 0 and said.count("samples.txt could not be written") == 3
    assert_same_end(tmp_path / "run", trained, 30)


def test_a_model_whose_weights_are_not_finite_is_refused(trained, tmp_path, called, monkeypatch):
    model, tokenizer = load(trained)
    torch.nn.init.constant_(model.blocks[0].norm1.weight, torch.nan)
    with monkeypatch.context() as patch:
        patch.setattr(saved, "check_finite", lambda model: None)  # as an earlier version saved it
        save(model, tokenizer, tmp_path)
    said = r"blocks.0.norm1.weight holds numbers that are not finite: .* smaller learning rate"
    for verb in "generate", "info": assert_refused(called(verb, tmp_path), said)
    with pytest.raises(ValueError, match=said): generate(model, tokenizer, "To be", 5)


def test_help_lists_the_commands_and_the_way_to_go_on(called):
    code, said, complained = called("--help")
    assert (code, complained) == (0, "")
    commands = re.findall(r"^  (\w+)  +[A-Z]", said, re.MULTILINE)
    assert commands == ["train", "generate", "info", "export"]
    code, said, _ = called("train", "--help")
    assert code == 0 and "--resume" in said


NOT_UNDERSTOOD = [
    ["train", "--stpes", 3], ["train", "--steps", "three"], ["train", "--preset", "phone"],
    ["train", "--optimizer", "lion"], ["train", "--precision", "float8"], ["generate"], ["fly"],
]


@pytest.mark.parametrize("line", NOT_UNDERSTOOD, ids=str)
def test_a_line_that_cannot_be_understood(called, line):
    code, said, complained = called(*line)
    assert (code, said) == (2, "") and "Traceback" not in complained and "Error: " in complained


MISSING = [
    ["generate", "missing"], ["info", "missing"], ["export", "missing", "new"],
    ["export", "missing", "new", "--plain"],
]


@pytest.mark.parametrize("line", MISSING, ids=str)
def test_a_model_that_is_missing(monkeypatch, tmp_path, called, line):
    monkeypatch.chdir(tmp_path)
    assert_refused(called(*line), "no saved model in missing: there is no minigpt.json")
    assert not list(tmp_path.iterdir())


def test_an_error_is_one_line_in_a_process_too(tmp_path):
    assert_refused(ended(start("info", tmp_path / "missing")), "no saved model in .*missing")


@pytest.mark.parametrize("option, value, complaint", [
    ("--temperature", -1, "--temperature -1.0 must be a number of at least 0"),
    ("--top-k", 78, "--top-k 78 must be from 1 to the 77 characters"),
    ("--top-p", 2, "--top-p 2.0 must be above 0"),
    ("--length", -1, "--length -1 must be a whole number of at least 0"),
    ("--prompt", "", "the prompt is empty"),
])
def test_sampling_that_makes_no_sense(trained, called, option, value, complaint):
    assert_refused(called("generate", trained, option, value), complaint)


DAMAGED = ["", "{", "{}", "[]", '{"model": {"size": 1}, "chars": "ab"}']


@pytest.mark.parametrize("content", DAMAGED)
def test_a_run_whose_identity_is_damaged(tmp_path, called, content):
    (tmp_path / "run.json").write_text(content)
    assert_refused(called("info", tmp_path), re.escape(str(tmp_path)))


def test_whoever_looks_for_the_cause_gets_the_traceback_before_the_sentence(
        called, monkeypatch, tmp_path):
    monkeypatch.setenv("MINIGPT_DEBUG", "1")
    code, _, complained = called("info", tmp_path)
    assert code == 1
    assert re.fullmatch(r"Traceback .*\n\w+Error: .*\nminigpt: [^\n]+\n", complained, re.DOTALL)
    monkeypatch.setenv("MINIGPT_DEBUG", "0")
    assert_refused(called("info", tmp_path), "no saved model in .*")


# what a reader types


def test_help_and_version_load_nothing_heavy():
    code = ("import sys; from minigpt_course import cli; assert not {'torch', 'numpy', "
            "'matplotlib', 'ipywidgets', 'transformers'} & set(sys.modules)")
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_names_that_can_be_chosen_are_the_librarys():
    assert [each.value for each in cli.Precision] == ["auto", *PRECISIONS]
    assert {each.value for each in cli.Optimizer} == set(OPTIMIZERS)


def test_the_version(called):
    assert called("--version")[:2] == (0, f"{minigpt_course.__version__}\n")


@pytest.mark.parametrize("line, complaint", [
    (["train", "--steps", "0"], "--steps 0 must be a whole number of at least 1"),
    (["train", "--batch-size", "9" * 30], "--batch-size 9+ must be less than 2"),
    (["train", "--seed", str(2**64)], "--seed 18446744073709551616 must be less than 2"),
    (["train", "--learning-rate", "-1"], "--learning-rate -1.0 must be a number above 0"),
    (["train", "--num-heads", "5"], "heads must divide --embed-dim: 96 % 5 = 1; try --num-heads"),
    (["train", "--dropout", "1"], "--dropout 1.0 must be at least 0 and less than 1"),
    (["train", "--vocab-size", "1"], "--vocab-size 1 cannot be had"),
    (["train", "--context-length", "300000"], "or a smaller --context-length"),
    (["train", "--prompt", ""], "the prompt is empty"),
    (["train", "--from", "pydocs", "--embed-dim", "64"], "leave out --embed-dim"),
    (["generate", "pydocs", "--length", "-1"], "--length -1 must be a whole number of at least 0"),
    (["generate", "pydocs", "--top-k", "0"], "--top-k 0 must be from 1 to the 77"),
    (["generate", "pydocs", "--num-samples", "0"], "--num-samples 0 must be a whole number"),
    (["generate", "pydocs", "--prompt-file", "missing"], "missing"),
    (["generate", "pydocs", "--seed", str(2**64)], "--seed 18446744073709551616"),
], ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "")
def test_errors_speak_of_options(called, monkeypatch, tmp_path, line, complaint):
    monkeypatch.chdir(tmp_path)
    code, _, said = called(*line)
    assert code == 1 and re.search(complaint, said), said
    assert not re.search(r"[a-z]_[a-z]|\w=", said.replace("'", "")), said
    assert not (tmp_path / "runs" / "laptop" / "run.json").exists()


def test_unknown_characters_of_a_prompt_are_reported(called):
    code, out, said = called("generate", "pydocs", "--prompt", "Über", "--length", 5)
    assert code == 0 and "does not know 'Ü'" in said and out.startswith("Über")
    assert called("generate", "pydocs", "--prompt", "over", "--length", 5)[2] == ""


def test_several_samples_from_a_file(called, tmp_path):
    (tmp_path / "prompt.txt").write_text("def ", encoding="utf-8")
    line = ["generate", "pydocs", "--prompt-file", tmp_path / "prompt.txt", "--length", 20]
    code, out, _ = called(*line, "--num-samples", 3, "--seed", 5)
    texts = re.split(r"--- sample \d of 3\n", out)[1:]
    assert code == 0 and len(texts) == 3 and all(text.startswith("def ") for text in texts)
    assert called(*line, "--seed", 6)[1] == texts[1]


@pytest.mark.parametrize("said", [
    "num_heads_8 holds a run already", "minigpt train --from batch_size_32 goes on",
    "no text file at data/num_chars.txt: give", "No such file or directory: 'prompt_file.txt'"])
def test_a_file_that_is_named_like_an_option_keeps_its_name(said):
    assert cli.in_words_of_the_command(said) == said


def test_what_is_said_while_a_model_is_loaded_is_no_part_of_the_text(trained, tmp_path, called):
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    (tmp_path / f"checkpoint-00000099-{'0' * 16}.pt").write_bytes(b"")
    code, said, complained = called("generate", tmp_path, "--length", 5)
    assert code == 0 and "passed over" not in said and "is passed over" in complained


def test_only_what_was_written_is_said_to_be(trained, tmp_path, called):
    (tmp_path / "mine.txt").write_text("mine")
    code, said, _ = called("export", trained, tmp_path, "--plain")
    assert code == 0 and said.startswith("written: minigpt.json, ") and "mine.txt" not in said


def test_the_line_at_the_end_works_for_a_folder_with_a_space(tmp_path, called):
    code, said, _ = called(*training(tmp_path / "my run"), "--steps", 2)
    line = said.strip().split("minigpt generate ")[1]
    assert code == 0 and shlex.split(line) == [str(tmp_path / "my run")]


def test_info_for_programs_is_one_object_whatever_else_is_said(trained, tmp_path, called):
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    (tmp_path / f"checkpoint-00000099-{'0' * 16}.pt").write_bytes(b"")
    code, said, complained = called("info", tmp_path, "--json")
    assert code == 0 and json.loads(said)["config"] and "is passed over" in complained


def test_info_for_programs(called):
    about = json.loads(called("info", "pydocs", "--json")[1])
    assert about["config"]["vocab_size"] == 77 == len(about["characters"])
    assert sum(about["parameters"].values()) == 225_677


SMALL = ["--context-length", 16, "--embed-dim", 16, "--num-heads", 2, "--num-blocks", 1,
         "--vocab-size", 12, "--batch-size", 2, "--device", "cpu"]


def test_a_run_goes_on_from_a_models_weights_with_its_characters(called, tmp_path):
    (tmp_path / "one.txt").write_text("to be or not to be. " * 100)
    (tmp_path / "two.txt").write_text("zebras sleep in zoos. " * 100)
    first = ["train", "--corpus", tmp_path / "one.txt", "--run-dir", tmp_path / "one",
             "--steps", 5, *SMALL]
    assert called(*first)[0] == 0
    model, tokenizer = load(tmp_path / "one")
    assert model.config.embed_dim == 16 and tokenizer.vocab_size == 12
    on = ["train", "--from", tmp_path / "one", "--corpus", tmp_path / "two.txt", "--steps", 1,
          "--learning-rate", 1e-9, "--run-dir", tmp_path / "two", "--batch-size", 2,
          "--dropout", 0.5, "--device", "cpu"]
    code, out, said = called(*on)
    assert code == 0 and "outside the vocabulary of 12" in out, said
    after, others = load(tmp_path / "two")
    assert others.chars == tokenizer.chars and after.config.dropout == 0.5
    pairs = zip(model.parameters(), after.parameters())
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in pairs)
    code, _, said = called(*first, "--steps", 9, "--resume")
    assert code == 1 and "minigpt train --from" in said


def test_a_prompt_file_that_is_not_utf8_is_named(trained, called, tmp_path):
    (tmp_path / "prompt.txt").write_bytes("Über".encode("latin-1"))
    code, _, said = called("generate", trained, "--prompt-file", tmp_path / "prompt.txt")
    assert code == 1 and re.search(r"prompt\.txt is not UTF-8 .*: save it as UTF-8", said)


def test_too_large_a_vocabulary_is_refused_before_the_model_is_made(called, tmp_path):
    line = training(tmp_path / "run")
    assert "50,000 is the most" in called(*line, "--vocab-size", 100_000_000)[2]


def test_a_path_is_not_taken_for_an_option():
    said = cli.in_words_of_the_command("/home/me/run_dir and runs/seed=3 hold batch_size=3")
    assert said == "/home/me/run_dir and runs/seed=3 hold --batch-size 3"


@pytest.mark.parametrize("name", published())
def test_the_line_of_a_model_card_works(called, name):
    card = (WEIGHTS / name / "README.md").read_text(encoding="utf-8")
    line = shlex.split(re.search(r"^minigpt (.*)$", card, re.MULTILINE)[1])
    code, _, complained = called(*line, "--length", 5)
    assert (code, complained) == (0, "")
    rows = [row for row in card.splitlines() if row.startswith("|")]
    assert all(row.count("|") - row.count(r"\|") == 3 for row in rows)
