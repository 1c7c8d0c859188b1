"""What the site's live controls show: made from the library and the published model, written as
scripts that a page can read without a server."""
import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LIVE = ROOT / "site" / "live"
MAKERS = {}  # name of a control to the function that makes its data


def scripts(
    name: str,  # of a control
    folder: Path,  # where its scripts are put
) -> list[str]:  # the names of the scripts that a page with the control loads, in this order
    "Write what a page needs for one control."
    folder.mkdir(parents=True, exist_ok=True)
    made = {"live.js": (LIVE / "live.js").read_text(encoding="utf-8"),
            f"{name}.js": (LIVE / f"{name}.js").read_text(encoding="utf-8"),
            f"{name}.data.js": f"live_data.{name} = {json.dumps(MAKERS[name]())}\n"}
    for file, text in made.items(): (folder / file).write_text(text, encoding="utf-8")
    return [*made]
