"""The exercises as the notebooks print them, and what their checkers say.

`python tests/mutations.py` writes the table of wrong answers, mutations.md.
"""
import ast
import importlib
import json
import re
from pathlib import Path
from typing import NamedTuple

from minigpt_course.checks import ch07
from wrong_answers import WRONG

ch07.SECONDS = 30.0  # of training, where a reader has ten minutes
NOTEBOOKS = sorted((Path(__file__).parents[1] / "nbs").glob("[0-9]*.ipynb"))
TABLE = Path(__file__).with_name("mutations.md")
CALL = re.compile(r"(ch\d\d)\.(check_\w+)\(")


class Exercise(NamedTuple):
    notebook: str
    title: str
    imports: str  # what the notebook has imported
    template: str  # the cell as the reader finds it
    solution: str  # the code of the folded solution
    text: str  # all the words around the cell
    call: str  # chNN.check_...(...)

    @property
    def checks(self) -> str:
        "The module of the checker."
        return CALL.match(self.call)[1]

    @property
    def checker(self) -> str:
        return CALL.match(self.call)[2]


def imports_of(source: str) -> list[str]:
    "The imports at the top level of a cell."
    try:
        body = ast.parse(source).body
    except SyntaxError:  # a cell with a magic
        return []
    return [ast.unparse(node) for node in body if isinstance(node, (ast.Import, ast.ImportFrom))]


def exercise_of(
    notebook: str,
    imports: str,
    before: str,  # the text in front of the cell
    source: str,  # of the cell
    after: str,  # the text behind it
) -> Exercise:
    "An exercise, from the cell that ends in the call of its checker and the text around it."
    *answer, call = source.splitlines()
    title = re.findall(r"^### (?:Exercise )?(\d · .*?) [●○]+", before, re.MULTILINE)[-1]
    solution = re.search(r"^~~~python\n(.*?)^~~~$", after, re.DOTALL | re.MULTILINE)[1]
    text = before[before.rindex("### ") :] + after.split("\n### ")[0]
    return Exercise(notebook, title, imports, "\n".join(answer), solution, text, call)


def exercises_of(path: Path) -> list[Exercise]:
    "The exercises of a notebook."
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = [cell["cell_type"] == "code" for cell in cells]
    sources = ["".join(cell["source"]) for cell in cells]
    lines = [imports_of(source) for source, is_code in zip(sources, code) if is_code]
    imports = "\n".join(line for some in lines for line in some)
    ends = [i for i, source in enumerate(sources)
            if code[i] and source and CALL.match(source.splitlines()[-1])]
    return [exercise_of(path.stem, imports, *sources[i - 1 : i + 2]) for i in ends]


EXERCISES = [exercise for path in NOTEBOOKS for exercise in exercises_of(path)]


def verdict(exercise: Exercise, answer: str):
    "What the checker says to an answer."
    names = {}
    exec(exercise.imports, names)
    names[exercise.checks] = importlib.import_module(f"minigpt_course.checks.{exercise.checks}")
    exec(answer, names)
    return eval(exercise.call, names)


def changed(
    exercise: Exercise,
    changes: list[tuple[str, str, str]],  # what is different, text in the solution, its new form
) -> list[tuple[str, str]]:  # what is different, and the code
    "The printed solution with one change each; raises `ValueError` if one is no change."
    for _, before, _ in changes:
        if before not in exercise.solution:
            raise ValueError(f"{exercise.checker}: {before!r} does not stand in the solution")
    return [(what, exercise.solution.replace(before, after)) for what, before, after in changes]


def wrong_answers(exercise: Exercise) -> list[tuple[str, str]]:
    "The wrong answers: why a learner writes it, and the code; raises `KeyError` if there are none."
    return changed(exercise, WRONG[exercise.checker])


def table() -> str:
    "All wrong answers and what is said to them, as Markdown."
    lines = ["# What the checkers say to wrong answers", "", "Made by `make mutations`. "
             "Each row is the printed solution with one change that a learner would make.", ""]
    for exercise in EXERCISES:
        lines.append(f"## {exercise.notebook}, exercise {exercise.title}")
        lines += ["", "| wrong answer | what the checker says |", "|---|---|"]
        for why, code in wrong_answers(exercise):
            words = " ".join(verdict(exercise, code).words.split()).replace("|", "\\|")
            lines.append(f"| {why} | {words} |")
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    TABLE.write_text(table(), encoding="utf-8")
