"""The site: `sphinx-build docs site`. The pages are plain Markdown and read well without it."""

from __future__ import annotations

from importlib.metadata import version as version_of
from typing import TYPE_CHECKING, Any

from bs4 import BeautifulSoup

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "forksafe"
author = "The forksafe developers"
project_copyright = author
version = release = version_of("forksafe")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_heading_anchors = 3
default_role = "py:obj"  # docstrings write `safe_fork` in single backticks
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_custom_sections = [("Source", "notes_style")]

html_theme = "furo"
html_title = f"forksafe {release}"
html_static_path = ["_static", "pictures"]
html_css_files = ["site.css"]
html_theme_options = {"navigation_with_keys": True}


def for_the_site(app: Sphinx, page: str, template: str, context: Any, doctree: object) -> None:
    """Make of a page's plain HTML what the theme can show well.

    A picture comes in two files, and the theme has a switch of its own for light and dark. On a
    phone each row of a table becomes a card, so each cell must know the head of its column.
    """
    if not context.get("body"):
        return
    soup = BeautifulSoup(context["body"], "html.parser")
    for picture in soup.find_all("picture"):
        light, dark = picture.img, picture.source
        for image, file, shown in ((light, light["src"], "light"), (dark, dark["srcset"], "dark")):
            new = soup.new_tag("img", alt=light["alt"])
            new["src"] = context["pathto"]("_static/" + file.rpartition("/")[2], resource=True)
            new["class"] = [f"only-{shown}", "drawing"]
            image.replace_with(new) if image is light else picture.insert_after(new)
        picture.unwrap()
    for source in soup.find_all("source"):
        source.decompose()
    for table in soup.select("table.docutils"):
        heads = [head.get_text(" ", strip=True) for head in table.select("thead th")]
        for row in table.select("tbody tr"):
            for head, cell in zip(heads, row.find_all("td")):
                cell["data-label"] = head
                if len(head + cell.get_text(strip=True)) < 14:
                    cell["class"] = ["short"]
    context["body"] = str(soup)


def setup(app: Sphinx) -> None:
    """Have every page go through `for_the_site`."""
    app.connect("html-page-context", for_the_site)
