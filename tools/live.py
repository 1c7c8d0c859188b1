"""What the site's live controls show: made from the library and the published model, written as
scripts that a page can read without a server."""
import base64
import json
from dataclasses import asdict
from functools import cache
from pathlib import Path

from minigpt_course.pages import PAGE, page_weights
from minigpt_course.share import load

ROOT = Path(__file__).resolve().parents[1]
LIVE = ROOT / "site" / "live"
MAKERS = {}  # name of a control to the function that makes its data
SHARED = {}  # name of a control to the scripts of the page that it uses as well


def scripts(
    name: str,  # of a control
    folder: Path,  # where its scripts are put
) -> list[str]:  # the names of the scripts that a page with the control loads, in this order
    "Write what a page needs for one control. A page with several loads a script of one name once."
    folder.mkdir(parents=True, exist_ok=True)
    files = [LIVE / "live.js", *(PAGE / file for file in SHARED.get(name, ())), LIVE / f"{name}.js"]
    made = {file.name: file.read_text(encoding="utf-8") for file in files}
    made[f"{name}.data.js"] = f"live_data.{name} = {data_of(name)}\n"
    for file, text in made.items(): (folder / file).write_text(text, encoding="utf-8")
    return [*made]


@cache
def data_of(name: str) -> str:  # JSON
    "What a control shows."
    return json.dumps(MAKERS[name](), separators=(",", ":"))


def published_model() -> dict:
    "The laptop model as `loadModel` in live.js reads it: its matrices in 8 bits."
    model, tokenizer = load("pydocs")
    tensors, content = page_weights(model.state_dict())
    return {"config": asdict(model.config), "chars": tokenizer.chars, "tensors": tensors,
            "weights": base64.b64encode(content).decode()}
