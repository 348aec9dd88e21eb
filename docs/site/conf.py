"""How Sphinx makes a site of the pages, without a network: make docs."""

import os
import re
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parents[1]
LINK = re.compile(r"(?<!!)\[([^\]\n]+)\]\(([^)#\s]+)(#[^)\s]*)?\)")

project = "regimen"
copyright = "the authors of regimen"
extensions = ["myst_parser"]
html_theme = "furo"
html_title = "regimen"
html_copy_source = False
html_show_sphinx = False
exclude_patterns = ["site"]
html_extra_path = ["../llms.txt"]
myst_heading_anchors = 4
myst_enable_extensions = ["tasklist"]
nitpicky = True


def with_files_named(markdown: str, page: Path) -> str:
    """A link from a page to a file that is no page is shown as the name of the file.

    Raises:
        ValueError: where the file does not exist.
    """

    def named(link: re.Match[str]) -> str:
        target = Path(os.path.normpath(page.parent / link[2]))
        if "://" in link[2] or (target.is_relative_to(DOCS) and target.suffix == ".md"):
            return link[0]
        if not target.exists():
            raise ValueError(f"{page} links to {link[2]}, which does not exist.")
        return f"{link[1]} (`{target.relative_to(DOCS.parent)}`)"

    return LINK.sub(named, markdown)


def setup(app: Any) -> None:
    def read(app: Any, name: str, source: list[str]) -> None:
        source[0] = with_files_named(source[0], DOCS / f"{name}.md")

    app.connect("source-read", read)
