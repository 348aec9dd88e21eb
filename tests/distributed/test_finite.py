"""A run that diverges on two ranks: under every sharding all ranks end at the same step with the same cause, and nothing poisoned is committed."""

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from conf.committed import committed
from conf.exit_codes import NOT_A_NUMBER

pytestmark = pytest.mark.distributed

DIVERGING = ("optim.lr=1e30", "checkpoint.interval=1", "training.log_interval=3", "evaluation.at_start=false", "evaluation.at_end=false")


def left_by(cells: ModuleType, shardings: tuple[str, ...], root: Path) -> list[Any]:
    return list(cells.run_cells([cells.Cell("full_fp32", sharding, further=DIVERGING) for sharding in shardings], root, "torchrun").values())


def assert_nothing_poisoned(left: Any) -> None:
    assert [entry["code"] for entry in left.exits] == [NOT_A_NUMBER, NOT_A_NUMBER]
    first, second = (entry["message"] for entry in left.exits)
    assert first == second
    assert "so nothing is saved from this step. " in first
    assert committed(left.folder) == []
    assert not left.folder.model.exists()
    assert [left.folder.rows_file(rank).read_text().count("\n") for rank in (0, 1)] == [1, 1]


def test_no_rank_commits_what_is_no_number(cells: ModuleType, tmp_path: Path) -> None:
    """One pair of ranks for all: DDP first, since accelerate never leaves DeepSpeed again."""
    for left in left_by(cells, ("ddp", "zero2", "zero3"), tmp_path):
        assert_nothing_poisoned(left)


@pytest.mark.long
def test_no_rank_commits_what_is_no_number_of_split_weights(cells: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cells, "SCRIPT", Path(__file__).with_name("run_fsdp_cells.py"))
    for left in left_by(cells, ("fsdp2",), tmp_path):
        assert_nothing_poisoned(left)
