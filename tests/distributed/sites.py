"""A user who trains on several machines with cluster=hosts, for the tests of a stand-in for ssh and of ssh itself."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from conf.committed import committed
from conf.processes import process_start
from conf.records import is_step, read_lines
from conf.run_dir import RunDir
from conf.signs import read_sign
from tests.waiting import PATIENCE, wait_until

RUN = (
    *("model=demo", "model.architecture.hidden_size=64", "model.architecture.intermediate_size=128", "data=demo", "data.max_samples=64"),
    *("node=cpu", "regime=full", "training.precision=fp32", "evaluation.answers=0", "data.validation_share=0", "evaluation.interval=0", "name=demo"),
)
LONG = ("training.max_steps=100000", "checkpoint.interval=5")


class Site:
    """A user with a command line, whose ssh is this script."""

    def __init__(self, folder: Path, ssh: str, *where: str, **variables: str) -> None:
        (folder / "bin").mkdir()
        (folder / "bin/ssh").write_text(ssh)
        (folder / "bin/ssh").chmod(0o755)
        self.folder, self.output, self.where = folder, folder / "outputs", where
        hidden = ("PYTEST_CURRENT_TEST", "GITHUB_TOKEN")
        self.environment = {name: value for name, value in os.environ.items() if name not in hidden}
        self.environment |= {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "STAND_IN": str(folder), **variables}

    def argv(self, *words: str) -> tuple[str, ...]:
        return (sys.executable, "-m", "launcher", *words)

    def call(self, *words: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(self.argv(*words), env=self.environment, capture_output=True, text=True, timeout=PATIENCE, check=False)

    def train(self, *words: str) -> "subprocess.CompletedProcess[str]":
        return self.call("train", *RUN, f"output={self.output}", *self.where, *words)

    def start(self, *words: str) -> "subprocess.Popen[str]":
        argv = self.argv("train", *RUN, f"output={self.output}", *self.where, *words)
        return subprocess.Popen(argv, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    @property
    def run_dir(self) -> RunDir:
        [path] = self.output.glob("demo/*")
        return RunDir(path)

    def status(self) -> dict[str, Any]:
        [found] = json.loads(self.call("status", "--json", str(self.run_dir.path)).stdout)
        return dict(found)


def alive(run_dir: RunDir) -> list[int]:
    """The ranks whose processes live."""
    signs = {rank: read_sign(run_dir.sign(rank)) for rank in (0, 1)}
    return [rank for rank, sign in signs.items() if sign is not None and process_start(sign.pid) == sign.start]


def steps(run_dir: RunDir) -> list[int]:
    return [entry["step"] for entry in read_lines(run_dir.progress, is_step).entries if "loss" in entry]


def trains(site: Site, process: "subprocess.Popen[str]") -> None:
    wait_until(lambda: list(site.output.glob("demo/*")) and len(committed(site.run_dir)) > 0, "checkpoint", process)
