"""Makes nbs/pictures/page.png, a picture of the page that notebook 13 exports, with a character
chosen. `python tools/page_picture.py`; needs Chromium.
"""
import shutil
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from minigpt_course.share import load, to_page

PICTURE = Path(__file__).resolve().parents[1] / "nbs" / "pictures" / "page.png"
TEXT, CHOSEN = "Return the number of items in the list.", 27
BROWSERS = "chromium", "chromium-browser", "google-chrome", "chrome"


def shot(page: Path, picture: Path) -> None:
    "What a reader sees of the page from the text that was read to the heads."
    with sync_playwright() as playwright:
        path = next(filter(None, map(shutil.which, BROWSERS)))
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        opened = browser.new_page(viewport={"width": 1100, "height": 1300}, color_scheme="light")
        opened.goto(page.as_uri())
        opened.fill("#prompt", TEXT)
        opened.locator("#paper span").nth(CHOSEN).click()
        opened.locator("#about", has_text=f"Position {CHOSEN}").wait_for()
        top = opened.locator("#paper-title").bounding_box()["y"]
        end = opened.locator("#inside").bounding_box()
        opened.screenshot(path=picture, full_page=True, clip={
            "x": 0, "y": top - 10, "width": 1100, "height": end["y"] + end["height"] - top + 20})
        browser.close()


def main() -> None:
    "See the module's own words."
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "page.html"
        to_page(*load("pydocs"), page, prompt=TEXT)
        shot(page, PICTURE)
    Image.open(PICTURE).convert("RGB").quantize(64).save(PICTURE, optimize=True)


if __name__ == "__main__": main()
