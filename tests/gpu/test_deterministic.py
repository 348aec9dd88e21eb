"""training.deterministic=true on a GPU: two runs of one job give the same bits. Resumed ones: benchmarks/reliability/kills_in_training.py."""

import json
import subprocess
from hashlib import sha256
from pathlib import Path

import pytest

from tests.waiting import PATIENCE

pytestmark = pytest.mark.gpu(1)

JOB = ("model=demo", "data=demo", "data.max_samples=64", "data.cutoff=256", "training.max_steps=6", "training.micro_batch=4")
QUIET = ("evaluation.interval=0", "evaluation.answers=0", "data.validation_share=0", "cluster.ranks_per_node=1", "training.fit=off")
FORMS = {
    "lora-plain": ("regime=lora", "training.kernels=plain"),
    "lora-fused": ("regime=lora", "training.kernels=fused"),
    "qlora4-fused": ("regime=qlora", "regime.bits=4", "training.kernels=fused"),
    "full-plain": ("regime=full", "training.kernels=plain"),
    "full-fused-zero2": ("regime=full", "training.kernels=fused", "sharding=zero2"),
    "dpo-plain": ("stage=dpo", "regime=lora", "training.kernels=plain"),
}


@pytest.mark.parametrize("form", FORMS)
def test_two_runs_of_one_job_give_the_same_bits(form: str, tmp_path: Path, python: str, site_environment: dict[str, str]) -> None:
    if "fused" in form:
        pytest.importorskip("liger_kernel")

    def train(name: str, *more: str) -> Path:
        given = (*JOB, *QUIET, *FORMS[form], "training.deterministic=true", f"output={tmp_path}", f"name={name}", *more)
        done = subprocess.run(
            [python, "-m", "launcher", "train", *given], env=site_environment, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        assert done.returncode == 0, (done.stdout, done.stderr)
        return next(tmp_path.glob(f"{name}/*/run.yaml")).parent

    once, again = train("once", "checkpoint.interval=0"), train("again", "checkpoint.interval=2")
    assert left_by(again) == left_by(once)


def left_by(run: Path) -> tuple[list[tuple[float, float]], dict[str, str]]:
    """The loss and the norm of the gradients of each step, and the hash of each file of weights."""
    weights = {path.name: sha256(path.read_bytes()).hexdigest() for path in (run / "model").glob("*.safetensors")}
    assert weights
    return losses(run), weights


def losses(run: Path) -> list[tuple[float, float]]:
    entries = [json.loads(line) for line in (run / "progress.jsonl").read_text().splitlines()]
    return [(entry["loss"], entry["grad_norm"]) for entry in entries if "loss" in entry]
