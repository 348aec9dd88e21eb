"""On a GPU: every form of ZeRO trains where CUDA_VISIBLE_DEVICES names the GPU by its UUID."""

import subprocess
from pathlib import Path

import pytest

from tests.waiting import PATIENCE

pytestmark = pytest.mark.gpu(1)


@pytest.mark.parametrize("sharding", ["zero1", "zero2", "zero3"])
def test_zero_trains_on_a_gpu_that_is_named_by_its_uuid(sharding: str, tmp_path: Path, python: str, site_environment: dict[str, str]) -> None:
    asked = ["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader"]
    uuid = subprocess.run(asked, capture_output=True, text=True, timeout=PATIENCE, check=True).stdout.splitlines()[0]
    job = ("model=demo", "data=demo", "data.max_samples=64", "training.max_steps=2", "training.micro_batch=4", "cluster.ranks_per_node=1")
    command = [python, "-m", "launcher", "train", *job, f"sharding={sharding}", f"output={tmp_path}", "name=uuid"]
    named = {**site_environment, "CUDA_VISIBLE_DEVICES": uuid}
    done = subprocess.run(command, env=named, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, (done.stdout, done.stderr)
    assert list(tmp_path.glob("uuid/*/model/*.safetensors"))
