"Every exercise: unanswered it stops nothing, its solution is right, and plausible wrong answers are told what is wrong."
import inspect

import pytest

from minigpt_course import exercises
from mutations import EXERCISES, NOTEBOOKS, TABLE, changed, verdict, wrong_answers
from right_answers import RIGHT
from wrong_answers import WRONG

EACH = pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: f"{exercise.notebook[:2]}-{exercise.checker}")


@EACH
def test_unanswered_it_says_so_and_goes_on(exercise):
    assert verdict(exercise, exercise.template).right is None


@EACH
def test_its_solution_is_right(exercise):
    said = verdict(exercise, exercise.solution)
    assert said.right, said.words


@EACH
def test_other_right_answers_are_right_as_well(exercise):
    said = {what: verdict(exercise, code) for what, code in changed(exercise, RIGHT.get(exercise.checker, []))}
    assert {what: verdict.words for what, verdict in said.items() if not verdict.right} == {}


@EACH
@pytest.mark.parametrize("thing", ["'abc'", "None", "[1, 2]", "3", "float('nan')"])
def test_a_thing_of_another_kind_is_not_right_and_stops_nothing(exercise, thing):
    names = exercise.call.partition("(")[2].rstrip(")").split(", ")
    said = {answer: verdict(exercise, "\n".join(f"{name} = {answer}" for name in names)) for answer in (thing, f"lambda *anything: {thing}")}
    assert [answer for answer, what in said.items() if what.right] == []


@EACH
def test_three_wrong_answers_at_least_are_told_what_is_wrong(exercise):
    said = {why: verdict(exercise, code) for why, code in wrong_answers(exercise)}
    assert len(said) >= 3 and [why for why, what in said.items() if what.right is not False or len(what.words) < 15] == []


@EACH
def test_it_has_hints_help_and_a_solution(exercise):
    assert [part for part in ("Hint 1", "Hint 2", "If you see", "A solution", "minutes", "*To ") if part not in exercise.text] == []


def test_each_notebook_has_three_to_five():
    counts = {path.stem: sum(exercise.notebook == path.stem for exercise in EXERCISES) for path in NOTEBOOKS}
    assert len(counts) == 14 and {name: count for name, count in counts.items() if not 3 <= count <= 5} == {}


def test_every_checker_has_one_exercise_and_wrong_answers():
    checkers = sorted(name for name, function in inspect.getmembers(exercises, inspect.isfunction) if name.startswith("check_") and hasattr(function, "__wrapped__"))
    assert checkers == sorted(exercise.checker for exercise in EXERCISES) == sorted(WRONG)
    assert RIGHT.keys() <= WRONG.keys()


def test_the_table_of_wrong_answers_is_fresh():
    rows = [line.split(" | ")[0][2:] for line in TABLE.read_text(encoding="utf-8").splitlines() if line.startswith("| ") and " | " in line and not line.startswith("| wrong answer")]
    assert rows == [why for exercise in EXERCISES for why, _ in wrong_answers(exercise)], "run make mutations"
