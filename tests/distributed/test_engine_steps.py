"""Steps of ZeRO that do not wait for the GPU are those of DeepSpeed."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.waiting import PATIENCE

pytestmark = pytest.mark.distributed

SCRIPT = Path(__file__).with_name("run_engine_steps.py")
STAGES = [f"zero{stage} torch.{masters}" for stage in (1, 2) for masters in ("float32", "bfloat16")]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Any:
    result = tmp_path_factory.mktemp("engine") / "result.json"
    argv = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(SCRIPT), str(result), "cpu")
    environment = {**os.environ, "PYTHONPATH": str(SCRIPT.parents[2]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return json.loads(result.read_text())


@pytest.mark.parametrize("stage", STAGES)
def test_norms_and_weights_are_those_of_deepspeed(found: Any, stage: str) -> None:
    waiting, going_on = found[stage]["waiting"], found[stage]["going on"]
    assert min(waiting["norms"]) > 0.01  # every step is scaled down
    rounding = (
        5e-3 if "bfloat16" in stage else 1e-4
    )  # on CPUs torch multiplies gradients in bf16 by DeepSpeed's factor in fp32, on GPUs by one in bf16
    assert going_on["norms"] == pytest.approx(waiting["norms"], rel=rounding)
    assert going_on["weights"] == pytest.approx(waiting["weights"], rel=rounding, abs=0.1)


@pytest.mark.parametrize("stage", STAGES)
def test_a_step_that_is_not_finite_is_not_left_out_without_a_word(found: Any, stage: str) -> None:
    """The norm says so, and so do the weights: a run ends before it saves them."""
    seen = found[stage]["infinite"]
    assert not math.isfinite(float(seen["norm"]))
    assert not seen["finite"]
    assert seen["skipped"] == 0
