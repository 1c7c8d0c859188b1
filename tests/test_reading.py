"""How the numbered notebooks read: their length, their words, their numbers.

`python tests/test_reading.py 03` prints what is counted for a notebook and what is wrong with it.
"""
import json
import re
import sys
from pathlib import Path

import pytest

NBS = Path(__file__).parents[1] / "nbs"
PAGES = sorted(NBS.glob("[0-9]*.ipynb"))[:13]  # 14 is nothing but exercises
# words and code lines before the exercises: at most seven tenths and eleven twentieths of the first
# edition's, and never more than 1,500 and 220; but 02 has a page on gradients, 05 shows how depth
# is measured, 06 derives the first loss, 07 saves and loads by hand, 08 shows the code of its mask
# and its window, 11 explains the induction circuit, 12 splits a product by hand, and 13 has a page
# to show; 08, 11 and 12 have a section on the full model besides
MOST = {
    "01": (1178, 183),
    "02": (1400, 179),
    "03": (1050, 129),
    "04": (965, 100),
    "05": (1080, 125),
    "06": (1116, 160),
    "07": (1485, 233),
    "08": (1480, 216),
    "09": (1500, 220),
    "10": (1500, 220),
    "11": (1390, 233),
    "12": (1580, 245),
    "13": (900, 220),
}
# what the course does not say, since the field has a word of its own
PRIVATE = re.compile(
    r"\b(exams?|examin\w+|lessons?|held-out|dice|slopes?|learn\w* by heart|by heart|safety belt"
    r"|table of (?:characters|positions)|rulers?|landmarks?|ladders?|rungs?|patients?|ill(?:ness)?"
    r"|illnesses|wards?|recipes?|newborn|give or take|million million|desks?|bench|films?|bends?"
    r"|turn-offs?|two means|half the digits|roads?|surprise)\b", re.IGNORECASE)
IMAGES = {"02": {"surprise"}, "05": {"road"}, "09": {"patient"}}  # once, where an idea is first met
NUMBER = re.compile(r"(?<![\w.,])\d[\d,]*\.\d{2,}(?![\w.])")


def cells_of(path: Path) -> list[dict]:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [cell | {"source": "".join(cell["source"])} for cell in cells]


def read_cells(path: Path) -> list[dict]:
    "The cells before the exercises, without those exercises that stand in the middle of the page."
    kept, inside = [], False
    for cell in cells_of(path):
        if re.search(r"^## Exercises", cell["source"], re.MULTILINE): break
        inside = inside or cell["source"].startswith("### Exercise ")
        if not inside: kept.append(cell)
        if "<summary>A solution</summary>" in cell["source"]: inside = False
    return kept


def prose(path: Path) -> str:
    return "\n".join(cell["source"] for cell in read_cells(path) if cell["cell_type"] == "markdown")


def code_lines(cells: list[dict]) -> list[str]:
    lines = [line for cell in cells if cell["cell_type"] == "code"
             for line in cell["source"].splitlines()]
    return [line for line in lines if line.strip() and not line.lstrip().startswith("#|")]


def measure(path: Path) -> tuple[int, int]:
    "Words and code lines before the exercises."
    return len(prose(path).split()), len(code_lines(read_cells(path)))


def said(cell: dict) -> str:
    "The text of a code cell and of its stored outputs."
    texts = [cell["source"]]
    for output in cell.get("outputs", []):
        texts += output.get("text", [])
        texts += [text for kind, parts in output.get("data", {}).items()
                  if kind.startswith("text/") for text in parts]
    return "".join(texts)


def numbers(text: str) -> list[float]:
    found = re.findall(r"(?<![\w.])\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?", text)
    return [float(number.replace(",", "")) for number in found]


