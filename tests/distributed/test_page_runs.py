"""The commands of the pages that train, watch, stop and go on, run as they stand on a small file of a run; tests/page_fates.py names them."""

import subprocess
import sys
from pathlib import Path

import pytest

from conf.committed import committed
from conf.run_dir import RunDir
from launcher.launch.status import find_runs, status_of
from tests.boards import environment
from tests.page_commands import commands
from tests.page_fates import fate_of
from tests.waiting import PATIENCE, wait_until

pytestmark = [pytest.mark.distributed, pytest.mark.long]

MINE = """recipe: demo
node: cpu
cluster.ranks_per_node: 1
data.max_samples: 100
training.micro_batch: 4
training.max_steps: 6
checkpoint.interval: 3
evaluation.interval: 0
evaluation.answers: 0
"""
LONGER = ("mine.yaml", "training.max_steps=60", "checkpoint.interval=2")
Words = tuple[str, ...]


def ours() -> set[Words]:
    """The words after `regimen` of each command whose fate is this file."""
    found = [(command, fate_of(command.page, command.words)) for command in commands()]
    return {command.words[1:] for command, fate in found if fate is not None and fate.test == "tests/distributed/test_page_runs.py"}


class Folder:
    """A working folder in which commands are called one after the other, and which of the pages' were."""

    def __init__(self, path: Path) -> None:
        self.path, self.called = path, set[Words]()
        (path / ".runtime").mkdir(mode=0o700)

    def call(self, *words: str, said: str = "") -> str:
        argv, site = (sys.executable, "-m", "launcher", *words), environment(self.path / ".runtime", XDG_STATE_HOME=str(self.path / ".state"))
        done = subprocess.run(argv, cwd=self.path, env=site, capture_output=True, text=True, timeout=PATIENCE, check=False, input=said)
        assert done.returncode == 0, (words, done.stdout[-2000:], done.stderr[-2000:])
        return done.stdout

    def page(self, line: str, said: str = "", **meant: object) -> str:
        """A command as a page has it; `meant` is what the reader fills in for a word of it."""
        words = tuple(line.split())
        self.called.add(words)
        filled = [*words]
        for name, value in meant.items():
            filled = [word.replace(name, str(value)) for word in filled]
        return self.call(*filled, said=said)

    def newest(self) -> RunDir:
        return RunDir(max(find_runs(self.path / "outputs"), key=lambda run: run.path.stat().st_ctime_ns).path.absolute())

    def stopped(self) -> RunDir:
        """A run that has been stopped after its first checkpoint."""
        before = {run.path for run in find_runs(self.path / "outputs")}
        self.call("train", "--detach", *LONGER)
        [run] = [run for run in find_runs(self.path / "outputs") if run.path not in before]
        run_dir = RunDir(run.path.absolute())
        wait_until(lambda: bool(committed(run_dir)), "a first checkpoint")
        self.page("stop RUN", RUN=run_dir.path)
        wait_until(lambda: status_of(run_dir).state == "stopped", "the end of the run")
        return run_dir


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    (tmp_path / "mine.yaml").write_text(MINE)
    return Folder(tmp_path)


def train_and_watch(folder: Folder) -> RunDir:
    folder.page("train mine.yaml")
    run_dir = folder.newest()
    folder.page("train mine.yaml optim.lr=1e-4 regime.rank=32")
    folder.page("train RUN/run.yaml", RUN=run_dir.path)
    for line in ("status RUN", "status --follow RUN"):
        assert "finished" in folder.page(line, RUN=run_dir.path)
    assert "finished" in folder.page("status --follow last")
    return run_dir


def ask(folder: Folder, run_dir: RunDir) -> None:
    assert "exported: " in folder.page("export RUN", RUN=run_dir.path)
    assert "exported: " in folder.page("export RUN@step-N", RUN=run_dir.path, **{"-N": "-3"})
    assert "rouge1" in folder.page("predict RUN", RUN=run_dir.path)
    assert folder.page("chat RUN", said="What is 1 + 1?\n", RUN=run_dir.path).strip()


def sweep(folder: Folder) -> None:
    folder.page("train -m mine.yaml optim.lr=1e-4,3e-4")
    folder.page("train -m resume=last")
    folder.page("train -m resume=last optim.lr=1e-4,3e-4,1e-3")
    [swept] = (folder.path / "outputs" / "sweeps").iterdir()
    folder.page("status outputs/sweeps/TIME", TIME=swept.name)
    folder.page("stop outputs/sweeps/TIME", TIME=swept.name)


def go_on(folder: Folder) -> None:
    folder.stopped()
    folder.page("train resume=last")
    folder.page("train resume=RUN", RUN=folder.stopped().path)
    folder.page("train resume=FOLDER", FOLDER=folder.stopped().path)
    folder.page("train resume=RUN checkpoint.resume=start", RUN=folder.stopped().path)
    folder.stopped()
    folder.page("train resume=last sharding=zero3 cluster.ranks_per_node=1")


def test_the_commands_of_the_pages_do_what_they_say(folder: Folder) -> None:
    ask(folder, train_and_watch(folder))
    sweep(folder)
    go_on(folder)
    assert folder.called == ours()
