"""Runs the course's notebooks. `run`: in order, into the ignored folder _course/. `store`: the
same, and the outputs are kept in nbs/. `test`: each alone in an empty folder, two at a time. Give
numbers or names to pick notebooks."""
import base64
import copy
import io
import json
import os
import shutil
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from PIL import Image
from tqdm import tqdm

from derive import ROOT, clean, pictures

NBS, COURSE, ALONE = ROOT / "nbs", ROOT / "_course", ROOT / "_alone"
WEIGHTS = ROOT / "minigpt_course" / "weights"
RESULTS, MINUTES = COURSE / "runs" / "results.json", NBS / "minutes.json"
WIDGET = "application/vnd.jupyter.widget-view+json"
BAR = "{desc} {percentage:3.0f}% |{bar:24}| {n_fmt}/{total_fmt} cells, {elapsed}"
MEASURE = ("10_speed",)  # needs the machine for itself
THREADS = ("07_train", "10_speed", "12_scale", "devices")  # stored as a reader's machine runs them
TWICE = ("02_bigram",)  # `test` runs it twice in one kernel


class Failed(Exception):
    "A cell stopped with an error."


def chosen(picks: list[str]) -> list[Path]:
    "The notebooks in reading order, the appendix after them, or those that are picked."
    numbered, rest = sorted(NBS.glob("[0-9]*.ipynb")), sorted((NBS / "appendix").glob("*.ipynb"))
    notebooks = [*numbered, *rest, NBS / "index.ipynb"]
    for pick in picks:
        if any(path.stem.startswith(pick) for path in notebooks): continue
        names = ", ".join(path.stem for path in notebooks)
        sys.exit(f"no notebook begins with {pick!r}; there are: {names}")
    return [path for path in notebooks if not picks or path.stem.startswith(tuple(picks))]


def execute(
    path: Path,  # of a notebook
    folder: Path,  # where its kernel works
    times: int = 1,  # how often it is run from top to bottom
) -> tuple[nbformat.NotebookNode, float]:  # with its outputs, seconds
    """Run one notebook in a fresh kernel, with a progress bar over its cells; `Failed` at the first
    failure, naming notebook and cell."""
    folder.mkdir(parents=True, exist_ok=True)
    notebook = nbformat.read(path, as_version=4)
    notebook.cells = [copy.deepcopy(cell) for _ in range(times) for cell in notebook.cells]
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    client = NotebookClient(
        notebook, timeout=None, kernel_name="python3", coalesce_streams=True,
        resources={"metadata": {"path": str(folder)}}, extra_arguments=["--log-level=ERROR"],
        store_widget_state=False)
    started = time.perf_counter()
    with tqdm(total=len(code), desc=path.stem.ljust(14), unit="cell", bar_format=BAR) as bar:
        client.on_cell_executed = lambda cell, **_: bar.update(cell.cell_type == "code")
        # as in JupyterLab, where a control's picture and words are outputs of their own
        try: client.execute(env=os.environ | {"JPY_SESSION_NAME": path.name})
        except CellExecutionError as error:
            cell = next(cell for cell in code if any(
                out.output_type == "error" for out in cell.outputs))
            nbformat.write(notebook, folder / path.name)
            raise Failed(f"\n{path.relative_to(ROOT)}: code cell {code.index(cell) + 1} of "
                         f"{len(code)} failed (id {cell.id}):\n\n{cell.source}\n\n"
                         f"{error.ename}: {error.evalue}") from None
        except DeadKernelError:
            raise Failed(f"\n{path.relative_to(ROOT)}: its kernel died; if memory was short, "
                         "close other programs and run it again") from None
    return notebook, time.perf_counter() - started


def tidy(notebook: nbformat.NotebookNode) -> None:
    """What a stored page needs and no more: no progress bars (they are for waiting), of a control
    its picture and words without its dead view, pictures of few colours."""
    for cell in notebook.cells:
        if cell.cell_type != "code": continue
        for out in cell.outputs: out.get("data", {}).pop(WIDGET, None)
        cell.outputs = [out for out in cell.outputs
                        if out.get("name") != "stderr" and out.get("data", True)]
        for out in pictures(cell): out.data["image/png"] = few_colours(out.data["image/png"])


def few_colours(
    png: str,  # in base64
) -> str:
    "The same picture in 256 colours, which is as good to look at and a third as large."
    picture, small = Image.open(io.BytesIO(base64.b64decode(png))), io.BytesIO()
    if picture.mode == "P": return png
    picture = picture.convert("RGBA").quantize(method=Image.Quantize.FASTOCTREE)
    picture.save(small, "PNG", optimize=True)
    return base64.b64encode(small.getvalue()).decode()


