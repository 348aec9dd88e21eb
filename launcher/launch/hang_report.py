"""Looks at the ranks of a run, and writes down what each did when one of them stopped: log/hang.txt."""

import os
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from conf.processes import stat_of
from conf.ranks import ranks
from conf.run_dir import RunDir, load_run, write_text_atomically
from conf.schema import Hosts
from conf.signs import COMPILING, DATA, EVALUATION, GENERATION, LOADING, SAVING, STARTING, TRAINING, Sign, read_sign
from launcher.launch import hang
from launcher.launch.hang import Hangs, Seen

LOOK_SECONDS = 1.0  # from one look to the next
ANSWER_SECONDS = 3.0  # a rank that can run writes its stacks within milliseconds; on a machine that swaps, within seconds
POLL_SECONDS = 0.1
DOING = {
    STARTING: "starting",
    DATA: "reading data",
    LOADING: "loading weights",
    COMPILING: "in its first step",
    TRAINING: "training",
    EVALUATION: "evaluating",
    GENERATION: "writing answers",
    SAVING: "saving",
}

GAVE: dict[hang.Kind, str] = {"silent": "gave no sign of life", "deadlock": "waited for another rank, as all ranks did,", "still": "did not get on"}


class Watcher:
    """Looks at the ranks from time to time; the verdict is that of hang.py."""

    def __init__(self, run_dir: RunDir, now: float) -> None:
        run = load_run(run_dir)
        self.run_dir, self.limits, self.ranks = run_dir, asdict(run.hang), ranks(run)
        self.machines = run.cluster.nodes if isinstance(run.cluster, Hosts) else 0  # 0: the ranks are processes of this one
        self.history = hang.begun(now, self.ranks)

    def look(self, now: float) -> Hangs | None:
        if now - self.history.now < LOOK_SECONDS:
            return None
        if not all(self.run_dir.host_file(number).exists() for number in range(self.machines)):
            self.history = hang.begun(now, self.ranks)  # host_agents.py knows how long a machine may take to begin
            return None
        look = seen_elsewhere if self.machines else seen
        self.history = hang.after(self.history, now, {rank: look(self.run_dir, rank) for rank in self.history.ranks})
        return hang.verdict(self.history, self.limits)


def seen(run_dir: RunDir, rank: int) -> Seen:
    sign = read_sign(run_dir.sign(rank))
    return Seen(sign, sign is None or sign.process.lives())


def seen_elsewhere(run_dir: RunDir, rank: int) -> Seen:
    """A rank of another machine: its process cannot be looked at, but it leaves a file when it ends by itself."""
    return Seen(read_sign(run_dir.sign(rank)), not run_dir.exit_file(rank).exists())


def named(hangs: Hangs, history: hang.History) -> str:
    """The sentence for people; nothing is waited for."""
    return sentence(hangs, living_of(history))


def living_of(history: hang.History) -> dict[int, Sign]:
    return {rank: past.sign for rank, past in history.ranks.items() if past.sign is not None and past.sign.process.lives()}


def report(run_dir: RunDir, said: str, history: hang.History) -> str:
    """Ask every rank for its stacks, write what is known of each after what was said, and return that with where the rest is."""
    stacks = asked_for_stacks(run_dir, living_of(history))
    elsewhere, sections = run_dir.host_file(0).exists(), [said]
    for rank, past in sorted(history.ranks.items()):
        what = told(past.sign) if past.sign is not None and elsewhere else facts(past.sign)
        known = f"rank {rank}: {what}, no sign for {past.quiet:.0f} s, no progress for {past.still:.0f} s"
        sections.append(f"{known}\n{stacks.get(rank) or 'It did not answer, so where it stands is not known.'}")
    write_text_atomically(run_dir.hang_log, "\n\n".join(sections) + "\n")
    return f"{sections[0]} Stacks of all ranks that could answer: {run_dir.hang_log}. Go on with: regimen train resume={run_dir.path}"


def asked_for_stacks(run_dir: RunDir, living: Mapping[int, Sign]) -> dict[int, str]:
    """What each rank wrote at SIGUSR2 (trainers/ranks/life.py); one that is stopped keeps the signal for later."""
    paths = {rank: run_dir.stacks(rank) for rank in living}
    before = {rank: path.stat().st_size if path.exists() else 0 for rank, path in paths.items()}
    for sign in living.values():
        with suppress(ProcessLookupError):  # it has ended since it was looked at
            os.kill(sign.pid, signal.SIGUSR2)

    def sizes() -> dict[int, int]:
        return {rank: path.stat().st_size - before[rank] for rank, path in paths.items() if path.exists()}

    settled(sizes, [rank for rank, sign in living.items() if state_of(sign) != "T"])
    found = {}
    for rank, size in sizes().items():
        if size:
            found[rank] = paths[rank].read_bytes()[before[rank] :].decode("utf-8", "replace")
    return found


def settled(sizes: Callable[[], dict[int, int]], answering: list[int]) -> None:
    """Wait until each of these has written and writes no more."""
    deadline, last = time.monotonic() + ANSWER_SECONDS, sizes()
    while time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
        now = sizes()
        if now == last and all(now.get(rank) for rank in answering):
            return
        last = now


def sentence(hangs: Hangs, living: Mapping[int, Sign]) -> str:
    if not hangs.ranks:
        return f"All ranks have ended, and the agent that started them has not noticed it for {hangs.seconds:.0f} s."
    names = ("Rank " if len(hangs.ranks) == 1 else "Ranks ") + ", ".join(map(str, hangs.ranks))
    where = f"{DOING[hangs.phase]}, after step {hangs.step}" if hangs.step else DOING[hangs.phase]
    first = living.get(hangs.ranks[0])
    process = f" Process: {facts(first)}." if first else ""
    return f"{names} {GAVE[hangs.kind]} for {hangs.seconds:.0f} s while {where} (limit {hangs.limit:.0f} s, hang.{hangs.phase}).{process}"


def told(sign: Sign) -> str:
    """Of a rank of cluster=hosts, whose kernel is not asked."""
    return f"process {sign.pid} of its machine, phase {sign.phase}, step {sign.step}"


def facts(sign: Sign | None) -> str:
    """What the kernel knows of a rank: its state, and where in the kernel it waits."""
    if sign is None:
        return "it has written nothing yet"
    state = state_of(sign)
    if not state:
        return f"process {sign.pid} has ended"
    waits = text_of(sign.pid, "wchan")
    words = {"T": "stopped", "t": "stopped by a debugger", "D": "waits for a device", "S": "sleeps", "R": "runs"}.get(state, "unknown")
    where = f", waits in {waits}" if waits not in ("", "0") else ""
    return f"process {sign.pid} in state {state} ({words}{where}), phase {sign.phase}, step {sign.step}"


def state_of(sign: Sign) -> str:
    fields = stat_of(sign.pid)
    return fields[0] if fields else ""


def text_of(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text(encoding="ascii", errors="replace").strip()
    except OSError:  # it has ended, or this kernel does not tell
        return ""
