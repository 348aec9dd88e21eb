"""On GPUs: a step of ZeRO-1 and ZeRO-2 is queued without the host waiting, and its numbers are DeepSpeed's."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.waiting import PATIENCE

SCRIPT = Path(__file__).parents[1] / "distributed" / "run_engine_steps.py"


@pytest.mark.gpu(1)
def test_a_step_waits_for_nothing_and_gives_the_same(tmp_path: Path) -> None:
    """The script makes an error of whatever reads a value of the GPU in a step that goes on."""
    result = tmp_path / "result.json"
    argv = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=1", str(SCRIPT), str(result), "cuda")
    environment = {**os.environ, "PYTHONPATH": f"{SCRIPT.parents[2]}:{os.environ.get('PYTHONPATH', '')}"}
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    for stage, found in json.loads(result.read_text()).items():
        assert found["going on"]["norms"] == pytest.approx(found["waiting"]["norms"], rel=1e-3), stage
        assert found["going on"]["weights"] == pytest.approx(found["waiting"]["weights"], rel=1e-3, abs=1e-2), stage
