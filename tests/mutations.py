"""The exercises as the notebooks print them, and what their checkers say. `python tests/mutations.py` writes the table of wrong answers, mutations.md."""
import ast, json, re
from pathlib import Path
from typing import NamedTuple

from wrong_answers import WRONG

NOTEBOOKS = sorted((Path(__file__).parents[1] / "nbs").glob("[0-9]*.ipynb"))
TABLE = Path(__file__).with_name("mutations.md")


class Exercise(NamedTuple):
    notebook: str
    title: str
    imports: str  # what the notebook has imported
    template: str  # the cell as the reader finds it
    solution: str  # the code of the folded solution
    text: str  # all the words around the cell
    call: str  # exercises.check_...(...)

    @property
    def checker(self) -> str: return re.match(r"exercises\.(check_\w+)", self.call)[1]


def imports_of(source: str) -> list[str]:
    "The imports at the top level of a cell."
    try: body = ast.parse(source).body
    except SyntaxError: return []  # a cell with a magic
    return [ast.unparse(node) for node in body if isinstance(node, (ast.Import, ast.ImportFrom))]


def exercises_of(path: Path) -> list[Exercise]:
    "The exercises of a notebook."
    cells = [(cell["cell_type"], "".join(cell["source"])) for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]]
    imports, found = "\n".join(line for kind, source in cells if kind == "code" for line in imports_of(source)), []
    for i, (kind, source) in enumerate(cells):
        *answer, call = source.splitlines() or [""]
        if kind != "code" or not call.startswith("exercises.check_"): continue
        before, after = cells[i - 1][1], cells[i + 1][1]
        title = re.findall(r"^### (\d · .*?) [●○]+", before, re.MULTILINE)[-1]
        solution = re.search(r"^~~~python\n(.*?)^~~~$", after, re.DOTALL | re.MULTILINE)[1]
        found.append(Exercise(path.stem, title, imports, "\n".join(answer), solution, before[before.rindex("### ") :] + after.split("\n### ")[0], call))
    return found


EXERCISES = [exercise for path in NOTEBOOKS for exercise in exercises_of(path)]


def verdict(exercise: Exercise, answer: str):
    "What the checker says to an answer."
    names = {}
    exec(exercise.imports, names)
    exec(answer, names)
    return eval(exercise.call, names)


def changed(exercise: Exercise, changes: list[tuple[str, str, str]]) -> list[tuple[str, str]]:
    "The printed solution with one change each: what is different, and the code. `ValueError` if one is no change."
    for _, before, _ in changes:
        if before not in exercise.solution: raise ValueError(f"{exercise.checker}: {before!r} does not stand in the solution")
    return [(what, exercise.solution.replace(before, after)) for what, before, after in changes]


def wrong_answers(exercise: Exercise) -> list[tuple[str, str]]:
    "The wrong answers to an exercise: why a learner writes it, and the code. `KeyError` if there are none."
    return changed(exercise, WRONG[exercise.checker])


def table() -> str:
    "All wrong answers and what is said to them, as Markdown."
    lines = ["# What the checkers say to wrong answers", "", "Made by `make mutations`. Each row is the printed solution with one change that a learner would make.", ""]
    for exercise in EXERCISES:
        lines += [f"## {exercise.notebook}, exercise {exercise.title}", "", "| wrong answer | what the checker says |", "|---|---|"]
        for why, code in wrong_answers(exercise):
            words = " ".join(verdict(exercise, code).words.split()).replace("|", "\\|")
            lines.append(f"| {why} | {words} |")
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__": TABLE.write_text(table(), encoding="utf-8")
