"""The page of calibration against the raw records it is made from."""

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.memory.calibration import FIGURES, Line, Size, compared, held_text, page, read_lines, summary
from benchmarks.memory.cells import MORE_SHAPES, write_samples
from benchmarks.memory.chosen import write_shapes
from benchmarks.memory.measured import records
from launcher.facts.model.families import FAMILIES

REPOSITORY = Path(__file__).resolve().parents[3]
MEMORY = REPOSITORY / "benchmarks" / "results" / "memory"
LINES, BEFORE = read_lines(MEMORY / "calibration.jsonl"), read_lines(MEMORY / "calibration_before.jsonl")
TABLED = [one for one in LINES if one.family in FAMILIES and "traced" not in one.kind]  # the others ask transformers, some ten seconds each
SOME = 60  # of so many cells one is predicted again in every test run, the others in the long ones
FEWEST, MOST = 0.95, 0.99  # shares of cells that lie in their range
LARGE, MANY = 40, 100  # cells of a group of which the least share, and also the greatest, is held; of fewer, one or two cells are more than that


def line(measured: int, low: int, high: int, sharding: str = "ddp") -> Line:
    return Line("file", "cell", "llama", "lora", sharding, "sft", "one GPU", {"allocated": Size(measured, 100, low, high)})


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
    assert (REPOSITORY / "docs" / "reference" / "calibration.md").read_text(encoding="utf-8") == page(LINES, BEFORE)


def file_of(one: Line) -> Path:
    found = MEMORY / one.results
    return found if found.is_file() else MEMORY.with_name("stages") / one.results


def check(lines: list[Line], tmp_path: Path) -> None:
    """The same files and cells, compared again by the formulas as they are."""
    write_shapes(tmp_path / "shapes", MORE_SHAPES)
    write_samples(tmp_path / "data")
    wanted = {(one.results, one.cell): one for one in lines}
    others = {(one.results, one.cell) for one in LINES} - set(wanted)
    for again in compared(sorted({file_of(one) for one in lines}), tmp_path, others):
        there = wanted.get((again.results, again.cell), again)  # the file may have cells that were not compared yet
        assert again == there or replace(again, phases=None) == there


def test_some_lines_are_what_the_present_formulas_say(tmp_path: Path) -> None:
    check(TABLED[::SOME], tmp_path)


@pytest.mark.long
def test_every_line_is_what_the_present_formulas_say(tmp_path: Path) -> None:
    check(LINES, tmp_path)


def raw_measured(one: Line) -> int:
    """Bytes, of the raw record."""
    found = next(record for record in records(file_of(one)) if record["cell"] == one.cell)
    return max(rank["allocated"] for rank in found["measured"])


def test_what_the_lines_call_measured_stands_in_the_raw_files() -> None:
    assert [one.sizes["allocated"].measured for one in LINES[::10]] == [raw_measured(one) for one in LINES[::10]]


@pytest.mark.parametrize("figure", [figure for figure in FIGURES if figure != "reserved"])
def test_the_stated_ranges_hold_95_to_99_percent_of_the_cells(figure: str) -> None:
    sizes = [one.sizes[figure].held for one in LINES if figure in one.sizes]
    assert len(sizes) > MANY
    assert FEWEST <= sum(sizes) / len(sizes) <= MOST


@pytest.mark.parametrize("field", ["kind", "sharding", "regime", "family"])
def test_the_range_by_which_the_gate_permits_holds_95_to_99_percent_of_every_large_group(field: str) -> None:
    """A group of fewer than a hundred may lie in it whole."""
    groups: dict[str, list[bool]] = {}
    for one in LINES:
        groups.setdefault(getattr(one, field), []).append(one.sizes["allocated"].held)
    shares = {name: sum(held) / len(held) for name, held in groups.items() if len(held) >= LARGE}
    assert shares
    assert {name: share for name, share in shares.items() if share < FEWEST} == {}
    if field == "kind":  # by which it is chosen
        assert {name: share for name, share in shares.items() if share > MOST and len(groups[name]) >= MANY} == {}
