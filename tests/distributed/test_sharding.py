"""Every allowed pair of regime and sharding really trains on two ranks, sharded as it says, and learns the same."""

import json
import math
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from safetensors.torch import load_file

pytestmark = pytest.mark.distributed

ZERO_STAGES = {"zero1": 1, "zero2": 2, "zero3": 3, "zero2_offload": 2, "zero3_offload": 3}
# Every regime meets every sharding under one of the two backends, and every sharding meets both backends. One pair of ranks each.
GROUPS = {
    "torchrun": {
        "ddp": ["full_bf16", "full_amp", "full_fp32", "freeze", "lora", "qlora8", "qlora4", "qlora2"],
        "zero1": ["full_fp32", "freeze"],
        "zero2": ["full_bf16", "full_fp32", "lora", "qlora8", "qlora4", "qlora2"],
        "zero3": ["full_fp32", "lora", "qlora4"],
    },
    "accelerate": {"ddp": ["lora"], "zero1": ["lora"], "zero2_offload": ["full_fp32"], "zero3_offload": ["full_fp32"], "zero3": ["freeze"]},
}
CELLS = [(backend, regime, sharding) for backend, group in GROUPS.items() for sharding, regimes in group.items() for regime in regimes]


CHUNKED = ("zero3", "zero2")
MOVED = [("full_fp32", "ddp", "zero2"), ("lora", "zero2", "zero3")]  # after two steps; test_relaid.py has the other pairs


def chunked(folder: Path) -> tuple[str, ...]:
    """Of every two answers one has three chunks of tokens and one less than one: ranks that called the head as often as they have chunks would wait
    for each other's gathers for ever."""
    answers = ["a b c d " * (180 if number % 2 else 3) for number in range(64)]
    (folder / "answers.json").write_text(json.dumps([{"instruction": "Go on.", "output": answer} for answer in answers]))
    data = ("data=files", f"data.folder={folder}", "data.sets=[answers.json]", "data.template=chatml", "data.cutoff=1536")
    return (*data, "model.architecture.max_position_embeddings=1536", "training.loss=chunked", "training.micro_batch=1")


@pytest.fixture(scope="module")
def results(cells: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str, str], Any]:
    """What each cell left, by (backend, regime, sharding); by ("moved", regime, sharding) what one left that went on under that sharding."""
    root = tmp_path_factory.mktemp("cells")
    found = {}
    for backend in GROUPS:
        members = [cells.Cell(regime, sharding) for started_by, regime, sharding in CELLS if started_by == backend]
        if backend == "torchrun":
            members += [cells.Cell("full_amp", sharding, further=chunked(root)) for sharding in CHUNKED]
        else:
            members.append(cells.Cell("full_fp32", "zero3", further=("sharding.whole_layers=true", "training.gradient_checkpointing=true")))
        left = cells.lay_out(members, root, backend)
        found |= {(backend, cell.regime, cell.sharding): result for cell, result in left.items()}
        moved = {
            ("moved", regime, after): cells.going_on(cells.Cell(regime, after), left[cells.Cell(regime, before)], 2, after)
            for regime, before, after in (MOVED if backend == "torchrun" else ())
        }
        cells.train_folders(members[0], [*left.values(), *moved.values()], root, backend)
        found |= moved
    return found


@pytest.mark.parametrize(("backend", "regime", "sharding"), CELLS)
def test_a_cell_trains_on_two_ranks_under_the_sharding_it_names(results: dict, backend: str, regime: str, sharding: str) -> None:
    left = results[backend, regime, sharding]
    log = left.folder.rank_log(0)
    assert [entry["code"] for entry in left.exits] == [0, 0], (left.exits, log.read_text()[-2000:] if log.exists() else "")
    assert [layout["world"] for layout in left.layouts] == [2, 2]
    wrapper = "DistributedDataParallel" if sharding == "ddp" else "DeepSpeedEngine"
    assert {layout["wrapper"] for layout in left.layouts} == {wrapper}
    assert {layout["zero_stage"] for layout in left.layouts} == {ZERO_STAGES.get(sharding)}
    assert len(left.losses) == 3
    assert left.losses[-1] < left.losses[0]
    assert (left.folder.model / ("adapter_model.safetensors" if "lora" in regime else "model.safetensors")).is_file()
    assert (left.folder.checkpoint(2) / "manifest.json").is_file()


