"""The pages of sweeps: what each point came to, which had which GPU when, and what may be done with the sweep."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from launcher.board import actions
from launcher.board.board import Act, Board, Read, page, result
from launcher.board.index import SLURM_SECONDS, id_of, is_plain, odd_files
from launcher.board.panels import HEIGHT, panels
from launcher.board.panels import WIDTH as WIDTH_OF_PANEL
from launcher.errors import ConfigError
from launcher.launch.places import places
from launcher.launch.status import ACTIVE, shortest
from launcher.words import age, duration

if TYPE_CHECKING:
    from launcher.sweep.ledger import SweepDir
    from launcher.sweep.points import Result
    from launcher.sweep.standing import SweepStatus
    from launcher.sweep.summary import Attempt, Summary

SWEEP_ACTIONS = ("stop", "resume")
WIDTH, ROW, LEFT, BELOW = 1000, 28, 90, 24  # of the timeline, in units of its own: all of it, a lane, the names of the lanes, the axis
TICKS = 5
MOST_COMPARED = 6
SECONDS = 3.0  # until the page is drawn anew; a sweep of Slurm's jobs costs the controller a question each time


@dataclass(frozen=True)
class SweepRow:
    id: str
    path: str
    state: str
    age: str
    counts: str


@dataclass(frozen=True)
class PointRow:
    number: int
    varied: str
    state: str
    loss: str
    best: bool
    seconds: str
    run: str  # the id of its run here; empty where there is none
    why: str
    fits: str


@dataclass(frozen=True)
class Bar:
    x: float
    y: float
    width: float
    state: str
    point: int
    words: str


def sweeps(board: Board, request: Request) -> Response:
    return page(request, "sweeps.html.j2", rows=[row_of(status_in(board, sweep_dir)) for sweep_dir in reversed(readable(board))])


def readable(board: Board) -> "list[SweepDir]":
    """Oldest first. Left out: what a link leads to, and whose records are not plain files."""
    from launcher.sweep.find import find_sweeps  # Hydra comes with it, and the first page is faster without

    roots = [place.resolve() for place in places(board.output)]
    inside = (sweep for sweep in find_sweeps(board.output) if any(sweep.path.resolve().is_relative_to(root) for root in roots))
    return [sweep for sweep in inside if is_plain(sweep.ledger) and is_plain(sweep.lockable.lock)]


def the_sweep(board: Board, request: Request) -> "SweepDir":
    found = next((sweep for sweep in readable(board) if id_of(sweep.lockable) == request.path_params["id"]), None)
    if found is None:
        raise ConfigError("There is no such sweep any more. The page of all sweeps shows those that are there.")
    return found


def status_in(board: Board, sweep_dir: "SweepDir") -> "SweepStatus":
    """As `regimen status SWEEP` has it. A run that is not one of this board's is not looked into, whatever the ledger names."""
    from launcher.sweep.standing import sweep_status

    known = {run_dir.path.absolute() for run_dir in board.index.all()}
    return sweep_status(sweep_dir, may_read=lambda run_dir: run_dir.path.absolute() in known and not odd_files(run_dir))


def row_of(now: "SweepStatus") -> SweepRow:
    from launcher.sweep.table import counts

    path = now.sweep_dir.path
    return SweepRow(id_of(now.sweep_dir.lockable), shortest(path), now.state, age(time.time() - now.updated), counts(now.results))


def sweep(board: Board, request: Request) -> Response:
    return page(request, "sweep.html.j2", **now_of(board, request))


def sweep_now(board: Board, request: Request) -> Response:
    return page(request, "sweep_now.html.j2", **now_of(board, request))


def now_of(board: Board, request: Request) -> dict[str, Any]:
    from launcher.sweep import ledger, table
    from launcher.sweep.summary import Summary, attempts

    sweep_dir = the_sweep(board, request)
    now, events = status_in(board, sweep_dir), ledger.events(sweep_dir)
    starts = tuple(float(event["time"]) for event in events if event["event"] == ledger.START)
    overrides: list[str] = next((event["overrides"] for event in reversed(events) if event["event"] == ledger.START), [])
    summary = Summary(sweep_dir, tuple(overrides), starts, now.results, tuple(up_to_now(attempts(events), now.results)), ())
    winner, rows = table.best(now.results), [point_row(one, table.best(now.results)) for one in by_result(now.results)]
    return {
        "pause": SLURM_SECONDS if "hydra/launcher=slurm" in overrides else SECONDS,
        "row": row_of(now),
        "rows": [row for row in rows if row.state != "refused"],
        "refused": [row for row in rows if row.state == "refused"],
        "best": None if winner is None else point_row(winner, winner),
        "measure": "" if winner is None else winner.measure,
        "compared": [row.run for row in rows if row.run and row.loss][:MOST_COMPARED],
        "overrides": " ".join(overrides),
        "chart": timeline(summary),
        "makespan": makespan(summary),
        "panels": panels(now.results, None if winner is None else winner.point.number),
        "panel_size": (WIDTH_OF_PANEL, HEIGHT),
        "actions": [(name, actions.command_of(words_of(name, sweep_dir))) for name in possible(now.state)],
    }


