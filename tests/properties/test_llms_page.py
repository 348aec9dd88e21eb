"""docs/llms.txt names every page, and no page that is not there."""

import re
from pathlib import Path

DOCS = Path(__file__).resolve().parents[2] / "docs"
LINK = re.compile(r"\]\(([^)]+)\)")


def test_it_names_every_page_and_nothing_else() -> None:
    named = {(DOCS / target).resolve() for target in LINK.findall((DOCS / "llms.txt").read_text(encoding="utf-8"))}
    assert named == {*DOCS.rglob("*.md"), DOCS.parent / "README.md"}