@pytest.mark.parametrize("sharding", ["zero1", "zero2", "zero3", "zero2_offload", "zero3_offload"])
def test_fp32_losses_are_those_of_ddp(results: dict, sharding: str) -> None:
    compared = [key for key in results if key[0] in GROUPS and key[2] == sharding and key[1] in ("full_fp32", "freeze", "lora")]
    assert compared
    for backend, regime, _ in compared:
        assert results[backend, regime, sharding].losses == pytest.approx(results["torchrun", regime, "ddp"].losses, rel=1e-4), regime


def test_layers_that_zero3_gathers_and_reduces_whole_learn_the_same(results: dict) -> None:
    left = results["accelerate", "full_fp32", "zero3"]
    [layout, other] = left.layouts

    assert [entry["code"] for entry in left.exits] == [0, 0], left.exits
    assert left.losses == pytest.approx(results["torchrun", "full_fp32", "ddp"].losses, rel=1e-4)
    weights = load_file(left.folder.model / "model.safetensors")
    assert layout["reduce_bucket"] == other["reduce_bucket"] == sum(math.prod(weights[name].shape) for name in weights if ".layers.0." in name)


@pytest.mark.parametrize(("regime", "before", "after"), MOVED)
def test_a_run_goes_on_under_another_sharding(results: dict, regime: str, before: str, after: str) -> None:
    left = results["moved", regime, after]
    assert [entry["code"] for entry in left.exits] == [0, 0], left.exits
    assert left.losses == pytest.approx(results["torchrun", regime, before].losses[2:], rel=1e-4)


def test_ranks_with_answers_of_different_lengths_gather_the_head_of_the_chunked_loss_together(results: dict) -> None:
    gathered, whole = (results["torchrun", "full_amp", sharding] for sharding in CHUNKED)
    assert [entry["code"] for entry in gathered.exits] == [0, 0], gathered.exits
    assert gathered.losses == pytest.approx(whole.losses, rel=1e-2)


def test_pure_bf16_under_zero_keeps_bf16_masters_and_states(results: dict) -> None:
    layout = results["torchrun", "full_bf16", "zero2"].layouts[0]
    assert layout["trained_dtypes"] == ["torch.bfloat16"]
    assert layout["master_dtypes"] == ["torch.bfloat16"]
    assert layout["state_dtypes"] == ["torch.bfloat16"]


def test_gradients_are_views_of_ddps_buckets_and_zero2s_are_as_large_as_what_learns(results: dict) -> None:
    """The demo has fewer weights than the largest bucket, so the bucket holds all of them."""
    views, bucket = results["torchrun", "full_fp32", "ddp"].layouts[0], results["torchrun", "full_fp32", "zero2"].layouts[0]
    saved = load_file(results["torchrun", "full_fp32", "zero2"].folder.model / "model.safetensors")
    weights = sum(math.prod(tensor.shape) for name, tensor in saved.items() if name != "lm_head.weight")  # it is the embedding once more

    assert (views["gradient_views"], views["reduce_bucket"]) == (True, None)
    assert (bucket["gradient_views"], bucket["reduce_bucket"]) == (None, weights)


def test_weights_are_partitioned_under_zero3_only(results: dict) -> None:
    assert results["torchrun", "lora", "zero3"].layouts[0]["sharded_parameters"] > 0
    assert results["torchrun", "lora", "zero2"].layouts[0]["sharded_parameters"] == 0