def by_result(results: "Sequence[Result]") -> "list[Result]":
    """The best first, those without a measure at the end."""
    return sorted(results, key=lambda one: (math.inf if one.objective is None else one.objective, one.point.number))


def point_row(one: "Result", winner: "Result | None") -> PointRow:
    from launcher.sweep import table

    is_best = winner is not None and one.point.number == winner.point.number
    took, run = duration(one.seconds) if one.seconds else "", id_of(one.run_dir) if one.run_dir else ""
    return PointRow(one.point.number, table.label(one.point), one.state, table.loss(one), is_best, took, run, one.cause, " ".join(one.fits))


def up_to_now(attempts: "Sequence[Attempt]", results: "Sequence[Result]") -> "list[Attempt]":
    """The newest start of a point that is at work lasts until now."""
    working = {one.point.number for one in results if one.state in ACTIVE}
    newest = {one.point: at for at, one in enumerate(attempts)}
    return [
        replace(one, ended=time.time(), state="running") if not one.state and one.point in working and newest[one.point] == at else one
        for at, one in enumerate(attempts)
    ]


def timeline(summary: "Summary") -> dict[str, Any]:
    """Which point had which GPU when, as places of bars; empty where none has begun. What lay between two starts of the sweep is left out."""
    from launcher.sweep.charts import elapsed, lanes

    if not summary.attempts:
        return {}
    rows, total = lanes(summary.attempts), max(1.0, *(elapsed(summary, one.ended) for one in summary.attempts))

    def across(seconds: float) -> float:
        return round(LEFT + (WIDTH - LEFT - 10) * seconds / total, 1)

    bars = [
        Bar(
            across(elapsed(summary, one.started)),
            height * ROW + 3,
            max(2.0, round(across(elapsed(summary, one.ended)) - across(elapsed(summary, one.started)), 1)),
            one.state or "unknown",
            one.point,
            f"{duration(elapsed(summary, one.started))} – {duration(elapsed(summary, one.ended))}",
        )
        for height, (_, attempts) in enumerate(rows)
        for one in attempts
    ]
    ticks = [(across(total * at / TICKS), duration(total * at / TICKS)) for at in range(TICKS + 1)]
    again = [across(elapsed(summary, moment)) for moment in summary.starts[1:]]
    names = [(name, height * ROW + ROW - 9) for height, (name, _) in enumerate(rows)]
    table = [
        (name, one.point, one.state or "unknown", duration(elapsed(summary, one.started)), duration(one.ended - one.started))
        for name, own in rows
        for one in own
    ]
    size = {"width": WIDTH, "height": len(rows) * ROW + BELOW, "row": ROW - 6, "bottom": len(rows) * ROW}
    return {**size, "names": names, "bars": bars, "ticks": ticks, "again": again, "table": table}


def makespan(summary: "Summary") -> dict[str, Any]:
    """How long the sweep took, beside what no order of its points goes below: their seconds shared out among the lanes, and the longest of them.

    Empty where nothing has taken any time. The lanes are the GPUs that were used, each as often as points shared it: the ledger knows no others.
    """
    from launcher.sweep.charts import at_once, elapsed, lanes

    rows = lanes(summary.attempts)
    places = sum(at_once(own) for _, own in rows)
    longest = max((one.ended - one.started for one in summary.attempts), default=0.0)
    if longest <= 0:
        return {}
    shared = sum(one.ended - one.started for _, own in rows for one in own) / places
    took, bound = max(elapsed(summary, one.ended) for one in summary.attempts), max(shared, longest)
    words = {name: duration(seconds) for name, seconds in {"took": took, "bound": bound, "shared": shared, "longest": longest}.items()}
    return {**words, "lanes": places, "above": f"{max(0.0, took / bound - 1):.0%}"}


def possible(state: str) -> tuple[str, ...]:
    return {"running": ("stop",), "unfinished": ("resume",)}.get(state, ())


def words_of(action: str, sweep_dir: "SweepDir") -> list[str]:
    path = str(sweep_dir.path)
    return {"stop": ["stop", path], "resume": ["train", "-m", f"resume={path}"]}[action]


def act_on_sweep(board: Board, request: Request, _: dict[str, Any]) -> Response:
    action = request.path_params["action"]
    if action not in SWEEP_ACTIONS:
        raise HTTPException(404, "There is no such action.")
    sweep_dir = the_sweep(board, request)
    words = words_of(action, sweep_dir)
    if action == "stop":
        return result(actions.run(words, board.folder))
    log = sweep_dir.path / "board.txt"
    if not is_plain(log):
        raise ConfigError(f"{log} is not a plain file. Remove it: what the sweep says goes there.")
    board.starts.count()
    return result(actions.begin(words, board.folder, log))


READS: dict[str, Read] = {"/sweeps": sweeps, "/sweeps/{id}": sweep, "/sweeps/{id}/now": sweep_now}
ACTS: dict[str, Act] = {"/sweeps/{id}/{action}": act_on_sweep}
