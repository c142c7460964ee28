"""The site: `sphinx-build docs site`. The pages are plain Markdown and read well without it."""

from __future__ import annotations

from importlib.metadata import version as version_of

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
