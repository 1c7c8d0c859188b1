"""Runs the course's notebooks: `run` into the ignored folder _course/, `store` keeps the outputs in nbs/. Give numbers to pick notebooks."""
import json
import shutil
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from tqdm import tqdm

from derive import ROOT, clean

NBS, COURSE = ROOT / "nbs", ROOT / "_course"
LADDER, MINUTES = COURSE / "runs" / "results.json", NBS / "minutes.json"
WIDGET = "application/vnd.jupyter.widget-view+json"


def chosen(picks: list[str]) -> list[Path]:
    "The numbered notebooks, or those whose number or name is picked; those without a number come last and only when storing."
    notebooks = sorted(NBS.glob("[0-9]*.ipynb")) + [NBS / "appendix" / "checks_common.ipynb", NBS / "index.ipynb"]
    unknown = [pick for pick in picks if not any(path.stem.startswith(pick) for path in notebooks)]
    if unknown: sys.exit(f"no notebook begins with {unknown[0]!r}; there are: {', '.join(path.stem for path in notebooks)}")
    return [path for path in notebooks if not picks or any(path.stem.startswith(pick) for pick in picks)]


def execute(path: Path) -> tuple[nbformat.NotebookNode, float]:
    "Run one notebook in a fresh kernel with a progress bar over its cells; stops at the first failure, naming notebook and cell."
    notebook = nbformat.read(path, as_version=4)
    code = [i for i, cell in enumerate(notebook.cells) if cell.cell_type == "code"]
    client = NotebookClient(notebook, timeout=None, kernel_name="python3", resources={"metadata": {"path": str(COURSE)}},
                            extra_arguments=["--log-level=ERROR"], coalesce_streams=True, store_widget_state=False)
    started = time.perf_counter()
    with tqdm(total=len(code), desc=path.stem.ljust(14), unit="cell", bar_format="{desc} {percentage:3.0f}% |{bar:24}| {n_fmt}/{total_fmt} cells, {elapsed}") as bar:
        client.on_cell_executed = lambda cell, cell_index, **_: bar.update(notebook.cells[cell_index].cell_type == "code")
        try: client.execute()
        except CellExecutionError as error:
            failed = next(i for i in code if any(out.output_type == "error" for out in notebook.cells[i].outputs))
            nbformat.write(notebook, COURSE / path.name)
            bar.close()
            sys.exit(f"\n{path.relative_to(ROOT)}: code cell {code.index(failed) + 1} of {len(code)} failed "
                     f"(id {notebook.cells[failed].id}):\n\n{notebook.cells[failed].source}\n\n{error.ename}: {error.evalue}")
    return notebook, time.perf_counter() - started


def tidy(notebook: nbformat.NotebookNode) -> None:
    "What a stored page needs and no more: no progress bars (they are for waiting), a widget's picture instead of its dead view."
    for cell in notebook.cells:
        if cell.cell_type != "code": continue
        cell.outputs = [out for out in cell.outputs if out.get("name") != "stderr"]
        for out in cell.outputs:
            if "image/png" in out.get("data", {}): out.data.pop(WIDGET, None)


def closing() -> str:
    "The results of losses, a sample by the model just trained, and where to look next."
    from minigpt_course.bigram import read_results
    results, lines = read_results(LADDER), ["", "The results of losses (nats per character on the validation set):"]
    for name, loss in sorted({**results["baselines"], **results["models"]}.items(), key=lambda item: -item[1]):
        lines.append(f"  {loss:6.3f}  {'model     ' if name in results['models'] else 'baseline  '} {name}")
    sample = COURSE / "runs" / "sample.txt"
    if sample.exists(): lines += ["", "Written by the model that was trained just now:", "", *("  | " + line for line in sample.read_text(encoding="utf-8").splitlines())]
    return "\n".join([*lines, "", f"The executed notebooks are in {COURSE.relative_to(ROOT)}/. Next: `make lab` opens the course; begin with nbs/01_text.ipynb."])


def main(command: str, picks: list[str]) -> None:
    "Run the chosen notebooks in order; what they leave behind lies in _course/runs."
    store = command == "store"
    if not picks: shutil.rmtree(COURSE, ignore_errors=True)
    COURSE.mkdir(exist_ok=True)
    for path in chosen(picks):
        if not path.stem[0].isdigit() and not store: continue
        notebook, seconds = execute(path)
        tidy(notebook)
        nbformat.write(notebook, path if store else COURSE / path.name)
        if store and path.stem[0].isdigit(): remember(path.stem, seconds)
    if store: clean(ROOT)
    else: print(closing())


def remember(name: str, seconds: float) -> None:
    "What the index shows: the results so far, and how long each notebook takes."
    times = json.loads(MINUTES.read_text()) if MINUTES.exists() else {}
    MINUTES.write_text(json.dumps(times | {name: max(0.1, round(seconds / 60, 1))}, indent=1, sort_keys=True) + "\n")
    if LADDER.exists(): (NBS / "results.json").write_text(LADDER.read_text() + "\n")


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in ("run", "store"): sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2:])
