"""The fused kernels on two ranks: the losses and gradients of the plain ones, with accumulation and checkpointing."""

import json
from pathlib import Path

import pytest
from command_line import MODULE, call, only, run_folders

pytestmark = pytest.mark.distributed

SHORT = ("model=demo", "data=demo", "node=cpu", "cluster.ranks_per_node=2", "training.precision=fp32", "training.max_steps=5", "optim.warmup=0")
QUIET = ("checkpoint.interval=0", "evaluation.interval=0", "gate.mode=off")
BATCH = ("training.micro_batch=2", "training.accumulation=2", "training.gradient_checkpointing=true")


def losses(folder: Path, *overrides: str) -> list[tuple[float, float]]:
    """The loss and the norm of the gradients of every step."""
    ended = call([*MODULE, "train", *SHORT, *QUIET, *BATCH, "regime=lora", *overrides, f"output={folder}"], Path.cwd())
    assert ended.code == 0, ended.text
    entries = [json.loads(line) for line in only(run_folders(folder)).progress.read_text().splitlines()]
    return [(entry["loss"], entry["grad_norm"]) for entry in entries if "loss" in entry]


@pytest.mark.parametrize("sharding", ["ddp", "zero2"])
def test_two_ranks_learn_what_the_plain_kernels_learn(sharding: str, tmp_path: Path) -> None:
    plain = losses(tmp_path / "plain", f"sharding={sharding}", "training.kernels=plain")
    fused = losses(tmp_path / "fused", f"sharding={sharding}", "training.kernels=fused", "training.attention=varlen")

    assert len(plain) == 5
    for ours, theirs in zip(fused, plain, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)


@pytest.mark.long
@pytest.mark.parametrize("stage", ["rm", "dpo", "kto", "orpo", "simpo"])
def test_two_ranks_prefer_what_the_plain_kernels_prefer(stage: str, tmp_path: Path) -> None:
    """kto's estimate of KL is that of both ranks."""
    plain = losses(tmp_path / "plain", f"stage={stage}", "sharding=ddp", "training.kernels=plain")
    fused = losses(tmp_path / "fused", f"stage={stage}", "sharding=ddp", "training.kernels=fused", "training.attention=varlen")

    assert len(plain) == 5
    for ours, theirs in zip(fused, plain, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)
