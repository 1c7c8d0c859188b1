"""The site's live controls, in a real browser: the same numbers as Python's, and everything that
they offer works by mouse, keyboard and touch, under a policy that allows a page's own files only.
"""
import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "tools"))

from live import LIVE, scripts

HARNESS = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; script-src 'self'; style-src 'self'">
<link rel="stylesheet" href="live.css">
{scripts}
<div class="live" data-live="{name}"></div>
"""


def harness(name: str, folder: Path) -> Path:
    "A page with nothing but one control."
    loaded = "\n".join(f'<script src="{file}"></script>' for file in scripts(name, folder))
    shutil.copy(LIVE / "live.css", folder)
    page = folder / f"{name}.html"
    page.write_text(HARNESS.format(scripts=loaded, name=name), encoding="utf-8")
    return page


@pytest.fixture
def opened(browser, tmp_path):
    """Opens a control: `opened("bigram", width=390, color_scheme="dark")` is a tab of the browser.
    At its end a test fails if a control complained, asked for anything but its own files, or did
    not fit the screen's width."""
    tabs, complaints = [], []

    def open_control(name: str, width: int = 1200, **options):
        page = harness(name, tmp_path)
        tab = browser.new_page(viewport={"width": width, "height": 900}, **options)
        tab.on("console", lambda message: complaints.append(message.text))
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.on("request", lambda asked: complaints.append(asked.url)
               if not asked.url.startswith(tmp_path.as_uri()) else None)
        tabs.append(tab)
        tab.goto(page.as_uri())
        tab.wait_for_selector("[data-ready]")
        return tab

    yield open_control
    assert complaints == []
    for tab in tabs:
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
        tab.close()
