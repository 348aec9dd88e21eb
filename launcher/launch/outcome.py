"""How a run ended: the ranks' own exit files, since torchrun flattens its workers' codes."""

import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conf.exit_codes import DONE, LOST_PEER, RANKS_FAILED, SAVED
from conf.records import is_exit, read_object
from conf.run_dir import RunDir


@dataclass(frozen=True)
class Outcome:
    exit_code: int
    message: str


def read_exits(run_dir: RunDir) -> list[dict[str, Any]]:
    """The exit files, in the order in which the ranks ended; a damaged one says no more than that its rank ended."""
    found = {path: read_object(path, is_exit) for path in run_dir.exits.glob("rank-*.json")}
    return sorted((entry or damaged_exit(path) for path, entry in found.items()), key=lambda entry: float(entry["time"]))


def damaged_exit(path: Path) -> dict[str, Any]:
    rank = path.stem.removeprefix("rank-")
    message = f"{path} is damaged, so it is not known why that rank ended"
    return {"rank": int(rank) if rank.isdecimal() else -1, "code": RANKS_FAILED, "message": message, "time": path.lstat().st_mtime}


def outcome_of(run_dir: RunDir, agent_code: int) -> Outcome:
    exits = read_exits(run_dir)
    failures = [entry for entry in exits if entry["code"] not in (DONE, SAVED)]
    if failures:
        first = next((entry for entry in failures if entry["code"] != LOST_PEER), failures[0])
        return Outcome(int(first["code"]), f"{first['message']} (rank {first['rank']}; logs in {run_dir.logs})")
    if exits and all(entry["code"] == DONE for entry in exits) and agent_code == 0:
        return Outcome(DONE, "finished")
    if exits and any(entry["code"] == SAVED for entry in exits):
        return Outcome(SAVED, f"stopped and saved. Go on with: regimen train resume={run_dir.path}")
    return Outcome(
        RANKS_FAILED, f"{killed(agent_code)} Logs: {run_dir.logs}. What was saved is intact. Go on with: regimen train resume={run_dir.path}"
    )


def killed(agent_code: int) -> str:
    if agent_code < 0:
        return f"The ranks' agent was ended by {signal.Signals(-agent_code).name}."
    return (
        f"The ranks ended without a message (the agent's exit code is {agent_code}). "
        "A rank that is killed from outside leaves none, often because host memory ran out."
    )
