"""Measures what a user waits for before any work begins: help, plans, refusals, estimates, and what `regimen train` adds before the agent starts.

    python -m benchmarks.speed.startup [--runs 10] [--out benchmarks/results/speed/startup.json]

Every command is a process of its own, its bytecode cached as an installed package has it; one run warms the caches and is not counted. Other work on
the machine lengthens the wall time, hardly the CPU time: both are recorded, with the load before and after. Exits 1 when a median misses its goal.
"""

import argparse
import json
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from conf.run_dir import RunDir
from launcher.launch import journal

REPOSITORY = Path(__file__).resolve().parents[2]
REGIMEN = (sys.executable, "-m", "launcher")
HELP_SECONDS, PLAN_SECONDS, TRAIN_SECONDS, ESTIMATES_SECONDS = 0.15, 0.5, 1.0, 1.0
PERMITTED = ("plan", "model=llama3.1_8b", "data=demo", "node=h100_80")
REFUSED = ("plan", "model=llama3.1_8b", "data=files", "data.sets=[org/name]", "regime=full", "node=a100_40")
ESTIMATES = """
import os, sys, time
from dataclasses import replace
from launcher.composition.compose import compose
from launcher.memory import estimate
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
PACKAGES = ("regimen", "hydra-core", "omegaconf", "pyyaml", "torch")
POLL_SECONDS = 0.002
UNHEARD: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


@dataclass(frozen=True)
class Taken:
    wall: float  # seconds
    cpu: float  # seconds, user and system, of the process itself


@dataclass(frozen=True)
class Measurement:
    command: str
    goal_seconds: float
    met: bool  # by the median of the wall time
    wall_seconds: dict[str, float]
    cpu_seconds: dict[str, float]


def main() -> int:
    arguments = parsed()
    with tempfile.TemporaryDirectory(prefix="regimen-startup-") as folder:
        work, before = Path(folder), os.getloadavg()
        site = environment(work)
        results = [measured(*row, arguments.runs) for row in rows(work, site)]
    arguments.out.write_text(json.dumps({**surroundings(before), "runs": arguments.runs, "measurements": [*map(asdict, results)]}, indent=1) + "\n")
    for result in results:
        print(f"{result.command:<110} {result.wall_seconds['median']:.3f} s, CPU {result.cpu_seconds['median']:.3f} s, goal {result.goal_seconds} s")
    return 0 if all(result.met for result in results) else 1


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure the start of every command.")
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--out", type=Path, default=REPOSITORY / "benchmarks" / "results" / "speed/startup.json")
    return parser.parse_args()


def environment(work: Path) -> dict[str, str]:
    """This environment, from a folder that is not the checkout, with bytecode cached in a place that leaves no trace."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPATH": str(REPOSITORY), "PYTHONPYCACHEPREFIX": str(work / "bytecode")}


def rows(work: Path, site: Mapping[str, str]) -> list[tuple[str, float, Callable[[], Taken]]]:
    """(what is measured, its goal, how it is run once)."""
    asked = subprocess.run([*REGIMEN, "--help"], cwd=work, env=site, capture_output=True, text=True, check=True).stdout
    verbs = re.findall(r"^    ([a-z]+)  ", asked, re.MULTILINE)
    helps = [("--help",), *((verb, "--help") for verb in verbs)]
    commands = [*((argv, HELP_SECONDS, 0) for argv in helps), (PERMITTED, PLAN_SECONDS, 0), (REFUSED, PLAN_SECONDS, 3)]
    ending = [(" ".join(["regimen", *argv]), goal, lambda argv=argv, code=code: whole(argv, code, work, site)) for argv, goal, code in commands]
    train = ("regimen train, until torchrun is started", TRAIN_SECONDS, lambda: until_agent(work, site))
    return [*ending, train, ("1,000 estimates in one process, 32 different ones", ESTIMATES_SECONDS, lambda: thousand_estimates(work, site))]


def measured(command: str, goal: float, once: Callable[[], Taken], runs: int) -> Measurement:
    once()
    taken = [once() for _ in range(runs)]
    walls, cpus = [one.wall for one in taken], [one.cpu for one in taken]
    return Measurement(command, goal, median(walls) <= goal, spread(walls), spread(cpus))


def spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": round(median(values), 4), "least": round(min(values), 4), "most": round(max(values), 4)}


def whole(argv: Sequence[str], code: int, work: Path, site: Mapping[str, str]) -> Taken:
    """One command from its start to its end.

    Raises:
        RuntimeError: when it ends with another exit code.
    """
    began = time.perf_counter()
    process = subprocess.Popen([*REGIMEN, *argv], cwd=work, env=site, **UNHEARD)
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


def surroundings(load_before: tuple[float, float, float]) -> dict[str, object]:
    return {
        "command": " ".join(["python", *sys.argv]),
        "date": time.strftime("%Y-%m-%d"),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
        "cpu": processor(),
        "cpus": os.cpu_count(),
        "load_before": load_before,
        "load_after": os.getloadavg(),
    }


def processor() -> str:
    found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    return found[1] if found else platform.machine()


if __name__ == "__main__":
    raise SystemExit(main())
