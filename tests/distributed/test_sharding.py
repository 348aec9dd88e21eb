"""Every allowed pair of regime and sharding really trains on two ranks, sharded as it says, and learns the same."""

import importlib.util
import sys
from pathlib import Path

import pytest

spec = importlib.util.spec_from_file_location("regimen_cells", Path(__file__).with_name("cells.py"))
assert spec is not None
assert spec.loader is not None
cells = importlib.util.module_from_spec(spec)
sys.modules["regimen_cells"] = cells
spec.loader.exec_module(cells)
Cell = cells.Cell

pytestmark = pytest.mark.distributed

ZERO_STAGES = {"zero1": 1, "zero2": 2, "zero3": 3, "zero2_offload": 2, "zero3_offload": 3}
# Every regime meets every sharding under one of the two backends, and every sharding meets both backends.
GROUPS = {
    ("torchrun", "ddp"): ["full_bf16", "full_amp", "full_fp32", "freeze", "lora", "qlora8", "qlora4", "qlora2"],
    ("torchrun", "zero"): [("zero1", ["full_fp32", "freeze"]), ("zero2", ["full_bf16", "full_fp32", "lora", "qlora8", "qlora4", "qlora2"]), ("zero3", ["full_fp32", "lora", "qlora4"])],
    ("accelerate", "ddp"): ["lora"],
    ("accelerate", "zero"): [("zero1", ["lora"]), ("zero2_offload", ["full_fp32"]), ("zero3_offload", ["full_fp32"]), ("zero3", ["freeze"])],
}  # fmt: skip


def cells_of(group: tuple[str, str]) -> list[Cell]:
    members = GROUPS[group]
    if group[1] == "ddp":
        return [Cell(regime, "ddp") for regime in members]
    return [Cell(regime, sharding) for sharding, regimes in members for regime in regimes]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict:
    root = tmp_path_factory.mktemp("cells")
    return {group: cells.run_cells(cells_of(group), root, group[0]) for group in GROUPS}


PAIRS = [pytest.param(group, cell, id=f"{group[0]}-{cell.regime}-{cell.sharding}") for group in GROUPS for cell in cells_of(group)]


@pytest.mark.parametrize(("group", "cell"), PAIRS)
def test_a_cell_trains_on_two_ranks_under_the_sharding_it_names(results: dict, group: tuple[str, str], cell: Cell) -> None:
    left = results[group][cell]
    log = left.folder.rank_log(0)
    assert [entry["code"] for entry in left.exits] == [0, 0], (left.exits, log.read_text()[-2000:] if log.exists() else "")
    assert [layout["world"] for layout in left.layouts] == [2, 2]
    wrapper = "DistributedDataParallel" if cell.sharding == "ddp" else "DeepSpeedEngine"
    assert {layout["wrapper"] for layout in left.layouts} == {wrapper}
    assert {layout["zero_stage"] for layout in left.layouts} == {ZERO_STAGES.get(cell.sharding)}
    assert len(left.losses) == 3
    assert left.losses[-1] < left.losses[0]
    assert (left.folder.model / ("adapter_model.safetensors" if "lora" in cell.regime else "model.safetensors")).is_file()
    assert (left.folder.checkpoint(2) / "manifest.json").is_file()


@pytest.mark.parametrize("sharding", ["zero1", "zero2", "zero3", "zero2_offload", "zero3_offload"])
def test_fp32_losses_are_those_of_ddp(results: dict, sharding: str) -> None:
    everything = {cell: left for group in results.values() for cell, left in group.items()}
    compared = 0
    for cell, left in everything.items():
        if cell.sharding == sharding and cell.regime in ("full_fp32", "freeze", "lora"):
            assert left.losses == pytest.approx(everything[Cell(cell.regime, "ddp")].losses, rel=1e-4), cell
            compared += 1
    assert compared > 0


def test_pure_bf16_under_zero_keeps_bf16_masters_and_states(results: dict) -> None:
    layout = results["torchrun", "zero"][Cell("full_bf16", "zero2")].layouts[0]
    assert layout["trained_dtypes"] == ["torch.bfloat16"]
    assert layout["master_dtypes"] == ["torch.bfloat16"]
    assert layout["state_dtypes"] == ["torch.bfloat16"]


def test_weights_are_partitioned_under_zero3_only(results: dict) -> None:
    group = results["torchrun", "zero"]
    assert group[Cell("lora", "zero3")].layouts[0]["sharded_parameters"] > 0
    assert group[Cell("lora", "zero2")].layouts[0]["sharded_parameters"] == 0
