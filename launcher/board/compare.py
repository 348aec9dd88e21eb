"""The page that lays runs over each other: their curves, their measures, and the keys in which they differ."""

from collections.abc import Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from conf.run_dir import RunDir
from launcher.board import views
from launcher.board.axes import AXES, STEP
from launcher.board.board import Board, Read, page
from launcher.board.curves import SMOOTHINGS, smoothing
from launcher.board.index import GONE, odd_files
from launcher.errors import ConfigError

FEWEST, MOST = 2, 6
NO_CONTENT = 204


def compare(board: Board, request: Request) -> Response:
    runs = those_runs(board, request)
    statuses = {now.run_dir.path: now for now in board.index.statuses(runs)}
    if len(statuses) < len(runs):
        raise ConfigError(GONE)
    heads = [views.head_of(statuses[run_dir.path], board.output) for run_dir in runs]
    columns = [{"row": head.row, "measures": head.measures, "memory": memory_of(run_dir)} for head, run_dir in zip(heads, runs, strict=True)]
    return page(request, "compare.html.j2", columns=columns, smoothings=SMOOTHINGS, axes=AXES, ids=",".join(head.row.id for head in heads))


def compare_keys(board: Board, request: Request) -> Response:
    runs = those_runs(board, request)
    return page(request, "keys.html.j2", **differences(board, runs))


def name_of(run_dir: RunDir) -> str:
    return f"{run_dir.path.parent.name}/{run_dir.path.name}"


def those_runs(board: Board, request: Request) -> list[RunDir]:
    """The runs that ?r=ID,ID names, each once.

    Raises:
        ConfigError: for too few, too many, one that is not there, and one whose records are not plain files.
    """
    ids = [*dict.fromkeys(filter(None, request.query_params.get("r", "").split(",")))]
    if not FEWEST <= len(ids) <= MOST:
        raise ConfigError(f"{len(ids)} runs are chosen. Choose from {FEWEST} to {MOST} on the page of all runs.")
    runs = [board.index.run(identity) for identity in ids]
    odd = next(filter(None, map(odd_files, runs)), "")
    if odd:
        raise ConfigError(odd)
    return runs


def memory_of(run_dir: RunDir) -> str:
    found = views.memory(run_dir)
    rows = found["rows"][:1] or found["predicted"][:1]
    return ", ".join(row["predicted"] + (f" → {row['measured']}" if "measured" in row else "") for row in rows)


def differences(board: Board, runs: Sequence[RunDir]) -> dict[str, Any]:
    """What `regimen plan --diff` compares, for any number of runs: each key with its values. A run that cannot be read is left out and named."""
    named = {str(run_dir.path.absolute()): name_of(run_dir) for run_dir in runs}
    found = board.advisor.ask("differ", paths=[*named])
    faults = [found["error"]] if found["error"] else found["faults"]
    return {"names": [named[path] for path in found.get("paths", [])], "keys": found.get("keys", []), "faults": faults}


def compare_curves(board: Board, request: Request) -> Response:
    """Each measure that a run has, with the lines of all runs; nothing where the files are as long as the page says that it has seen."""
    runs, keep = those_runs(board, request), smoothing(request.query_params.get("smooth", ""))
    with board.curves.lock:
        curves = [board.curves.of(run_dir) for run_dir in runs]
        seen = "-".join(str(each.tail.offset) for each in curves)
        if request.query_params.get("seen") == seen:
            return Response(status_code=NO_CONTENT)
        known = {each.clock.known(request.query_params.get("x", "")) for each in curves}
        axis = known.pop() if len(known) == 1 else STEP
        drawn = [{chart["name"]: chart for chart in each.charts(keep, axis)} for each in curves]
    names = list(dict.fromkeys(name for charts in drawn for name in charts))
    labels = list(map(name_of, runs))
    lines = {name: [{"label": label, **charts[name]} for label, charts in zip(labels, drawn, strict=True) if name in charts] for name in names}
    return JSONResponse({"size": seen, "axis": axis, "charts": [{"name": name, "runs": lines[name]} for name in names]})


READS: dict[str, Read] = {"/compare": compare, "/compare/keys": compare_keys, "/compare/curve": compare_curves}
