"""The page of predicted times is the one that the raw lines give."""

from pathlib import Path

from benchmarks.speed.times_page import page, said

REPOSITORY = Path(__file__).parents[3]


def test_the_page_is_the_one_that_the_lines_give() -> None:
    assert (REPOSITORY / "docs" / "concepts" / "predicted_time.md").read_text(encoding="utf-8") == page(REPOSITORY / "benchmarks" / "results")


def test_figures_are_of_the_measured_seconds() -> None:
    lines = [{"predicted": {"step": 1.1, "low": 1.0, "high": 1.2}, "step": 1.0}, {"predicted": {"step": 3.0, "low": 2.7, "high": 3.3}, "step": 4.0}]
    assert said(lines) == "median 17.5%, worst 25.0% off, 1 inside of the stated range."
    assert said([]) == "none."