def unfounded(path: Path) -> list[str]:
    "Numbers in the prose, of two decimals or more, that no code and no stored output holds."
    known = [number for cell in cells_of(path) if cell["cell_type"] == "code"
             for number in numbers(said(cell))]
    known += [100 * number for number in known]
    text = re.sub(r"\$.*?\$|`[^`]*`", " ", prose(path), flags=re.DOTALL)

    def founded(written: str) -> bool:
        digits = len(written.partition(".")[2])
        value = float(written.replace(",", ""))
        return any(abs(number - value) <= 0.5001 * 10**-digits for number in known)
    return [written for written in NUMBER.findall(text) if not founded(written)]


def private_words(path: Path) -> list[str]:
    found = [word.lower() for word in PRIVATE.findall(prose(path))]
    return [word for word in found if word not in IMAGES.get(path.stem[:2], ())]


def over(paths: list[Path]):
    return pytest.mark.parametrize("page", paths, ids=[path.stem for path in paths])


@over(PAGES)
def test_it_is_short_enough(page):
    words, lines = measure(page)
    most_words, most_lines = MOST[page.stem[:2]]
    assert words <= most_words and lines <= most_lines


@over(sorted(NBS.rglob("*.ipynb")))
def test_no_line_of_code_is_wider_than_100_characters(page):
    code = [cell for cell in cells_of(page) if cell["cell_type"] == "code"]
    assert [line[:60] for line in code_lines(code) if len(line) > 100] == []


@over(PAGES)
def test_the_fields_words_are_used(page):
    assert private_words(page) == []


@over(PAGES)
def test_numbers_in_the_text_were_computed(page):
    assert unfounded(page) == []


@over(PAGES)
def test_it_opens_with_its_question_and_one_visible_import_cell(page):
    first = cells_of(page)[0]["source"]
    assert re.match(r"# .*\n\n\*\*.*\?\*\*\n", first)
    seen = [cell["source"] for cell in cells_of(page)[1:8] if cell["cell_type"] == "code"
            and not cell["metadata"].get("jupyter", {}).get("source_hidden")]
    assert "import " in seen[0]


@over(PAGES)
def test_three_exercises_are_the_core_and_one_stands_in_the_middle(page):
    sources = [cell["source"] for cell in cells_of(page)]
    text = "\n".join(sources)
    heads = re.findall(r"^### (?:Exercise )?\d · .*$", text, re.MULTILINE)
    assert len([head for head in heads if head.endswith("· core")]) == 3
    assert "### Exercise " in text.split("\n## Exercises")[0]


TERM = re.compile(r"^\| ([^|]+) \| ([^|]+) \| \[(\d\d)\]", re.MULTILINE)


def bold_terms(path: Path) -> list[str]:
    "The terms that a page introduces: what is bold and neither a question nor a sentence."
    last = next(cell["source"] for cell in cells_of(path) if "## Exercises" in cell["source"])
    text = prose(path) + last.split("## Exercises")[0]
    found = [" ".join(words.split()) for words in re.findall(r"\*\*([^*]+)\*\*", text)]
    return [words.lower() for words in found if words[-1] not in "?."]


def test_each_term_stands_in_the_glossary_with_the_page_that_introduces_it():
    index = "\n".join(cell["source"] for cell in cells_of(NBS / "index.ipynb"))
    glossary = {term.lower(): page for term, _, page in TERM.findall(index)}
    terms = [(term, path.stem[:2]) for path in PAGES for term in bold_terms(path)]
    assert sorted(terms) == sorted(glossary.items())


def report(path: Path) -> str:
    words, lines = measure(path)
    wide = [line[:60] for line in code_lines(cells_of(path)) if len(line) > 100]
    return (f"{path.stem}: {words} words, {lines} lines (at most {MOST[path.stem[:2]]})\n"
            f"  too wide: {wide}\n  private words: {private_words(path)}\n"
            f"  numbers from nowhere: {unfounded(path)}")


if __name__ == "__main__":
    for page in PAGES:
        if not sys.argv[1:] or page.stem.startswith(tuple(sys.argv[1:])): print(report(page))
