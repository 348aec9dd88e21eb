"""The first screen of README: its figures are those of the raw results, its lines are short, and its pictures are there."""

import re
from pathlib import Path

import pytest

from docs.make_claims import CLAIMS, with_figures

README = Path(__file__).resolve().parents[2] / "README.md"
TEXT = README.read_text(encoding="utf-8")


def test_every_figure_is_that_of_the_raw_results() -> None:
    assert with_figures(TEXT) == TEXT, "run: python -m docs.make_claims"


def test_a_claim_that_is_not_there_is_named() -> None:
    claim = next(iter(CLAIMS))
    with pytest.raises(ValueError, match=f"0 claims that begin with '{claim}'"):
        with_figures(TEXT.replace(claim, "Something else"))


def test_lines_are_short() -> None:
    assert [line for line in TEXT.splitlines() if len(line) > 100] == []


def test_every_link_and_picture_is_there() -> None:
    targets = [target.partition("#")[0] for target in re.findall(r"\]\(([^)]+)\)", TEXT) if "://" not in target]
    assert [target for target in targets if not (README.parent / target).exists()] == []
