"""The whole matrix: every allowed pair of regime and sharding under both backends, on two ranks. `make test-full` runs it."""

from types import ModuleType
from typing import Any

import pytest

pytestmark = [pytest.mark.distributed, pytest.mark.long]

REGIMES = ("full_bf16", "full_amp", "full_fp32", "freeze", "lora", "qlora8", "qlora4", "qlora2")
SHARDINGS = ("ddp", "zero1", "zero2", "zero3", "zero2_offload", "zero3_offload")
REFUSED = {("qlora2", "zero3"), ("qlora2", "zero3_offload"), ("full_bf16", "zero2_offload"), ("full_bf16", "zero3_offload")}
PAIRS = [(regime, sharding) for sharding in SHARDINGS for regime in REGIMES if (regime, sharding) not in REFUSED]


@pytest.fixture(scope="module", params=["torchrun", "accelerate"])
def results(request: pytest.FixtureRequest, cells: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Any]:
    left = cells.run_cells([cells.Cell(*pair) for pair in PAIRS], tmp_path_factory.mktemp("matrix"), request.param)
    return {(cell.regime, cell.sharding): result for cell, result in left.items()}


def test_the_pairs_left_out_are_those_that_are_refused(cells: ModuleType) -> None:
    every = [(regime, sharding) for sharding in SHARDINGS for regime in REGIMES]
    assert {pair for pair in every if not cells.Cell(*pair).allowed} == REFUSED


@pytest.mark.parametrize(("regime", "sharding"), PAIRS)
def test_a_pair_trains_saves_and_learns(results: dict[tuple[str, str], Any], regime: str, sharding: str) -> None:
    left = results[regime, sharding]
    log = left.folder.rank_log(0)
    assert [entry["code"] for entry in left.exits] == [0, 0], (left.exits, log.read_text()[-2000:] if log.exists() else "")
    assert [layout["wrapper"] for layout in left.layouts] == ["DistributedDataParallel" if sharding == "ddp" else "DeepSpeedEngine"] * 2
    assert left.losses[-1] < left.losses[0]
    assert (left.folder.checkpoint(2) / "manifest.json").is_file()
