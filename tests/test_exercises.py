"""Every exercise: unanswered it stops nothing, its solution is right.

Plausible wrong answers are told what is wrong.
"""
import importlib
import inspect
from pathlib import Path

import pytest

import minigpt_course.checks
from minigpt_course.checks import ch07
from minigpt_course.gpt import GPTConfig
from minigpt_course.train import TrainConfig
from mutations import EXERCISES, NOTEBOOKS, TABLE, changed, verdict, wrong_answers
from right_answers import RIGHT
from wrong_answers import WRONG

EACH = pytest.mark.parametrize(
    "exercise", EXERCISES, ids=lambda exercise: f"{exercise.notebook[:2]}-{exercise.checker}"
)
CHAPTERS = sorted(path.stem for path in Path(minigpt_course.checks.__path__[0]).glob("ch*.py"))
PARTS = ("Hint 1", "Hint 2", "If you see", "A solution", "minutes", "*To ")


@EACH
def test_unanswered_it_says_so_and_goes_on(exercise):
    assert verdict(exercise, exercise.template).right is None


@EACH
def test_its_solution_is_right(exercise):
    said = verdict(exercise, exercise.solution)
    assert said.right, said.words


@EACH
def test_other_right_answers_are_right_as_well(exercise):
    answers = changed(exercise, RIGHT.get(exercise.checker, []))
    said = {what: verdict(exercise, code) for what, code in answers}
    assert {what: answer.words for what, answer in said.items() if not answer.right} == {}


@EACH
@pytest.mark.parametrize("thing", ["'abc'", "None", "[1, 2]", "3", "float('nan')"])
def test_a_thing_of_another_kind_is_not_right_and_stops_nothing(exercise, thing):
    names = exercise.call.partition("(")[2].rstrip(")").split(", ")
    for answer in (thing, f"lambda *anything: {thing}"):
        said = verdict(exercise, "\n".join(f"{name} = {answer}" for name in names))
        assert not said.right, answer


@EACH
def test_three_wrong_answers_at_least_are_told_what_is_wrong(exercise):
    said = {why: verdict(exercise, code) for why, code in wrong_answers(exercise)}
    assert len(said) >= 3
    assert [why for why, what in said.items()
            if what.right is not False or len(what.words) < 15] == []


@EACH
def test_it_has_hints_help_and_a_solution(exercise):
    assert [part for part in PARTS if part not in exercise.text] == []


@EACH
def test_its_checker_is_the_one_of_its_chapter(exercise):
    assert exercise.checks == f"ch{exercise.notebook[:2]}"


def test_each_notebook_has_three_to_five():
    names = [exercise.notebook for exercise in EXERCISES]
    counts = {path.stem: names.count(path.stem) for path in NOTEBOOKS}
    assert len(counts) == 14
    assert {name: count for name, count in counts.items() if not 3 <= count <= 5} == {}


def checkers_of(chapter: str) -> list[str]:
    "The checkers of a module, which are wrapped, and no helper of one."
    module = importlib.import_module(f"minigpt_course.checks.{chapter}")
    return [name for name, function in inspect.getmembers(module, inspect.isfunction)
            if name.startswith("check_") and hasattr(function, "__wrapped__")]


def test_every_checker_has_one_exercise_and_wrong_answers():
    checkers = sorted(name for chapter in CHAPTERS for name in checkers_of(chapter))
    assert checkers == sorted(exercise.checker for exercise in EXERCISES)
    assert checkers == sorted(WRONG)
    assert RIGHT.keys() == WRONG.keys()


def test_the_table_of_wrong_answers_is_fresh():
    lines = TABLE.read_text(encoding="utf-8").splitlines()
    rows = [line[2:].split(" | ")[0] for line in lines if line.startswith("| ") and " | " in line]
    answers = [why for exercise in EXERCISES for why, _ in wrong_answers(exercise)]
    assert [row for row in rows if row != "wrong answer"] == answers, "run make mutations"


@pytest.mark.parametrize("checker, answer", [
    ("check_adamw_on_paper", "answer = 1.8, -1.05, ..."),
    ("check_attention_cost",
     "def attention_cost(C, H, T): return 3 * C * C, 3 * T * C * C, ..., ...")])
def test_numbers_that_are_still_to_come_are_named(checker, answer):
    exercise = next(each for each in EXERCISES if each.checker == checker)
    said = verdict(exercise, answer)
    assert said.right is False and "should be one number, and is Ellipsis" in said.words


def test_what_a_loss_is_compared_with_is_known_before_the_training(monkeypatch, corpus):
    monkeypatch.setattr(ch07, "known_losses", lambda *_: {"frequencies": 3.0})
    monkeypatch.setattr(ch07, "train", lambda *_, **__: pytest.fail("trained before"))
    size = GPTConfig.laptop(vocab_size=24)
    said = ch07.check_open_task(lambda seconds: (corpus, size, TrainConfig(steps=1)))
    assert said.right is False and "too many to be counted" in said.words
