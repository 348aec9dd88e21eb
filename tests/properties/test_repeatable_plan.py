"""The same job has the same plan in every process: nothing in it hangs on the order of a set or the address of an object."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]

# the free disk is the machine's, and others write to it meanwhile
PLAN = """
import shutil, sys
from collections import namedtuple
shutil.disk_usage = lambda path: namedtuple("usage", "total used free")(2**42, 0, 2**42)
from launcher.cli import main
raise SystemExit(main(["plan", *sys.argv[1:], "--json"]))
"""
LARGE = ("model=llama3.1_8b", "data=files", "data.sets=[org/name]", "node=a100_80", "node.gpus=2", "training.max_steps=1000")


def plan(overrides: tuple[str, ...], seed: str, folder: str) -> dict[str, object]:
    command = [sys.executable, "-c", PLAN, *overrides, f"output={folder}"]
    environment = {**os.environ, "PYTHONHASHSEED": seed}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 3), done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("choices", [("regime=full",), ("regime=lora",), ("regime=full", "sharding=zero2"), ("regime=full", "sharding=fsdp2")])
def test_two_processes_print_the_same_plan(choices, tmp_path):
    overrides = (*LARGE, *choices)

    assert plan(overrides, "1", str(tmp_path)) == plan(overrides, "2", str(tmp_path))
