"""One start of a command, timed: wall and CPU seconds until it ended, or until it reached the given point."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conf import journal
from conf.run_dir import RunDir

REGIMEN = (sys.executable, "-m", "launcher")
ESTIMATES = """
import os, sys, time
from dataclasses import replace
from launcher.composition.compose import compose
from launcher.memory.estimate import estimate
from launcher.facts.model import model_facts
from launcher.facts.node import settled_node
from launcher.gate.settle import settled

run = compose(["model=llama3.1_8b", "data=demo", "node=h100_80", "node.host_memory=400000000000"])
run = settled(run, settled_node(run.node, run.node.gpus))
facts = model_facts(run.model.architecture, "benchmark")
runs = [replace(run, training=replace(run.training, micro_batch=1 + number % 32)) for number in range(1000)]
began, cpu = time.perf_counter(), time.process_time()
needs = {estimate(each, facts).required for each in runs}
print(time.perf_counter() - began, time.process_time() - cpu, len(needs))
"""
POLL_SECONDS = 0.002
UNHEARD: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


@dataclass(frozen=True)
class Taken:
    wall: float  # seconds
    cpu: float  # seconds, user and system, of the process itself


def whole(argv: Sequence[str], code: int, work: Path, site: Mapping[str, str]) -> Taken:
    """One process from its start to its end.

    Raises:
        RuntimeError: when it ends with another exit code.
    """
    began = time.perf_counter()
    process = subprocess.Popen(argv, cwd=work, env=site, **UNHEARD)
    cpu = reaped(process)
    wall = time.perf_counter() - began
    if process.returncode != code:
        raise RuntimeError(f"{' '.join(argv)} ended with {process.returncode} instead of {code}")
    return Taken(wall, cpu)


def thousand_estimates(work: Path, site: Mapping[str, str]) -> Taken:
    """By the process' own clock: imports and composing are in the rows above.

    Raises:
        RuntimeError: when they were not 32 different ones.
    """
    done = subprocess.run([sys.executable, "-c", ESTIMATES], cwd=work, env=site, capture_output=True, text=True, check=True)
    wall, cpu, different = done.stdout.split()
    if int(different) != 32:
        raise RuntimeError(f"{different} different estimates instead of 32")
    return Taken(float(wall), float(cpu))


def until_agent(work: Path, site: Mapping[str, str]) -> Taken:
    """`regimen train` until its journal says that the agent, the bare torchrun command, is started; the agent is killed then.

    Raises:
        RuntimeError: when it does not come that far.
    """
    with tempfile.TemporaryDirectory(dir=work) as output:
        began = time.time()
        process = subprocess.Popen([*REGIMEN, "train", f"output={output}"], cwd=work, env=site, **UNHEARD)
        taken = None
        while process.poll() is None:  # until the launcher has seen its agent dead and given up
            started = start_time(Path(output))
            if started is not None:
                taken = taken or Taken(started - began, cpu_until_now(process.pid))
                kill_agent(process.pid)
            time.sleep(POLL_SECONDS)
        if taken is None:
            raise RuntimeError(f"regimen train did not start its agent; exit code {process.returncode}")
        return taken


def kill_agent(launcher: int) -> None:
    """Kill the launcher's child, if there is one by now and while there is one still."""
    with suppress(FileNotFoundError, ProcessLookupError):
        for agent in Path(f"/proc/{launcher}/task/{launcher}/children").read_text(encoding="ascii").split():
            os.kill(int(agent), signal.SIGKILL)


def cpu_until_now(pid: int) -> float:
    """CPU seconds of a living process, its children not counted (proc(5): fields 14 and 15 of stat)."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def start_time(output: Path) -> float | None:
    """When the agent of the only run under `output` was started, in seconds since the epoch."""
    starts = [
        event["time"] for path in output.glob("*/*/journal.jsonl") for event in journal.events(RunDir(path.parent)) if event["event"] == "start"
    ]
    return float(starts[0]) if starts else None


def reaped(process: "subprocess.Popen[bytes]") -> float:
    """Wait for the process; its CPU seconds."""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage.ru_utime + usage.ru_stime
