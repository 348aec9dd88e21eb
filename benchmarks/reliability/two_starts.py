"""F10: one run is started twice, in the foreground, detached or in a pid namespace. Is the second refused while the first lives, and only then?

`PYTHONPATH=. python benchmarks/reliability/two_starts.py --trials 100 --out benchmarks/results/reliability/two_starts.jsonl`; `--first 100` goes on.
Each trial is two real command lines on a copy of one run folder. The first lives, was killed (SIGKILL), or begins at the same moment as the second.
Held: as long as one lives the other ends with 73, and one agent was started; after a kill the second takes over and finishes. A stand-in for torchrun
notes that it was started and waits: what it would start is not what is tried here. Namespaces need root, and are left out without it. The broken
variant gives the lock to everybody.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.reliability.live_runs import alive, clean_up, environment, wait_for
from benchmarks.reliability.trials import arguments, run
from conf.exit_codes import DONE, IN_USE
from conf.run_dir import RunDir
from launcher.launch.lock import read_owner

# Found before torch by the launcher's children: the launcher itself imports none.
AGENT = """
import json, os, pathlib, sys, time
folder = pathlib.Path(sys.argv[-1])
with open(folder / "agents", "a") as file:
    file.write(f"{os.getpid()}\\n")
while not (folder / "go").exists():
    time.sleep(0.01)
