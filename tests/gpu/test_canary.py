"""On a GPU: where the estimate is too close to decide, two real steps do. A cap on torch's allocator makes the card as small as the job's need."""

import json
import subprocess
from pathlib import Path

import pytest

from launcher.composition.compose import compose
from launcher.gate.judge import judge_run
from launcher.memory.constants import CUDA_CONTEXT
from launcher.memory.estimate import MemoryEstimate
from tests.waiting import PATIENCE

JOB = (
    *("model=qwen2.5_0.5b", "model.init=random", "model.path=null", "model.tokenizer=bytes", "data=demo"),
    *("regime=full", "training.precision=bf16", "training.micro_batch=4", "data.cutoff=512", "training.max_steps=1"),
    *("checkpoint.interval=0", "evaluation.interval=0", "gate.mode=enforce", "gate.floor=advisory", "gate.canary=true", "training.fit=off"),
    "node=h200_141",
)
ONE = (*JOB, "cluster.ranks_per_node=1", "node.gpus=1")
TWO = (*JOB, "cluster.ranks_per_node=2", "node.gpus=2", "sharding=zero2")
PAIRS = (*TWO, "stage=dpo", "training.micro_batch=2")


def predicted(job: tuple[str, ...]) -> MemoryEstimate:
    return judge_run(compose(job)).estimate


def train(job: tuple[str, ...], card: int, really: int, output: Path, python: str, environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    """The job on cards that are said to have `card` bytes each, every rank under a cap of `really` bytes of allocator."""
    import torch

    share = really / torch.cuda.get_device_properties(0).total_memory
    capped = {**environment, "PYTORCH_ALLOC_CONF": f"expandable_segments:True,per_process_memory_fraction:{share:.6f}"}
    command = [python, "-m", "launcher", "train", *job, f"node.gpu_memory={card}", f"output={output}", "name=close"]
    return subprocess.run(command, env=capped, capture_output=True, text=True, timeout=PATIENCE, check=False)


@pytest.mark.parametrize(
    "job", [pytest.param(ONE, marks=pytest.mark.gpu(1), id="one"), pytest.param(PAIRS, marks=pytest.mark.gpu(2), id="two, of pairs")]
)
def test_a_close_verdict_permits_what_two_real_steps_could_run(
    job: tuple[str, ...], tmp_path: Path, python: str, site_environment: dict[str, str]
) -> None:
    found = predicted(job)
    done = train(job, found.required, found.required - CUDA_CONTEXT, tmp_path, python, site_environment)

    assert "A canary of 2 steps decides" in done.stdout
    assert done.returncode == 0, (done.stdout, done.stderr)
    (plan,) = tmp_path.glob("close/*/plan.json")
    verdict = json.loads(plan.read_text())["verdict"]
    assert verdict["permitted"]
    assert [check["passed"] for check in verdict["checks"] if check["rule"] in ("GPU_PEAK", "CANARY")] == [False, True]
    assert not list(tmp_path.glob(".canary-*"))


@pytest.mark.parametrize("job", [pytest.param(ONE, marks=pytest.mark.gpu(1), id="one"), pytest.param(TWO, marks=pytest.mark.gpu(2), id="two")])
def test_a_close_verdict_refuses_what_ran_out_of_memory_in_two_real_steps(
    job: tuple[str, ...], tmp_path: Path, python: str, site_environment: dict[str, str]
) -> None:
    found = predicted(job)
    done = train(job, found.required, int(0.9 * found.allocated), tmp_path, python, site_environment)

    assert "A canary of 2 steps decides" in done.stdout
    assert done.returncode == 3, (done.stdout, done.stderr)
    assert "CANARY" in done.stdout + done.stderr
    assert "a canary of 2 steps failed" in done.stdout + done.stderr
    assert not list(tmp_path.glob("*/*"))  # neither of the canary nor of the run
