"""On two GPUs: every sharding really shards, and learns what plain data parallelism learns."""

from types import ModuleType
from typing import Any

import pytest

pytestmark = pytest.mark.gpu(2)

PAIRS = [(regime, sharding) for sharding in ("ddp", "zero2", "zero3", "fsdp2") for regime in ("full_fp32", "freeze", "lora")]
PAIRS += [("full_bf16", "zero2"), ("full_bf16", "zero3"), ("qlora4", "zero3"), ("qlora4", "fsdp2"), ("qlora8", "zero2"), ("qlora2", "zero2")]
WRAPPERS = {"ddp": "DistributedDataParallel", "zero2": "DeepSpeedEngine", "zero3": "DeepSpeedEngine"}


@pytest.fixture(scope="module")
def results(cells: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Any]:
    root = tmp_path_factory.mktemp("cells")
    found = {}
    for family in (("ddp",), ("zero2", "zero3"), ("fsdp2",)):  # one pair of processes each: accelerate knows one kind of sharding a process
        members = [cells.Cell(regime, sharding, "auto") for regime, sharding in PAIRS if sharding in family]
        found |= {(cell.regime, cell.sharding): left for cell, left in cells.run_cells(members, root, "torchrun").items()}
    return found


@pytest.mark.parametrize(("regime", "sharding"), PAIRS)
def test_a_cell_trains_on_two_gpus_under_the_sharding_it_names(results: dict, regime: str, sharding: str) -> None:
    left = results[regime, sharding]
    log = left.folder.rank_log(0)
    assert [entry["code"] for entry in left.exits] == [0, 0], (left.exits, log.read_text()[-2500:] if log.exists() else "")
    assert [layout["world"] for layout in left.layouts] == [2, 2]
    assert {layout["device"] for layout in left.layouts} == {"cuda:0", "cuda:1"}
    if sharding in WRAPPERS:
        assert {layout["wrapper"] for layout in left.layouts} == {WRAPPERS[sharding]}
    assert (left.layouts[0]["sharded_parameters"] > 0) == (sharding in ("zero3", "fsdp2"))
    assert left.losses[-1] < left.losses[0]
    assert (left.folder.model / ("adapter_model.safetensors" if "lora" in regime else "model.safetensors")).is_file()


# Under FSDP random weights are drawn on the CPU, elsewhere on the GPU; an adapter's random base is drawn on the CPU everywhere.
COMPARED = [(regime, sharding) for regime, sharding in PAIRS if regime in ("full_fp32", "freeze", "lora") and sharding in ("zero2", "zero3")]
COMPARED += [("lora", "fsdp2")]


@pytest.mark.parametrize(("regime", "sharding"), COMPARED)
def test_fp32_losses_are_those_of_ddp(results: dict, regime: str, sharding: str) -> None:
    assert results[regime, sharding].losses == pytest.approx(results[regime, "ddp"].losses, rel=1e-3)
