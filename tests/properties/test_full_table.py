"""docs/concepts/full.md says what the code says."""

from pathlib import Path

import pytest

from conf.shardings import sharding_row
from launcher.composition.compose import compose
from launcher.gate.hardware_table import row_words
from launcher.memory.weights.dtypes import FULL_MEANING

PAGE = Path(__file__).resolve().parents[2] / "docs" / "concepts" / "full.md"


def rows() -> list[list[str]]:
    table = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


def test_the_page_has_a_row_for_every_engine_and_precision() -> None:
    assert len(rows()) == len(FULL_MEANING) == 12


@pytest.mark.parametrize("row", rows(), ids=lambda row: f"{row[0]}-{row[1]}")
def test_a_row_words_the_page_is_what_every_sharding_of_it_does(row: list[str]) -> None:
    precision = row[1].strip("`")
    for sharding in row[0].replace("`", "").split(", "):
        storage = FULL_MEANING[sharding_row(sharding).engine, precision]
        assert [int(cell) for cell in row[2:7]] == [storage.weight, storage.gradient, storage.master, 2 * storage.state, storage.per_parameter]
        assert row[7] == ("yes" if storage.autocast else "no")
        run = compose(["model=demo", "data=demo", "regime=full", f"sharding={sharding}", f"training.precision={precision}"])
        assert row[8] == row_words(run)
