"""On a GPU: `regimen stop`, which is what the button of the board runs, gives the memory of the GPU back."""

import os
import subprocess
from pathlib import Path

import pytest

from conf.committed import committed
from conf.signs import read_sign
from launcher.facts.node import visible_gpus
from launcher.launch.status import last_run, status_of
from tests.waiting import PATIENCE, wait_until

JOB = (
    *("model=qwen2.5_1.5b", "model.init=random", "model.path=null", "model.tokenizer=bytes", "data=demo", "name=stopped"),
    *("regime=lora", "training.precision=bf16", "training.micro_batch=4", "data.cutoff=512", "training.max_steps=2000", "checkpoint.interval=1000"),
    *("evaluation.interval=0", "evaluation.answers=0", "cluster.ranks_per_node=1", "sharding=ddp", "node=auto"),
)
MOST_OF_IT = 0.8  # other tests may use the same GPU meanwhile, so what is free is no exact number
WEIGHTS = 2 * 1_540_000_000  # bytes, in bf16: what the run holds at least


def used() -> int:
    """Bytes of the GPU that CUDA_VISIBLE_DEVICES names first."""
    gpu = visible_gpus()[0][0]
    return gpu.total - gpu.free


@pytest.mark.gpu(1)
def test_a_run_that_is_stopped_gives_the_memory_of_its_gpu_back(tmp_path: Path, python: str, site_environment: dict[str, str]) -> None:
    def call(*words: str) -> None:
        done = subprocess.run(
            (python, "-m", "launcher", *words), cwd=tmp_path, env=site_environment, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        assert done.returncode == 0, (done.stdout, done.stderr)

    call("train", "--detach", *JOB)
    run_dir = last_run(tmp_path / "outputs")
    wait_until(lambda: status_of(run_dir).step >= 2, "two steps")
    at_work = used()
    sign = read_sign(run_dir.signs / "rank-0.json")
    assert sign is not None
    call("stop", str(run_dir.path))
    wait_until(lambda: status_of(run_dir).state == "stopped", "end of the run")
    wait_until(lambda: used() <= at_work - MOST_OF_IT * WEIGHTS, "memory that the driver has back")
    assert not os.path.exists(f"/proc/{sign.pid}")
    assert sign.pid not in visible_gpus()[0][0].pids
    assert committed(run_dir)
