"""The site of these pages, by Sphinx: English from docs/, and with the tag `ko` Korean from docs/ko/. `make site` makes both (docs/website.py)."""

import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent))

from socklab import __version__  # noqa: E402

KOREAN = tags.has("ko")  # noqa: F821 - Sphinx brings it

project = "socklab"
author = copyright = "the socklab authors"
version = release = __version__
language = "ko" if KOREAN else "en"

extensions = [
    "myst_parser",
    "sphinx_copybutton",
    "docs.theme.anchors",
    "docs.theme.blocks",
    "docs.theme.contents",
    "docs.theme.editions",
    "docs.theme.plays",
    "docs.theme.searching",
    "docs.theme.sources",
]
source_suffix = {".md": "markdown"}
exclude_patterns = [] if KOREAN else ["ko"]
nitpicky = True
myst_heading_anchors = 6  # the anchors that these headings have on GitHub

html_theme = "furo"
html_title = "socklab"
html_static_path = [str(DOCS / "theme" / "static")]
templates_path = [str(DOCS / "theme" / "templates")]
html_css_files = ["site.css"]
html_js_files = [("site.js", {"defer": "defer"})]
html_theme_options = {
    "top_of_page_buttons": ["view"],  # which is the switch of languages here: templates/components
    "light_css_variables": {"color-code-background": "#f4f6f8"},
}
html_copy_source = html_show_sourcelink = html_show_sphinx = html_use_index = False
html_domain_indices = False
html_show_search_summary = False  # docs/theme/searching.py has one that works without a server
pygments_style = "a11y-high-contrast-light"
pygments_dark_style = "a11y-high-contrast-dark"

copybutton_prompt_text = r"\$ |>>> |\.\.\. "
copybutton_prompt_is_regexp = True
