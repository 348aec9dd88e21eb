"""`regimen start-hosts FOLDER`: starts the share of every machine of a run through ssh, or lets the user start them, and waits for all of them.

It runs beside the supervisor in place of an agent. What a connection says is in log/host-N.txt; why all shares are ended is in exit/hosts.json.
"""

import json
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conf.exit_codes import DONE, LOST_PEER, RANKS_FAILED, SAVED, SUBMISSION
from conf.records import is_whole, read_object
from conf.run_dir import RunDir, write_text_atomically
from launcher.composition.recorded import recorded_run
from launcher.errors import BY_EXIT_CODE
from launcher.launch import hosts
from launcher.launch.hosts import Share
from launcher.launch.outcome import Outcome, read_exits
from launcher.words import plural

POLL_SECONDS = 0.2
GRACE_SECONDS = 20.0  # after one machine has failed, until the others are ended: their ranks notice it, and say why they end
END_SECONDS = 10.0  # for the shares to end their ranks, before their connections are cut
BROKEN = 255  # ssh's own exit code, where the connection was not made or broke
LAST_LINES = 4
Connections = Sequence["subprocess.Popen[bytes]"]  # one for each machine; none where a person starts the shares


@dataclass(frozen=True)
class Seen:
    """One machine at one look."""

    begun: bool
    code: int | None  # of its share; None: it goes on


def collect(run_dir: RunDir, site: Mapping[str, str]) -> int:
    """Until every machine has ended: 0 where all of them ended well, else the code of the first that did not."""
    run = recorded_run(run_dir)
    cluster = hosts.of_hosts(run)
    shares = hosts.shares(run, run_dir, site, os.getcwd())
    connections = [connect(run_dir, share) for share in shares] if cluster.start == "ssh" else []
    ended = wait_for(run_dir, shares, connections, cluster.connect_seconds if connections else None)
    if isinstance(ended, int):
        return ended
    write_text_atomically(run_dir.hosts_failure, json.dumps({"code": ended.exit_code, "message": ended.message}))
    end(run_dir, shares, connections)
    return ended.exit_code


def wait_for(run_dir: RunDir, shares: Sequence[Share], connections: Connections, limit: int | None) -> int | Outcome:
    """The code of the first machine that did not end well, or 0, when all have ended by themselves; else why they have to be ended."""
    began, failed_at = time.monotonic(), float("inf")
    while True:
        looks, now = [look(run_dir, share, connections) for share in shares], time.monotonic()
        first = failed(looks, now - began, limit, saving(run_dir))
        if first is not None and not looks[first].begun:
            return cause(run_dir, shares[first], looks[first], limit)
        if run_dir.stop.exists() and not all(seen.begun for seen in looks):
            again = f"Go on with: regimen train resume={run_dir.path}"
            return Outcome(SAVED, f"stopped before all machines had begun, so nothing was trained. {again}")
        failed_at = float("inf") if first is None else min(failed_at, now)
        all_ended = all(seen.code is not None for seen in looks)
        if first is not None and (all_ended or now - failed_at > GRACE_SECONDS):
            return cause(run_dir, shares[first], looks[first], limit)
        if all_ended:
            return next((seen.code for seen in looks if seen.code), 0)
        time.sleep(POLL_SECONDS)


def connect(run_dir: RunDir, share: Share) -> "subprocess.Popen[bytes]":
    """Its standard input stays open for as long as this process lives, and tells the share of its end."""
    with log_of(run_dir, share).open("wb") as log:
        return subprocess.Popen(share.connected, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT)


def log_of(run_dir: RunDir, share: Share) -> Path:
    return run_dir.logs / f"host-{share.node_rank}.txt"


def look(run_dir: RunDir, share: Share, connections: Connections) -> Seen:
    """Through ssh the connection ends with the code of the share; without it the share's own record says so."""
    recorded = record_of(run_dir, share)
    if connections:
        return Seen(recorded is not None, connections[share.node_rank].poll())
    return Seen(recorded is not None, recorded["code"] if recorded else None)


def record_of(run_dir: RunDir, share: Share) -> dict[str, Any] | None:
    try:
        return read_object(run_dir.host_file(share.node_rank), lambda entry: entry.get("code") is None or is_whole(entry["code"]))
    except FileNotFoundError:
        return None


def saving(run_dir: RunDir) -> bool:
    """Whether the ranks end because they were asked to, or are done: nobody hurries those that still write."""
    exits = read_exits(run_dir)
    return bool(exits) and all(entry["code"] in (DONE, SAVED) for entry in exits)


def failed(looks: Sequence[Seen], passed: float, limit: int | None, ending: bool) -> int | None:
    """The number of the first machine that keeps the run from going on; None: it goes on.

    Args:
        passed: seconds since the start.
        limit: seconds within which each machine must have begun; None: a person starts them.
        ending: all ranks that have ended so far have finished or saved.
    """
    unreached = [number for number, seen in enumerate(looks) if not seen.begun and seen.code not in (None, 0)]
    silent = [number for number, seen in enumerate(looks) if not seen.begun and seen.code is None and limit is not None and passed > limit]
    broken = [number for number, seen in enumerate(looks) if seen.begun and seen.code not in (None, 0) and not ending]
    return next(iter([*unreached, *silent, *broken]), None)


def cause(run_dir: RunDir, share: Share, seen: Seen, limit: int | None) -> Outcome:
    """Why the run ends, where its ranks do not say it themselves."""
    said, again = last_lines(log_of(run_dir, share)), f"Go on with: regimen train resume={run_dir.path}"
    where = f"{share.host} (node {share.node_rank})"
    if seen.code is None:
        tried = f"Try it: ssh {share.host} true. {again}"
        return Outcome(SUBMISSION, f"{where} has not begun within {limit} s (cluster.connect_seconds).{said and f' It said:{said}'}\n{tried}")
    cut = seen.code == BROKEN or seen.code < 0  # ssh itself was killed
    if cut and not seen.begun:
        return Outcome(SUBMISSION, f"{where} was not reached through ssh:{said}\nTry it: ssh {share.host} true. {again}")
    if cut:
        return Outcome(LOST_PEER, f"The connection to {where} broke:{said}\n{again}")
    if not seen.begun:
        code = seen.code if seen.code in BY_EXIT_CODE else SUBMISSION
        return Outcome(code, f"{where} could not start its ranks (exit code {seen.code}):{said}\n{again}")
    return Outcome(RANKS_FAILED, f"The ranks of {where} ended without a message (exit code {seen.code}). Logs: {run_dir.logs}.{said}\n{again}")


def last_lines(log: Path) -> str:
    """What a machine said last, a line each; empty where it said nothing."""
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:  # a person started it
        return ""
    lines = [line for line in text.splitlines() if line.strip()][-LAST_LINES:]
    return "".join(f"\n  | {line}" for line in lines)


def end(run_dir: RunDir, shares: Sequence[Share], connections: Connections) -> None:
    """Have every share end its ranks. Those that do not answer are cut off."""
    for connection in connections:
        assert connection.stdin is not None, "it was started with a pipe"
        connection.stdin.close()
    deadline = time.monotonic() + END_SECONDS
    while time.monotonic() < deadline and any(goes_on(look(run_dir, share, connections)) for share in shares):
        time.sleep(POLL_SECONDS)
    still = [connection for connection in connections if connection.poll() is None]
    for connection in still:
        connection.kill()
        connection.wait()
    if still:
        print(f"Cut off after {END_SECONDS:.0f} s without an answer: {plural(len(still), 'machine')}.", flush=True)


def goes_on(seen: Seen) -> bool:
    return seen.begun and seen.code is None
