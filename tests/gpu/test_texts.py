"""Texts laid end to end on a GPU: whole runs of the stages that compare answers log what the plain kernels log, without their padding."""

import json
from pathlib import Path
from typing import Any

import pytest

from conf.run_dir import RunDir, save_run
from launcher.composition.compose import compose
from launcher.gate.judge import judge_run
from trainers.ranks.place import Place

pytestmark = pytest.mark.gpu(1)

DESCRIBED = ("model=demo", "data=demo", "data.cutoff=128", "training.max_steps=8", "training.micro_batch=4", "data.validation_share=0")
WITHOUT = (
    "checkpoint.interval=0",
    "node=auto",
    "cluster.ranks_per_node=1",
    "sharding=ddp",
    "training.gradient_checkpointing=false",
    "training.fit=off",
)


def logged(folder: Path, *overrides: str) -> list[dict[str, Any]]:
    from accelerate.state import AcceleratorState, GradientState

    from trainers.run import train

    pytest.importorskip("liger_kernel")
    run, run_dir = judge_run(compose([*DESCRIBED, *WITHOUT, *overrides])).run, RunDir(folder / "once")
    run_dir.path.mkdir(parents=True)
    save_run(run, run_dir)
    AcceleratorState._reset_state()
    GradientState._reset_state()
    assert train(run, run_dir, Place(0, 0, 1)) == (0, "finished")
    return [entry for entry in map(json.loads, run_dir.progress.read_text().splitlines()) if "loss" in entry]


@pytest.mark.parametrize("regime", [("regime=full",), ("regime=lora", "regime.rank=8")], ids=["full", "lora"])
@pytest.mark.parametrize("stage", ["rm", "dpo", "kto", "orpo", "simpo"])
def test_a_run_logs_what_the_plain_kernels_log(stage: str, regime: tuple[str, ...], tmp_path: Path) -> None:
    """In bf16 a log-probability of an answer is off by some hundredths under either kernels."""
    plain = logged(tmp_path / "plain", f"stage={stage}", *regime, "training.kernels=plain")
    fused = logged(tmp_path / "fused", f"stage={stage}", *regime, "training.kernels=fused")

    assert len(fused) == len(plain) == 8
    for ours, theirs in zip(fused, plain, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=0.02, abs=0.02)
        assert ours["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=0.1, abs=0.05)
        assert ours["padding"] < 0.5  # filled up by fewer than 128 tokens, to 256 or more: the texts of these steps have over 128


@pytest.mark.parametrize("stage", ["dpo", "orpo"])
def test_a_chunked_loss_logs_the_same(stage: str, tmp_path: Path) -> None:
    plain = logged(tmp_path / "plain", f"stage={stage}", "regime=full", "training.kernels=fused")
    chunked = logged(tmp_path / "chunked", f"stage={stage}", "regime=full", "training.kernels=fused", "training.loss=chunked")

    for ours, theirs in zip(chunked, plain, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=0.02, abs=0.02)
