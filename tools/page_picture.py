"""Makes nbs/pictures/page.png, a picture of the page that notebook 13 exports, with a character
chosen. `python tools/page_picture.py`; needs Chromium.
"""
import shutil
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from derive import ROOT
from minigpt_course.share import load, to_page

PICTURE = ROOT / "nbs" / "pictures" / "page.png"
TEXT, CHOSEN = "Return the number of items in the list.", 27


def shot(page: Path) -> bytes:
    "What a reader sees of the page from the text that was read to the heads."
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"),
                                             args=["--no-sandbox"])
        opened = browser.new_page(viewport={"width": 1100, "height": 1300}, color_scheme="light")
        opened.goto(page.as_uri())
        opened.fill("#prompt", TEXT)
        opened.locator("#paper span").nth(CHOSEN).click()
        opened.locator("#about", has_text=f"Position {CHOSEN}").wait_for()
        top = opened.locator("#paper-title").bounding_box()["y"]
        end = opened.locator("#inside").bounding_box()
        picture = opened.screenshot(full_page=True, clip={
            "x": 0, "y": top - 10, "width": 1100, "height": end["y"] + end["height"] - top + 20})
        browser.close()
        return picture


def main() -> None:
    "See the module's own words."
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "page.html"
        to_page(*load("pydocs"), page, prompt=TEXT)
        PICTURE.write_bytes(shot(page))


if __name__ == "__main__": main()
