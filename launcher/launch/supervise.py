"""Watches the ranks of one run until they end: progress, requests to stop, the outcome."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from types import FrameType

from conf import journal
from conf.exit_codes import INTERRUPTED, LOST_PEER
from conf.processes import Identity, identity_of, kill_supervised_by
from conf.run_dir import RunDir, load_run
from launcher.command import Command
from launcher.launch import execute, guardian, heartbeat, lock, restart
from launcher.launch.hang_report import Watcher, named, report
from launcher.launch.notes import Notes
from launcher.launch.outcome import Outcome, outcome_of
from launcher.launch.progress import Display, display_for

POLL_SECONDS = 0.2
GRACE_SECONDS = 3.0  # from a second request to stop until the ranks are killed: each commit is whole or not at all


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
    requests, notes, this, beating = StopRequests(), Notes(run_dir), identity_of(os.getpid()), None
    try:
        guarded = guardian.start(this, site)
        beating = heartbeat.start(run_dir, owner.nonce, this, site)
        with display_for(run_dir, sys.stdout) as display:
            by = journal.USER
            while (end := attempt(run_dir, command, site, requests, display, notes, by, restarts, this)) is None:
                by = journal.SUPERVISOR
        guardian.release(guarded)
        return execute.finish(run_dir, end)
    finally:
        requests.restore()
        if beating is not None:
            heartbeat.end(beating, run_dir)
        lock.release(run_dir, owner)


def attempt(
    run_dir: RunDir,
    command: Command,
    site: Mapping[str, str],
    requests: StopRequests,
    display: Display,
    notes: Notes,
    by: str,
    restarts: int,
    this: Identity,
) -> Outcome | None:
    """One start of the ranks to its end. The outcome of the run; None: it failed, and is to be started again."""
    process = execute.start_ranks(run_dir, command, site, this, by)
    cause = watch(process, run_dir, requests, display, notes, Watcher(run_dir, time.monotonic()), this)
    execute.end_remains(run_dir, this)
    outcome = outcome_of(run_dir, process.returncode, cause)
    if requests.count or run_dir.stop.exists():
        return outcome
    run = load_run(run_dir)
    end = restart.final(outcome, journal.events(run_dir), restarts, run_dir, run)
    if end is None:
        why = restart.reason(outcome, run)
        display.say(f"Exit code {outcome.exit_code}: {outcome.message}\nStarting again from the newest checkpoint ({why}).")
        execute.clear_failed(run_dir, outcome)
        execute.change(run_dir, restart.as_started_again(outcome, run))
    return end


def watch(
    process: "subprocess.Popen[bytes]",
    run_dir: RunDir,
    requests: StopRequests,
    display: Display,
    notes: Notes,
    watcher: Watcher,
    this: Identity,
) -> Outcome | None:
    """Until the agent has ended; what ended it where that was done here. First request: save and stop. Second: end at once.

    A run that hangs is ended too, and so is one whose ranks do not end within the grace time of a second request.
    """
    seen, deadline, cause = 0, float("inf"), None
    while process.poll() is None:
        show(display, notes)
        if requests.count > seen:
            seen = requests.count
            journal.record(run_dir, journal.StopRequested(requests.last, min(seen, 3)))
            deadline, cause = escalate(seen, process, run_dir, display.say) or (deadline, cause)
        hangs = watcher.look(time.monotonic()) if cause is None else None
        if hangs is not None:
            said = named(hangs, watcher.history)
            journal.record(run_dir, journal.Hung(said))  # at once: the stacks may take seconds, and their process may be killed meanwhile
            display.say(said)
            cause = Outcome(LOST_PEER, report(run_dir, said, watcher.history))
            deadline = 0.0
        if time.monotonic() > deadline:
            execute.end_group(process, signal.SIGKILL)
            kill_supervised_by(this)
        time.sleep(POLL_SECONDS)
    show(display, notes)
    return cause


def show(display: Display, notes: Notes) -> None:
    for line in notes.new():
        display.say(line)
    display.update()


def escalate(level: int, process: "subprocess.Popen[bytes]", run_dir: RunDir, say: Callable[[str], None]) -> tuple[float, Outcome] | None:
    """Act on the n-th request; from the second on, when the ranks are killed that have not ended by then, and what is to be said of the end."""
    if level == 1:
        say("Stopping. The ranks save a checkpoint at the end of this step. Interrupt again to end them at once.")
        execute.ask_to_stop(run_dir)
        return None
    ended = Outcome(
        INTERRUPTED, f"Ended at once, at a second request. Steps since the last checkpoint are lost. Go on with: regimen train resume={run_dir.path}"
    )
    if level == 2:
        say("Ending the ranks without a checkpoint.")
        execute.end_group(process, signal.SIGTERM)
        return time.monotonic() + GRACE_SECONDS, ended
    return 0.0, ended
