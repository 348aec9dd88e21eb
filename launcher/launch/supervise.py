"""Watches the ranks of one run until they end: progress, requests to stop, the outcome."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from types import FrameType

from conf import journal
from conf.run_dir import RunDir
from launcher.command import Command
from launcher.launch import execute, lock, restart
from launcher.launch.notes import Notes
from launcher.launch.outcome import Outcome, outcome_of
from launcher.launch.progress import Display, display_for

POLL_SECONDS = 0.2
GRACE_SECONDS = 300.0  # from a second request to stop until the ranks are killed


class StopRequests:
    """Counts SIGINT, SIGTERM, SIGUSR1 (a cluster's warning) and SIGHUP while it is installed; the handlers do nothing else."""

    def __init__(self) -> None:
        self.count = 0
        self.last = ""  # the name of the newest signal
        self.before = {number: signal.signal(number, self.note) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup ignores it
            self.before[signal.SIGHUP] = signal.signal(signal.SIGHUP, self.note_hangup)

    def note(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        self.last = signal.Signals(number).name

    def note_hangup(self, number: int, frame: FrameType | None) -> None:
        """The terminal is gone. Any further output to it would be an error that ends this process and its ranks."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (1, 2):
            os.dup2(nowhere, stream)
        os.close(nowhere)
        self.note(number, frame)

    def restore(self) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)


def supervise(run_dir: RunDir, command: Command, site: Mapping[str, str], owner: lock.Owner, restarts: int = 0) -> Outcome:
    """Start the ranks, again where that may help, stay until they ended, and release the folder. The caller holds the lock.

    Args:
        restarts: how often without a new checkpoint between.
    """
    requests, notes = StopRequests(), Notes(run_dir)
    try:
        with display_for(run_dir, sys.stdout) as display:
            by = journal.USER
            while (end := attempt(run_dir, command, site, requests, display, notes, by, restarts)) is None:
                by = journal.SUPERVISOR
        return execute.finish(run_dir, end)
    finally:
        requests.restore()
        lock.release(run_dir, owner)


def attempt(
    run_dir: RunDir, command: Command, site: Mapping[str, str], requests: StopRequests, display: Display, notes: Notes, by: str, restarts: int
) -> Outcome | None:
    """One start of the ranks to its end. The outcome of the run; None: it failed, and is to be started again."""
    process = execute.start_ranks(run_dir, command, site, by)
    watch(process, run_dir, requests, display, notes)
    outcome = outcome_of(run_dir, process.returncode)
    if requests.count or run_dir.stop.exists():
        return outcome
    end = restart.final(outcome, journal.events(run_dir), restarts, run_dir)
    if end is None:
        display.say(f"Exit code {outcome.exit_code}: {outcome.message}\nStarting again from the newest checkpoint (backend.max_restarts).")
        execute.clear_failed(run_dir, outcome)
    return end


def watch(process: "subprocess.Popen[bytes]", run_dir: RunDir, requests: StopRequests, display: Display, notes: Notes) -> None:
    """First request: save and stop. Second: end the agent. Third, or no end within the grace time: kill."""
    seen, deadline = 0, float("inf")
    while process.poll() is None:
        show(display, notes)
        if requests.count > seen or time.monotonic() > deadline:
            by = requests.last if requests.count > seen else "the supervisor, since nothing ended after the request before"
            seen = max(seen + 1, requests.count) if requests.count > seen else 3
            journal.record(run_dir, journal.StopRequested(by, min(seen, 3)))
            deadline = escalate(min(seen, 3), process, run_dir, display.say)
        time.sleep(POLL_SECONDS)
    show(display, notes)


def show(display: Display, notes: Notes) -> None:
    for line in notes.new():
        display.say(line)
    display.update()


def escalate(level: int, process: "subprocess.Popen[bytes]", run_dir: RunDir, say: Callable[[str], None]) -> float:
    """Act on the n-th request; returns when the next level is due by itself."""
    if level == 1:
        say("Stopping. The ranks save a checkpoint at the end of this step. Interrupt again to end them at once.")
        execute.ask_to_stop(run_dir)
        return float("inf")
    if level == 2:
        say("Ending the ranks without a checkpoint. Interrupt again to kill them.")
        execute.end_group(process, signal.SIGTERM)
        return time.monotonic() + GRACE_SECONDS
    execute.end_group(process, signal.SIGKILL)
    return float("inf")
