"""What an evaluation measures depends on neither ranks, micro-batch, packing nor sharding: it equals a plain loop over the samples."""

from pathlib import Path

import pytest
from evaluations import FSDP_ON_CPU, PACKED, Cell, allowed, assert_plain, evaluate_cells, save_start

pytestmark = pytest.mark.distributed

CHUNKED = ("training.loss=chunked",)
FUSED = ("training.kernels=fused", "training.attention=varlen")
# ddp first: accelerate never leaves DeepSpeed again within one process
CHOSEN = {
    2: [
        *(Cell("sft", "ddp", 2), Cell("sft", "ddp", 2, PACKED), Cell("kto", "ddp", 2), Cell("grpo", "ddp", 2)),
        *(Cell("dpo", "zero2", 2), Cell("sft", "zero3", 2, CHUNKED), Cell("rm", "zero3", 2)),
    ],
    3: [
        *(Cell("orpo", "ddp", 3), Cell("pt", "ddp", 3, (*PACKED, "training.kernels=fused"))),
        *(Cell("simpo", "zero2", 3), Cell("kto", "zero3", 3), Cell("ppo", "zero3", 3)),
    ],
}
STAGES = ("pt", "sft", "rm", "dpo", "kto", "orpo", "simpo", "ppo", "grpo")
FORMS: list[tuple[str, tuple[str, ...]]] = [
    ("sft", PACKED),
    ("sft", CHUNKED),
    ("sft", ("training.kernels=fused",)),
    ("sft", ("training.kernels=fused", *CHUNKED)),
    ("dpo", ("stage.precompute_reference=true",)),
    *((stage, ("regime=lora",)) for stage in ("sft", "dpo", "kto")),
    *((stage, FUSED) for stage in ("rm", "dpo", "kto", "orpo", "simpo")),
]
EVERY = {
    ranks: [
        Cell(stage, sharding, ranks, further)
        for sharding in ("ddp", "zero2", "zero3")
        for stage, further in (*((stage, ()) for stage in STAGES), *FORMS)
    ]
    for ranks in (1, 2, 3)
}
SPLIT = {ranks: [Cell(stage, "fsdp2", ranks) for stage in STAGES] for ranks in (2, 3)}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluations")
    save_start(folder)
    return folder


@pytest.mark.parametrize("ranks", CHOSEN)
def test_chosen_pairs_equal_a_plain_loop_over_the_samples(ranks: int, root: Path) -> None:
    for cell, found in evaluate_cells(CHOSEN[ranks], root).items():
        assert_plain(cell, found, root)


@pytest.mark.long
@pytest.mark.parametrize("ranks", EVERY)
def test_every_stage_and_sharding_equals_a_plain_loop_over_the_samples(ranks: int, tmp_path: Path) -> None:
    save_start(tmp_path)
    for cell, found in evaluate_cells(allowed(EVERY[ranks], tmp_path), tmp_path).items():
        assert_plain(cell, found, tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("ranks", SPLIT)
def test_every_stage_under_fsdp2_equals_a_plain_loop_over_the_samples(ranks: int, tmp_path: Path) -> None:
    save_start(tmp_path)
    for cell, found in evaluate_cells(SPLIT[ranks], tmp_path, FSDP_ON_CPU).items():
        assert_plain(cell, found, tmp_path)
