"""A sweep as a job array of a real Slurm, with real ranks."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from conf.run_dir import RunDir
from launcher.sweep.ledger import SweepDir
from launcher.sweep.standing import sweep_status
from tests.slurm.test_train import RUN, CommandLine
from tests.waiting import LONG_PAUSE, wait_until

if TYPE_CHECKING:
    from tests.slurm.cluster import Cluster

pytestmark = pytest.mark.slurm


def test_each_point_of_an_array_trains_and_one_that_was_stopped_goes_on(cluster: "Cluster", tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first of two, one after the other, puts itself into the queue again when it is warned of its time limit."""
    monkeypatch.setenv("SLURM_CONF", cluster.environment["SLURM_CONF"])
    regimen = CommandLine(cluster, tmp_path)
    words = [word for word in RUN if not word.startswith(("cluster.nodes", "training.max_steps"))]
    sweep = ("hydra/launcher=slurm", "hydra.launcher.throttle=1", "training.max_steps=30,31", "cluster.nodes=1")
    done = regimen.call("train", "-m", *words, *sweep, f"output={tmp_path}")
    assert done.returncode == 0, done.stderr
    [folder] = tmp_path.glob("sweeps/*")
    first, second = (RunDir(Path(line)) for line in (folder / "array-1.txt").read_text().splitlines())
    wait_until(lambda: first.progress.exists() and first.progress.read_text().count("loss"), "first step of the first point")
    number = next(iter(first.logs.glob("slurm-*.txt"))).stem.removeprefix("slurm-")
    cluster.ask("scancel", "--batch", "--signal=USR1", number)

    def ended() -> bool:
        return sweep_status(SweepDir(folder)).state == "ended"

    wait_until(ended, "end of both points", pause=LONG_PAUSE)
    assert [result.state for result in sweep_status(SweepDir(folder)).results] == ["finished", "finished"]
    assert (first.model / "adapter_model.safetensors").is_file()
    assert (second.model / "adapter_model.safetensors").is_file()
    assert '"requeued"' in first.journal.read_text()