(folder / "exit" / "rank-0.json").write_text(json.dumps({"rank": 0, "code": 0, "message": "finished", "time": 1}))
"""
BROKEN = """
from launcher.launch import lock
lock.refuse_owner = lambda *_: None
lock.refuse_live_owner = lambda *_: None
lock.remove_dead = lambda run_dir, dead: run_dir.lock.unlink(missing_ok=True)
"""
RUN = ("model=demo", "data=demo", "node=cpu", "cluster.ranks_per_node=1", "sharding=ddp", "training.precision=fp32", "training.max_steps=5")
WAYS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {  # what stands before the command line, and what behind it
    "foreground": ((), ()),
    "detached": ((), ("--detach",)),
    "namespace": (("unshare", "--pid", "--fork", "--kill-child", "--mount-proc"), ()),
}
FIRST = ("lives", "killed", "begins too")
LOOK = 0.01  # seconds
SAID = "said"  # what the command lines of a trial print


def starting(site: Path, words: tuple[str, ...], way: str) -> "subprocess.Popen[bytes]":
    before, after = WAYS[way]
    argv = [*before, sys.executable, "-m", "launcher", "train", *words, *after]
    with (site.parent / SAID).open("ab") as said:
        return subprocess.Popen(argv, cwd=site.parent, env=environment(site.parent, site), stdin=subprocess.DEVNULL, stdout=said, stderr=said)


def site_in(folder: Path, broken: bool) -> Path:
    site = folder / "site"
    agent = site / "torch" / "distributed" / "run.py"
    agent.parent.mkdir(parents=True)
    for package in (agent.parent, agent.parent.parent):
        (package / "__init__.py").write_text("")
    agent.write_text(AGENT)
    if broken:
        (site / "sitecustomize.py").write_text(BROKEN)
    return site


def template(folder: Path) -> RunDir:
    """The folder of a run that has ended once."""
    site = site_in(folder, False)
    process = starting(site, RUN, "foreground")
    try:
        made = wait_for(lambda: next(iter(folder.glob("outputs/*/*/run.yaml")), None), "run folder", LOOK, process)
    except RuntimeError as error:
        raise RuntimeError(f"{error}. It said: {said_in(folder)}") from error
    run_dir = RunDir(made.parent)
    (run_dir.path / "go").touch()
    process.wait()
    for path in (run_dir.journal, run_dir.exit_file(0), run_dir.path / "go", run_dir.path / "agents"):
        path.unlink()  # what is started next is not a finished run
    return run_dir


def said_in(folder: Path) -> str:
    return (folder / SAID).read_text(errors="replace")[-2000:].strip()


def agents(run_dir: RunDir) -> int:
    path = run_dir.path / "agents"
    return len(path.read_text().splitlines()) if path.exists() else 0


def trial(number: int, seed: int, broken: bool, whole: RunDir) -> dict[str, Any]:
    chance = random.Random(f"{seed}:{number}")
    ways = [way for way in WAYS if way != "namespace" or os.geteuid() == 0]
    ways_of_both, first_is, delay = (chance.choice(ways), chance.choice(ways)), FIRST[number % len(FIRST)], chance.uniform(0, 0.3)
    with tempfile.TemporaryDirectory(prefix="regimen-trial-") as name:
        folder = Path(name)
        # the depth of a real one, by which `alive` knows the trial
        run_dir = RunDir(Path(shutil.copytree(whole.path, folder / "outputs" / "run" / "once")))
        site, resume = site_in(folder, broken), (f"resume={run_dir.path}",)
        processes = [starting(site, resume, ways_of_both[0])]
        try:
            if first_is != "begins too":
                wait_for(lambda: agents(run_dir) == 1, "first agent", LOOK)
                time.sleep(delay)
            if first_is == "killed":
                kill_owner(run_dir, processes[0], ways_of_both[0])
            processes.append(starting(site, resume, ways_of_both[1]))
            return judged(first_is, ways_of_both, run_dir, processes)
        finally:
            for process in processes:
                clean_up(run_dir, process)


def kill_owner(run_dir: RunDir, process: "subprocess.Popen[bytes]", way: str) -> None:
    """The supervisor, as a machine that runs short of memory does; its agent dies with it."""
    owner = read_owner(run_dir)
    assert owner is not None, "the first start has the folder"
    os.kill(process.pid if way == "namespace" else owner.pid, signal.SIGKILL)  # a pid of the namespace means nothing here
    wait_for(lambda: not [argv for argv in alive(run_dir).values() if "torch.distributed.run" in argv], "end of the first agent", LOOK)
    process.wait()


def judged(first_is: str, ways: tuple[str, str], run_dir: RunDir, processes: "list[subprocess.Popen[bytes]]") -> dict[str, Any]:
    second = processes[1]
    refused: list[int | None] = []
    if first_is == "killed":
        wait_for(lambda: agents(run_dir) == 2 or second.poll() is not None, "second agent or its refusal", LOOK)
    else:
        # a start that hands over to a detached supervisor returns too, with 0
        wait_for(lambda: agents(run_dir) >= 2 or refusals(processes) or all(process.poll() is not None for process in processes), "refusal", LOOK)
        refused = refusals(processes)
        if len(refused) < len(processes):
            wait_for(lambda: agents(run_dir) >= 1, "agent of the other", LOOK)
    started = agents(run_dir)
    (run_dir.path / "go").touch()
    codes = [process.wait() for process in processes]
    wait_for(lambda: not run_dir.lock.exists(), "end of the run", LOOK)
    if first_is == "killed":
        held = (started, codes[1]) == (2, DONE)
    else:
        held = started == 1 and refused == [IN_USE] and sorted(codes) == [DONE, IN_USE] and (first_is != "lives" or codes[1] == IN_USE)
    said = said_in(run_dir.path.parents[2])
    why = f"first {ways[0]} {first_is}, second {ways[1]}: exit codes {codes}, {started} agents started. They said: {said}"
    tried = {"first": ways[0], "first_is": first_is, "second": ways[1]}
    return {**tried, "codes": codes, "agents": started, "landed": started > 0, "held": held, "why": why}


def refusals(processes: "list[subprocess.Popen[bytes]]") -> list[int | None]:
    return [code for process in processes if (code := process.poll()) not in (None, DONE)]


def main() -> int:
    options = arguments(__doc__ or "").parse_args()
    with tempfile.TemporaryDirectory(prefix="regimen-run-") as name:
        whole = template(Path(name))
        return run(options, "F10 two starts", lambda number, seed: trial(number, seed, options.broken, whole))


if __name__ == "__main__":
    sys.exit(main())
