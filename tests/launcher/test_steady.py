"""Nothing that happens to the terminal reaches a run."""

import os
import subprocess
from pathlib import Path

import command_line as line
import pytest
from cells import TINY

from conf import journal

PLAN = ("plan", "model=demo", "data=demo", "node=cpu")


def test_a_full_disk_under_the_output_is_told(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*line.MODULE, *PLAN], cwd=tmp_path, env=line.environment(), stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 74
    assert done.stderr == "regimen: standard output could not be written (No space left on device); from there on it is lost.\n"


def test_an_output_that_is_closed_is_no_failure_of_a_plan(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([*line.MODULE, *PLAN], cwd=tmp_path, env=line.environment(), stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_ascii_terminal_shows_what_it_can(tmp_path: Path) -> None:
    done = line.call((*line.MODULE, *PLAN, 'name="模型"'), tmp_path, PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert done.code == 0, done.text
    assert r"\u6a21\u578b" in done.out


@pytest.mark.distributed
def test_a_run_goes_on_when_its_reader_leaves(tmp_path: Path) -> None:
    """As `regimen train ... | head -n 1` does, on an ASCII terminal."""
    argv = [*line.MODULE, "train", "recipe=demo", *TINY, "cluster.ranks_per_node=1", "sharding=ddp", "training.max_steps=3"]
    site = line.environment(PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    with subprocess.Popen(argv, cwd=tmp_path, env=site, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline()
        process.stdout.close()
        said = process.stderr.read()
        assert process.wait() == 0, said
    run_dir = line.the_run(tmp_path / "outputs")
    assert (run_dir.model / "config.json").is_file() or (run_dir.model / "adapter_config.json").is_file()
    assert journal.events(run_dir)[-1]["exit_code"] == 0
