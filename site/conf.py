"How Sphinx makes the course's site; tools/website.py prepares the pages and calls it."
import re
from configparser import ConfigParser
from pathlib import Path

from docutils import nodes
from latex2mathml.converter import convert

HERE = Path(__file__).parent
settings = ConfigParser()
settings.read(HERE.parent / "settings.ini", encoding="utf-8")
settings = settings["DEFAULT"]

project, author = settings["title"], settings["author"]
html_title, copyright, version = project, settings["copyright"], settings["version"]
extensions = ["myst_nb"]
templates_path = ["_templates"]

nb_execution_mode = "off"  # what is stored is shown
nb_render_markdown_format = "myst"
myst_enable_extensions = ["colon_fence", "dollarmath"]
highlight_language = "none"  # a block of code without a language has no colours
smartquotes = False
add_module_names = False
maximum_signature_line_length = 70

html_theme = "furo"
html_baseurl = settings["doc_host"]
html_static_path, html_css_files = ["style.css", "favicon.svg"], ["style.css"]
html_favicon = "favicon.svg"
html_copy_source = html_show_sourcelink = html_use_index = html_domain_indices = False
html_show_search_summary = False  # it would read the other pages, which a file may not
html_search_scorer = str(HERE / "scorer.js")
html_math_renderer = "mathml"
html_sidebars = {"**": ["sidebar/brand.html", "sidebar/search.html", "sidebar/scroll-start.html",
                        "models.html", "sidebar/navigation.html", "sidebar/scroll-end.html"]}
pygments_style, pygments_dark_style = "a11y-light", "a11y-dark"
SYSTEM = "system-ui, sans-serif"
html_theme_options = {
    "top_of_page_buttons": [],
    "light_css_variables": {
        "font-stack": SYSTEM, "font-stack--headings": SYSTEM,
        "font-stack--monospace": "ui-monospace, monospace", "code-font-size": "78%",
        "color-brand-primary": "#0b5fa5", "color-brand-content": "#0b5fa5",
        "color-brand-visited": "#0b5fa5", "color-foreground-primary": "#1b1b1b",
        "color-foreground-secondary": "#5a5a5a", "color-background-border": "#d5d5d5",
    },
    "dark_css_variables": {
        "color-brand-primary": "#7fbcf2", "color-brand-content": "#7fbcf2",
        "color-brand-visited": "#7fbcf2", "color-background-primary": "#16181c",
        "color-foreground-primary": "#e8e8e8", "color-foreground-secondary": "#a5a5a5",
        "color-background-secondary": "#1b1e23", "color-background-border": "#3a3d44",
    },
}


def mathml(node: nodes.Node, display: str) -> str:
    "A formula that needs no font of ours, no script and no network."
    made = convert(node.astext(), display=display)
    made = re.sub(r"<msup>(<mi>.</mi>)<mi>&#x02032;</mi></msup>", r"\1<mi>&#x02032;</mi>", made)
    function = r"(<mi>ln</mi>|<msub><mi>log</mi>.*?</msub>)"  # a thin space behind it
    return re.sub(function, r'\1<mspace width="0.17em" />', made)


def formula(translator, node: nodes.math) -> None:
    "A formula in a line."
    translator.body.append(mathml(node, "inline"))
    raise nodes.SkipNode


def displayed_formula(translator, node: nodes.math_block) -> None:
    "A formula on a line of its own."
    translator.body.append(f'<div class="math">{mathml(node, "block")}</div>')
    raise nodes.SkipNode


def setup(app) -> None:
    app.add_html_math_renderer("mathml", (formula, None), (displayed_formula, None))
