"""How a run ended: the ranks' own exit files, since torchrun flattens its workers' codes."""

import shutil
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conf import journal
from conf.committed import committed
from conf.exit_codes import DISK, DONE, LOST_PEER, RANKS_FAILED, SAVED
from conf.records import is_exit, is_whole, read_object
from conf.run_dir import RunDir
from conf.words import size_in_words
from launcher.facts.output import nearest_folder

NEARLY_NOTHING = 65536  # bytes: less than a rank needs to say how it ended
LAST_LINES = 5  # of the log of a rank that left no message


@dataclass(frozen=True)
class Outcome:
    exit_code: int
    message: str


def read_exits(run_dir: RunDir) -> list[dict[str, Any]]:
    """The exit files, in the order in which the ranks ended; a damaged one says no more than that its rank ended."""
    found = {path: read_object(path, is_exit) for path in run_dir.exits.glob("rank-*.json")}
    return sorted((entry or damaged_exit(path) for path, entry in found.items()), key=lambda entry: float(entry["time"]))


def hosts_failure(run_dir: RunDir) -> Outcome | None:
    """Of cluster=hosts: why the shares of all machines were ended; None where they were not."""
    try:
        found = read_object(run_dir.hosts_failure, lambda entry: is_whole(entry.get("code")) and isinstance(entry.get("message"), str))
    except FileNotFoundError:
        return None
    return None if found is None else Outcome(int(found["code"]), found["message"])


def damaged_exit(path: Path) -> dict[str, Any]:
    message = f"{path} is damaged, so it is not known why that rank ended"
    return {"rank": rank_of(path), "code": RANKS_FAILED, "message": message, "time": path.lstat().st_mtime}


def outcome_of(run_dir: RunDir, agent_code: int, cause: Outcome | None = None) -> Outcome:
    """How the run ended. `cause`: why the supervisor ended it, which counts unless a rank had failed by itself, or all had saved."""
    exits, cause = read_exits(run_dir), cause or hosts_failure(run_dir)
    failures = [entry for entry in exits if entry["code"] not in (DONE, SAVED)]
    if cause is not None and all(entry["code"] == LOST_PEER for entry in exits):
        return cause
    saved = [entry for entry in exits if entry["code"] == SAVED]
    if failures and not (saved and all(entry["code"] == LOST_PEER for entry in failures)):  # ranks that stop first are lost peers of the others
        first = next((entry for entry in failures if entry["code"] != LOST_PEER), failures[0])
        said = f"{first['message']} (rank {first['rank']}; the full traceback is in {run_dir.rank_log(first['rank'])})"
        return Outcome(int(first["code"]), said + ("\n" + in_silence(run_dir, exits) if first["code"] == LOST_PEER else "").rstrip())
    if exits and all(entry["code"] == DONE for entry in exits) and agent_code == 0:
        return Outcome(DONE, "finished")
    if saved:
        what = "stopped and saved" if committed(run_dir) else "stopped before the first checkpoint, so nothing was saved"
        return Outcome(SAVED, f"{what}. Go on with: regimen train resume={run_dir.path}")
    free = shutil.disk_usage(nearest_folder(run_dir.path)).free
    if free < NEARLY_NOTHING:
        return Outcome(
            DISK,
            f"The ranks ended without a message, and the disk of {run_dir.path} is full: {size_in_words(free)} is free. "
            f"Free some space, then go on with: regimen train resume={run_dir.path}. Committed checkpoints are intact.",
        )
    return Outcome(
        RANKS_FAILED,
        f"{killed(agent_code)} Logs: {run_dir.logs}. What was saved is intact. Go on with: regimen train resume={run_dir.path}\n"
        f"{in_silence(run_dir, exits)}".rstrip(),
    )


def in_silence(run_dir: RunDir, exits: list[dict[str, Any]]) -> str:
    """The ranks that left no exit file, and the last lines of the first one that fell silent; empty where each left one."""
    told = {entry["rank"] for entry in exits}
    began = max((event["time"] for event in journal.events(run_dir) if event["event"] == journal.Started.event), default=0.0)
    logs = [path for path in run_dir.logs.glob("rank-*.txt") if path.stat().st_mtime >= began and rank_of(path) not in told]
    if not logs:
        return ""
    silent = sorted(logs, key=lambda path: path.stat().st_mtime)
    ranks = ", ".join(str(rank) for rank in sorted(map(rank_of, silent)))
    words = [line for line in silent[0].read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()][-LAST_LINES:]
    named = "Rank" if len(silent) == 1 else "Ranks"
    return "\n".join([f"{named} {ranks} ended without a message. Last lines of {silent[0]}:", *(f"  | {line}" for line in words)])


def rank_of(path: Path) -> int:
    number = path.stem.removeprefix("rank-")
    return int(number) if number.isdecimal() else -1


def killed(agent_code: int) -> str:
    if agent_code < 0:
        return f"The ranks' agent was ended by {signal.Signals(-agent_code).name}."
    return (
        f"The ranks ended without a message (the agent's exit code is {agent_code}). "
        "A rank that is killed from outside leaves none, often because host memory ran out."
    )
