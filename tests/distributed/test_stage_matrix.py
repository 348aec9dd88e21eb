"""Every stage that learns from given answers x every regime x DDP, ZeRO-2 and ZeRO-3 on two ranks, each resumed. `make test-full` runs it."""

from types import ModuleType
from typing import Any

import pytest

pytestmark = [pytest.mark.distributed, pytest.mark.long, pytest.mark.timeout(3600)]

STAGES = ("pt", "rm", "dpo", "kto", "orpo", "simpo")
REGIMES = ("full_bf16", "full_amp", "full_fp32", "freeze", "lora", "qlora8", "qlora4", "qlora2")
REFUSED = [("qlora2", "zero3")]
PAIRS = [(regime, sharding) for sharding in ("ddp", "zero2", "zero3") for regime in REGIMES if (regime, sharding) not in REFUSED]


@pytest.fixture(scope="module", params=STAGES)
def results(request: pytest.FixtureRequest, cells: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Any]:
    """Of one stage: what each pair left after four steps, of which the last two were made twice."""
    root = tmp_path_factory.mktemp(request.param)
    found = {}
    for family in (("ddp",), ("zero2", "zero3")):
        members = [cells.Cell(*pair, stage=request.param, further=("training.max_steps=4",)) for pair in PAIRS if pair[1] in family]
        left = cells.run_cells(members, root, "torchrun")
        cells.resume_cells(left, root, "torchrun", step=2)
        found |= {(cell.regime, cell.sharding): result for cell, result in left.items()}
    return found


@pytest.mark.parametrize(("regime", "sharding"), PAIRS)
def test_a_pair_trains_saves_and_goes_on_with_the_same_losses(results: dict[tuple[str, str], Any], regime: str, sharding: str) -> None:
    left = results[regime, sharding]
    log = left.folder.rank_log(0)
    assert [entry["code"] for entry in left.exits] == [0, 0], (left.exits, log.read_text()[-2000:] if log.exists() else "")
    assert len(left.losses) == 6
    assert left.losses[4:] == left.losses[2:4]
