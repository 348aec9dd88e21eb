"""What sweeps are doing, read only from their files: for `regimen status`, `regimen stop` and whoever follows one."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from conf.run_dir import RunDir, write_text_atomically
from conf.words import BETWEEN, aligned
from launcher.errors import RunLocked
from launcher.launch import lock, status
from launcher.launch.batch_job import as_slurm_says
from launcher.launch.progress import measures
from launcher.sweep import ledger, table
from launcher.sweep.ledger import SweepDir
from launcher.sweep.points import Result
from launcher.sweep.processes import result_from
from launcher.words import age


@dataclass(frozen=True)
class SweepStatus:
    sweep_dir: SweepDir
    state: str  # running | ended | unfinished (points are left, and nobody works on them) | unknown (whether its owner lives)
    results: tuple[Result, ...]  # a point that runs has where it is as its cause
    updated: float  # seconds since the epoch


def sweep_status(sweep_dir: SweepDir, may_read: Callable[[RunDir], bool] = lambda run_dir: True) -> SweepStatus:
    """How a sweep and its points stand.

    `may_read` says whether the run folder of a point may be opened. Where it may not, the ledger alone says how the point stands.
    """
    events = ledger.events(sweep_dir)
    known = ledger.results(sweep_dir)
    results = tuple(currents([result if result.run_dir is None or may_read(result.run_dir) else elsewhere(result) for result in known]))
    updated = max([float(event["time"]) for event in events], default=sweep_dir.path.stat().st_mtime)
    owned = owner_state(sweep_dir)
    left = any(result.state not in ("finished", "refused", "failed") for result in results)
    submitted = any(result.state in status.ACTIVE for result in results)  # jobs of Slurm go on without an owner of the sweep
    return SweepStatus(sweep_dir, owned or ("running" if submitted else "unfinished" if left or not results else "ended"), results, updated)


def elsewhere(result: Result) -> Result:
    return replace(result, run_dir=None, state="unknown" if result.state == "running" else result.state)


def owner_state(sweep_dir: SweepDir) -> str:
    """Empty where nobody works on the sweep."""
    try:
        owner = lock.read_owner(sweep_dir.lockable)
    except RunLocked:
        return "unknown"
    found = "dead" if owner is None else lock.standing(sweep_dir.lockable, owner)
    return {"alive": "running", "unknown": "unknown", "dead": ""}[found]


def currents(results: Sequence[Result]) -> list[Result]:
    """Of points without a recorded end: what the folder of their run says, and Slurm where they are jobs; one question for all."""
    folders = {result.run_dir for result in results if result.state == "running" and result.run_dir is not None}
    found = [status.status_of(run_dir) for run_dir in folders if run_dir.run_yaml.is_file()]
    told = {now.run_dir: now for now in as_slurm_says(found)}
    return [current(result, told[result.run_dir]) if result.state == "running" and result.run_dir in told else result for result in results]


def current(result: Result, now: status.RunStatus) -> Result:
    if now.state in ("finished", "failed", "stopped"):
        return result_from(result.point, now, "", 0.0)
    where = BETWEEN.join([*([now.message] if now.job else []), f"step {now.step}/{now.of or '?'}", *measures(now.measured, now.shown)])
    return replace(result, state=now.state, cause=where if now.state in status.ACTIVE else now.message)


def list_lines(sweeps: Sequence[SweepStatus]) -> list[str]:
    """One line for each sweep."""
    rows = [(status.shortest(sweep.sweep_dir.path), sweep.state, age(time.time() - sweep.updated), table.counts(sweep.results)) for sweep in sweeps]
    return aligned([("sweep", "state", "age", ""), *rows])


def status_lines(sweep: SweepStatus) -> list[str]:
    go_on = [f"go on with: regimen train -m resume={sweep.sweep_dir.path}"] if sweep.state == "unfinished" else []
    return [f"{sweep.sweep_dir.path}  {sweep.state}", *(table.table_lines(sweep.results) if sweep.results else []), *go_on]


def as_dict(sweep: SweepStatus) -> dict[str, Any]:
    points = [table.result_as_dict(result) for result in sweep.results]
    return {"sweep_folder": str(sweep.sweep_dir.path), "state": sweep.state, "updated": sweep.updated, "points": points}


def ask_to_stop(sweep_dir: SweepDir) -> None:
    """The sweep looks for this file several times a second."""
    write_text_atomically(sweep_dir.stop, "stop\n")


def new_lines(sweep_dir: SweepDir) -> Callable[[], Iterator[str]]:
    """What the ledger says since the last call."""
    seen = 0

    def lines() -> Iterator[str]:
        nonlocal seen
        found = ledger.events(sweep_dir)
        for event in found[seen:]:
            if event["event"] != ledger.START:
                result = ledger.result_in(event)
                yield table.begun_line(result, tuple(event.get("gpus") or ())) if event["event"] == ledger.BEGUN else table.ended_line(result)
        seen = len(found)

    return lines
