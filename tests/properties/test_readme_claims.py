"""The first screen of README: its figures are those of the raw results, its lines are short, and its pictures are there."""

import re
from pathlib import Path

import pytest

from docs.make_claims import CLAIMS, with_figures

README = Path(__file__).resolve().parents[2] / "README.md"
TEXT = README.read_text(encoding="utf-8")


def test_every_figure_is_that_of_the_raw_results() -> None:
    assert with_figures(TEXT) == TEXT, "run: python -m docs.make_claims"


def test_a_claim_without_a_row_is_named() -> None:
    claim = next(iter(CLAIMS))
    with pytest.raises(ValueError, match=f"0 rows that begin with '{claim}'"):
        with_figures(TEXT.replace(claim, "Something else"))


def test_lines_are_short_outside_of_tables_and_commands() -> None:
    prose = re.sub(r"^```.*?^```$", "", TEXT, flags=re.MULTILINE | re.DOTALL)
    long = [line for line in prose.splitlines() if len(line) > 100 and not line.startswith(("|", "!["))]
    assert not long


def test_every_link_and_picture_is_there() -> None:
    targets = [target.partition("#")[0] for target in re.findall(r"\]\(([^)]+)\)", TEXT) if "://" not in target]
    assert [target for target in targets if not (README.parent / target).exists()] == []
