"""The routes of runs: what they show, and what is done with one."""

from collections.abc import Callable, Mapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from conf.committed import committed
from conf.run_dir import RunDir
from launcher.board import actions, files, views
from launcher.board.axes import AXES
from launcher.board.board import Act, Board, Read, page, result
from launcher.board.chat import words_of_chat
from launcher.board.compare import differences, name_of
from launcher.board.curves import SMOOTHINGS, smoothing
from launcher.board.index import GONE, id_of, odd_files
from launcher.board.searching import search
from launcher.errors import ConfigError
from launcher.verbs.generated import generated_lines
from launcher.verbs.offer import lines_of, named_runs

NO_CONTENT = 204
LONGEST_NUMBER = 10  # digits
LONGEST_PLACE = 18  # digits of a byte of a file
TABS = ("progress", "memory", "samples", "log", "plan", "checkpoints", "events")
OTHERS = 100  # newest runs that a plan may be compared with


def the_run(board: Board, request: Request) -> RunDir:
    return board.index.run(request.path_params["id"])


def runs(board: Board, request: Request) -> Response:
    return page(request, "runs.html.j2", **list_of_runs(board, request.query_params))


def run_list(board: Board, request: Request) -> Response:
    return page(request, "run_list.html.j2", **list_of_runs(board, request.query_params))


def list_of_runs(board: Board, asked: Mapping[str, str]) -> dict[str, Any]:
    """A page of the list. Every run is read for a filter alone, which may be about states; otherwise those that are shown."""
    every, words = board.index.all(), asked.get("words", "")
    found = views.chosen(views.rows(board.index.statuses(every)), words) if words.strip() else None
    count = len(every) if found is None else len(found)
    wanted = asked.get("first", "")
    first = min(int(wanted) if wanted.isdecimal() and len(wanted) < LONGEST_NUMBER else 0, count)
    part = slice(first, first + views.PER_PAGE)
    shown = views.rows(board.index.statuses(every[part])) if found is None else found[part]
    before, after = max(0, first - views.PER_PAGE), first + views.PER_PAGE
    return {"rows": shown, "count": count, "every": len(every), "words": words, "first": first, "before": before, "after": after}


def run(board: Board, request: Request) -> Response:
    tab = request.query_params.get("tab", TABS[0])
    return page(request, "run.html.j2", head=head_of(board, request), tabs=TABS, tab=tab if tab in TABS else TABS[0])


def run_head(board: Board, request: Request) -> Response:
    return page(request, "run_head.html.j2", head=head_of(board, request))


def head_of(board: Board, request: Request) -> views.Head:
    now = next(iter(board.index.statuses([the_run(board, request)])), None)
    if now is None:
        raise ConfigError(GONE)
    return views.head_of(now, board.output)


def run_smaller(board: Board, request: Request) -> Response:
    """What would need less memory; made only for a run that ran out of it, and once for a page."""
    run_dir = plain_run(board, request.path_params["id"])
    found = board.advisor.ask("smaller", path=str(run_dir.path.absolute()))
    return page(request, "text.html.j2", text=found["error"] or found["text"])


def run_tab(board: Board, request: Request) -> Response:
    """One of TABS. Nothing is read of a folder whose records are not plain files."""
    tab, run_dir = request.path_params["tab"], the_run(board, request)
    if tab not in TABS:
        raise HTTPException(404, "There is no such page.")
    values: dict[str, Any] = {"id": request.path_params["id"], "odd": odd_files(run_dir)}
    return page(request, f"tab_{tab}.html.j2", **values, **({} if values["odd"] else tab_values(tab, run_dir, board, request)))


def tab_values(tab: str, run_dir: RunDir, board: Board, request: Request) -> dict[str, Any]:
    if tab == "log":
        names = files.log_names(run_dir)
        name = request.query_params.get("file") or next(iter(names), "")
        at = number_of(request, "at")
        return {"names": names, "name": name, "at": at, "shown": files.log_part(run_dir, name, at)}
    read: dict[str, Callable[[RunDir], Any]] = {
        "memory": views.memory,
        "samples": generated_lines,
        "plan": views.plan_of,
        "checkpoints": views.checkpoints,
        "events": views.events,
    }
    more: dict[str, Any] = {"others": others(board, run_dir)} if tab == "plan" else {}
    if tab == "samples":
        more = {"chat": actions.command_of(words_of_chat(run_dir)) if run_dir.model.is_dir() else ""}
    return {"found": read[tab](run_dir), **more} if tab in read else {"smoothings": SMOOTHINGS, "axes": AXES}


