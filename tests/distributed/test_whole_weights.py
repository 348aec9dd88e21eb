"""Answers under ZeRO-3 on two ranks: written with weights that are gathered once."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.distributed

SCRIPT = Path(__file__).with_name("write_answers.py")


def test_answers_are_the_same_with_weights_that_are_gathered_once_and_split_again(tmp_path: Path) -> None:
    repository = str(SCRIPT.parents[2])
    argv = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(SCRIPT), str(tmp_path))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([repository, os.environ.get("PYTHONPATH", "")]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(lines[-1])

    assert found["whole"]["answers"] == found["hooks"]["answers"]
    assert found["whole"]["fetches"] == 0
    assert found["hooks"]["fetches"] > 8 * 2 * 7  # of 8 tokens, 2 layers, 7 matrices
    assert found["whole"]["split"]
