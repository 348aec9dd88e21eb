"""F15 in small: the budget of restarts holds, and the script that shows it fails where nothing counts the starts."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.waiting import PATIENCE

SCRIPT = Path(__file__).resolve().parents[3] / "benchmarks" / "reliability" / "restarts.py"


@pytest.mark.parametrize(("options", "trials", "code"), [((), 6, 0), (("--broken",), 2, 1)])
def test_a_hopeless_run_is_started_three_times(
    options: tuple[str, ...], trials: int, code: int, tmp_path: Path, site_environment: dict[str, str]
) -> None:
    argv = [sys.executable, str(SCRIPT), "--trials", str(trials), "--results", str(tmp_path / "lines"), *options]
    done = subprocess.run(argv, env=site_environment, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    lines = [json.loads(line) for line in (tmp_path / "lines").read_text().splitlines()]
    assert {line["starter"] for line in lines} == {"supervisor", "slurm"}
    assert [line["held"] for line in lines] == [code == 0] * trials