def run_log(board: Board, request: Request) -> Response:
    """The lines of a log that hold the words, from a byte of it on."""
    run_dir, words = plain_run(board, request.path_params["id"]), request.query_params.get("words", "").strip()
    name = request.query_params.get("file", "")
    found = search(run_dir.logs / name, words, number_of(request, "start") or 0) if name in files.log_names(run_dir) else None
    return page(request, "log_lines.html.j2", id=request.path_params["id"], name=name, words=words, found=found)


def number_of(request: Request, name: str) -> int | None:
    """A number of the address; None for anything else."""
    text = request.query_params.get(name, "")
    return int(text) if text.isdecimal() and len(text) < LONGEST_PLACE else None


def run_removal(board: Board, request: Request) -> Response:
    """What `regimen clean RUN` says of the run before it asks: its size, and who uses its files."""
    run_dir = the_run(board, request)
    offer = named_runs([str(run_dir.path.absolute())], board.output)
    return PlainTextResponse("\n".join(lines_of(offer)))


def others(board: Board, run_dir: RunDir) -> list[tuple[str, str]]:
    """Id and name of the newest other runs."""
    found = [other for other in board.index.all() if other.path != run_dir.path][:OTHERS]
    return [(id_of(other), name_of(other)) for other in found]


def run_asked(board: Board, request: Request) -> Response:
    """What was asked for, beside the defaults."""
    run_dir = plain_run(board, request.path_params["id"])
    found = board.advisor.ask("asked", path=str(run_dir.path.absolute()))
    return page(request, "text.html.j2", text=found["error"] or found["text"])


def run_difference(board: Board, request: Request) -> Response:
    """The keys in which the run differs from another one."""
    runs = [plain_run(board, identity) for identity in (request.query_params.get("with", ""), request.path_params["id"])]
    return page(request, "keys.html.j2", **differences(board, runs))


def plain_run(board: Board, identity: str) -> RunDir:
    """Raises ConfigError for a run that is not there, and for one whose records are not plain files."""
    run_dir = board.index.run(identity)
    if odd_files(run_dir):
        raise ConfigError(odd_files(run_dir))
    return run_dir


def curve(board: Board, request: Request) -> Response:
    """The charts of a run; nothing where its file is as long as the page says that it has seen."""
    run_dir = the_run(board, request)
    if odd_files(run_dir):
        return JSONResponse({"size": 0, "charts": []})
    with board.curves.lock:
        curves = board.curves.of(run_dir)
        if request.query_params.get("seen") == str(curves.tail.offset):
            return Response(status_code=NO_CONTENT)
        axis = curves.clock.known(request.query_params.get("x", ""))
        restarts = sorted(map(curves.clock.over(axis), curves.clock.restarts))
        charts = curves.charts(smoothing(request.query_params.get("smooth", "")), axis)
        return JSONResponse({"size": curves.tail.offset, "axis": axis, "restarts": [sorted(curves.clock.restarts), restarts], "charts": charts})


def act_on_run(board: Board, request: Request, _: dict[str, Any]) -> Response:
    action = request.path_params["action"]
    if action not in actions.ACTIONS:
        raise HTTPException(404, "There is no such action.")
    done = actions.run(actions.words_of(action, the_run(board, request), board.output), board.folder)
    return result(done)


def export_checkpoint(board: Board, request: Request, _: dict[str, Any]) -> Response:
    run_dir, name = plain_run(board, request.path_params["id"]), request.path_params["name"]
    if name not in [path.name for path in committed(run_dir)]:
        raise ConfigError("There is no such checkpoint any more. Open the checkpoints of the run again.")
    return result(actions.run(actions.words_of_checkpoint(run_dir, name), board.folder))


READS: dict[str, Read] = {
    "/runs": runs,
    "/runs/list": run_list,
    "/runs/{id}": run,
    "/runs/{id}/head": run_head,
    "/runs/{id}/curve": curve,
    "/runs/{id}/log": run_log,
    "/runs/{id}/removal": run_removal,
    "/runs/{id}/smaller": run_smaller,
    "/runs/{id}/asked": run_asked,
    "/runs/{id}/difference": run_difference,
    "/runs/{id}/tab/{tab}": run_tab,
}
ACTS: dict[str, Act] = {"/runs/{id}/checkpoints/{name}/export": export_checkpoint, "/runs/{id}/{action}": act_on_run}
