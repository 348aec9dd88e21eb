"""The page of calibration against the raw records it is made from."""

from pathlib import Path

import pytest

from benchmarks.memory.calibration import FIGURES, Line, Size, compared, held_text, page, read_lines, summary
from benchmarks.memory.cells import MORE_SHAPES, write_samples
from benchmarks.memory.chosen import write_shapes

REPOSITORY = Path(__file__).resolve().parents[3]
MEMORY = REPOSITORY / "benchmarks" / "results" / "memory"
LINES, BEFORE = read_lines(MEMORY / "calibration.jsonl"), read_lines(MEMORY / "calibration_before.jsonl")
ON_TWO = read_lines(MEMORY / "calibration_on_two.jsonl")  # by the formulas of the trainer that they ran under
EVERY = [*LINES, *ON_TWO]
SOME = 60  # of so many cells one is predicted again in every test run, the others in the long ones
FEWEST, MOST = 0.95, 1.0  # of all cells on record
LARGE = 40  # cells of a group of which the share is held too; of fewer, two outside are more than 5 %


def line(measured: int, low: int, high: int, sharding: str = "ddp") -> Line:
    return Line("file", "cell", "llama", "lora", sharding, "sft", {"allocated": Size(measured, 100, low, high)})


def test_a_cell_is_held_between_both_ends_of_its_range() -> None:
    assert [Size(size, 100, 90, 120).held for size in (89, 90, 120, 121)] == [False, True, True, False]
    assert not Size(100, 100, None, None).held
    assert Size(80, 100, None, None).error == pytest.approx(0.25)


def test_a_share_is_told_of_many_cells_alone() -> None:
    assert held_text([line(100, 90, 110)] * 3, "allocated") == "3 of 3"
    assert held_text([line(100, 90, 110)] * 19 + [line(111, 90, 110)], "allocated") == "19 of 20 (95%)"


def test_a_summary_names_the_worst_cell_and_how_many_lie_outside() -> None:
    (told,) = summary([line(100, 90, 110), line(125, 90, 110)])
    assert "2 cells" in told
    assert "median 10.00%  worst 20.0% (cell)  1 within the range" in told


def test_the_page_is_made_of_the_lines() -> None:
    assert (REPOSITORY / "docs" / "calibration.md").read_text(encoding="utf-8") == page(EVERY, BEFORE)


def check(lines: list[Line], tmp_path: Path) -> None:
    """The same files and cells, compared again by the formulas as they are."""
    write_shapes(tmp_path / "shapes", MORE_SHAPES)
    write_samples(tmp_path / "data")
    wanted = {(one.results, one.cell): one for one in lines}
    others = {(one.results, one.cell) for one in LINES} - set(wanted)
    for again in compared(sorted({MEMORY / one.results for one in lines}), tmp_path, others):
        assert again == wanted.get((again.results, again.cell), again)  # the file may have cells that were not compared yet


def test_some_lines_are_what_the_present_formulas_say(tmp_path: Path) -> None:
    check(LINES[::SOME], tmp_path)


@pytest.mark.long
def test_every_line_is_what_the_present_formulas_say(tmp_path: Path) -> None:
    check(LINES, tmp_path)


@pytest.mark.parametrize("figure", [figure for figure in FIGURES if figure != "reserved"])
def test_the_stated_ranges_hold_at_least_nineteen_of_twenty_cells_in_every_large_group(figure: str) -> None:
    groups = {(field, getattr(one, field)) for one in EVERY for field in ("sharding", "regime", "family", "stage")}
    sizes = {group: [one.sizes[figure].held for one in EVERY if getattr(one, group[0]) == group[1] and figure in one.sizes] for group in groups}
    every = [one.sizes[figure].held for one in EVERY if figure in one.sizes]
    assert FEWEST <= sum(every) / len(every) <= MOST
    assert {group: held for group, held in sizes.items() if len(held) >= LARGE and sum(held) / len(held) < FEWEST} == {}