def closing() -> str:
    "The losses, a sample by the model just trained, and where to look next."
    from minigpt_course.results import read_results
    results = read_results(path=RESULTS)
    lines = ["", "Losses (nats per character on the validation set):"]
    kinds = {"baseline": results["baselines"], "model": results["models"]}
    rows = [(loss, kind, name) for kind, losses in kinds.items() for name, loss in losses.items()]
    given = set(results["shipped"]) | (set() if RESULTS.exists() else set(results["baselines"]))
    for loss, kind, name in sorted(rows, reverse=True):
        whose = "  (comes with the course)" if name in given else ""
        lines.append(f"  {loss:6.3f}  {kind:10}{name}{whose}")
    sample = COURSE / "runs" / "sample.txt"
    if sample.exists():
        written = sample.read_text(encoding="utf-8").splitlines()
        lines += ["", "Written by the model in notebook 08:", ""]
        lines += [f"  | {line}" for line in written]
    return "\n".join([*lines, "", f"The executed notebooks are in {COURSE.relative_to(ROOT)}/. "
                      "Next: `make lab` opens the course; begin with 01_text.ipynb."])


def run(picks: list[str], store: bool) -> None:
    "Run the chosen notebooks in order; what they leave behind lies in _course/runs."
    if not picks: shutil.rmtree(COURSE, ignore_errors=True)
    for path in chosen(picks):
        if not picks and not path.stem[0].isdigit() and not store: continue
        if store and path.stem not in THREADS: one_thread()  # the same on every machine
        else: os.environ.pop("OMP_NUM_THREADS", None)
        inside = path.parent.relative_to(NBS)
        notebook, seconds = execute(path, COURSE / inside)
        tidy(notebook)
        nbformat.write(notebook, (NBS if store else COURSE) / inside / path.name)
        if store and path.stem[0].isdigit(): remember(path.stem, seconds)
    if store: clean(ROOT)
    else: print(closing())


def one_thread() -> None:
    "Let the next kernel compute with one thread."
    os.environ["OMP_NUM_THREADS"] = "1"


def remember(name: str, seconds: float) -> None:
    "What the index shows, how long each notebook takes, and the losses that ship with the library."
    times = json.loads(MINUTES.read_text()) if MINUTES.exists() else {}
    times |= {name: max(0.1, round(seconds / 60, 1))}
    MINUTES.write_text(json.dumps(times, indent=1, sort_keys=True) + "\n")
    if RESULTS.exists(): (WEIGHTS / "results.json").write_text(RESULTS.read_text() + "\n")


def alone(path: Path) -> str:
    "Run a notebook in an empty folder, some twice in one kernel; what went wrong, or nothing."
    # as deep as the notebook's own folder, so that its relative paths lead to the same files
    folder = ALONE / path.stem if path.parent.name == "appendix" else ROOT / f"_alone-{path.stem}"
    shutil.rmtree(folder, ignore_errors=True)
    if path.stem not in MEASURE: one_thread()
    for last in False, True:
        try: execute(path, folder, times=2 if path.stem in TWICE else 1)
        except Failed as failed: return str(failed)
        except RuntimeError:  # a port was taken between its choice and the kernel's start
            if last: raise
        else: return ""
        finally: shutil.rmtree(folder, ignore_errors=True)


def test(picks: list[str]) -> None:
    "Run each notebook alone, two at a time; exits naming what failed."
    minutes = json.loads(MINUTES.read_text())
    paths = sorted(chosen(picks), key=lambda path: -minutes.get(path.stem, 0.5))
    measuring = [path for path in paths if path.stem in MEASURE]
    with ProcessPoolExecutor(1) as one: failed = list(one.map(alone, measuring))
    with ProcessPoolExecutor(2) as two:
        failed += two.map(alone, [path for path in paths if path not in measuring])
    if any(failed): sys.exit("\n".join(filter(None, failed)))
    print(f"{len(paths)} notebooks ran, each alone in an empty folder")


COMMANDS = {"run": lambda picks: run(picks, False), "store": lambda picks: run(picks, True),
            "test": test}

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in COMMANDS: sys.exit(__doc__)
    try: COMMANDS[sys.argv[1]](sys.argv[2:])
    except Failed as failed: sys.exit(str(failed))
