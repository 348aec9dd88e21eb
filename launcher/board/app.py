"""The routes of the board: which request reads or does what."""

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from conf.run_dir import RunDir
from conf.secrets import masked, masked_in
from launcher.board import actions, files, views
from launcher.board.curves import AllCurves
from launcher.board.guard import LARGEST_BODY, Guard
from launcher.board.index import GONE, Index, odd_files
from launcher.board.pages import in_language, language_of, rendered
from launcher.errors import ConfigError, RegimenError

STATIC = Path(__file__).resolve().parent / "static"
SERVED = {  # these files and no others are served
    "app.js": "text/javascript",
    "chart.js": "text/javascript",
    "style.css": "text/css",
    "htmx.min.js": "text/javascript",
    "uPlot.iife.min.js": "text/javascript",
    "uPlot.min.css": "text/css",
}
OPEN = ("/", *(f"/static/{name}" for name in SERVED))  # without the token; they hold nothing of the user's
NO_CONTENT = 204
TABS = ("progress", "memory", "log", "plan", "checkpoints", "events")


@dataclass
class Board:
    folder: Path  # the working folder: runs are found and started as on a command line there
    output: Path | None  # of --output
    node: str  # the name of this machine
    index: Index = field(init=False)
    curves: AllCurves = field(default_factory=AllCurves)

    def __post_init__(self) -> None:
        self.index = Index(self.output)


def application(board: Board, token: str) -> ASGIApp:
    """Everything that the board answers, behind its guard."""
    routes = [
        Route("/", shell),
        Route("/static/{name}", static),
        *(Route(path, reading(board, read)) for path, read in READS.items()),
        *(Route(path, acting(board, act), methods=["POST"]) for path, act in ACTS.items()),
    ]
    handlers: Any = {RegimenError: told, HTTPException: told_plainly, Exception: told_of_bug}
    return Guard(Starlette(routes=routes, exception_handlers=handlers), token, OPEN)


Read = Callable[[Board, Request], Response]
Act = Callable[[Board, Request, Any], Response]


def reading(board: Board, read: Read) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        return await run_in_threadpool(read, board, request)

    return answer


def acting(board: Board, act: Act) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        values = await json_of(request)
        return await run_in_threadpool(act, board, request, values)

    return answer


async def json_of(request: Request) -> dict[str, Any]:
    """The object that a request holds. Its length was checked where it was stated."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > LARGEST_BODY:
            raise HTTPException(413, f"The board takes at most {LARGEST_BODY:,} bytes.")
    try:
        values = json.loads(bytes(body) or b"{}")
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, "The request is not JSON.") from error
    if not isinstance(values, dict):
        raise HTTPException(400, "The request is not a JSON object.")
    return values


async def told(_: Request, error: Exception) -> Response:
    return PlainTextResponse(masked(str(error)), 422)


async def told_plainly(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return PlainTextResponse(error.detail, error.status_code)


async def told_of_bug(_: Request, error: Exception) -> Response:
    """Starlette raises the error again, and the guard shows where it came from."""
    return PlainTextResponse("This is a bug in regimen. The board's terminal has the traceback. Please report it.", 500)


async def shell(request: Request) -> Response:
    return HTMLResponse(rendered("shell.html.j2", language(request), {}))


async def static(request: Request) -> Response:
    name = request.path_params["name"]
    if name not in SERVED:
        raise HTTPException(404, "There is no such file.")
    return FileResponse(STATIC / name, media_type=SERVED[name], headers={"Cache-Control": "no-cache"})


def language(request: Request) -> str:
    return language_of(request.headers.get("accept-language", ""))


def page(request: Request, template: str, /, **values: Any) -> Response:
    return HTMLResponse(rendered(template, language(request), values))


def the_run(board: Board, request: Request) -> RunDir:
    return board.index.run(request.path_params["id"])


def top(board: Board, request: Request) -> Response:
    return page(request, "top.html.j2", node=board.node, folder=str(board.folder))


def said(_: Board, request: Request) -> Response:
    chosen = language(request)
    return JSONResponse(in_language(chosen), headers={"Content-Language": chosen})


def runs(board: Board, request: Request) -> Response:
    return page(request, "runs.html.j2", **list_of_runs(board, request.query_params))


def run_list(board: Board, request: Request) -> Response:
    return page(request, "run_list.html.j2", **list_of_runs(board, request.query_params))


def list_of_runs(board: Board, asked: Mapping[str, str]) -> dict[str, Any]:
    every = views.rows(board.index.statuses(board.index.all()))
    found = views.chosen(every, asked.get("words", ""))
    first = min(int(asked["first"]) if asked.get("first", "").isdecimal() else 0, len(found))
    shown = found[first : first + views.PER_PAGE]
    before, after = max(0, first - views.PER_PAGE), first + views.PER_PAGE
    return {
        "rows": shown,
        "count": len(found),
        "every": len(every),
        "words": asked.get("words", ""),
        "first": first,
        "before": before,
        "after": after,
    }


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


def run_tab(board: Board, request: Request) -> Response:
    """One of TABS. Nothing is read of a folder whose records are not plain files."""
    tab, run_dir = request.path_params["tab"], the_run(board, request)
    if tab not in TABS:
        raise HTTPException(404, "There is no such page.")
    values: dict[str, Any] = {"id": request.path_params["id"], "odd": odd_files(run_dir)}
    return page(request, f"tab_{tab}.html.j2", **values, **({} if values["odd"] else tab_values(tab, run_dir, request)))


def tab_values(tab: str, run_dir: RunDir, request: Request) -> dict[str, Any]:
    if tab == "log":
        names = files.log_names(run_dir)
        name = request.query_params.get("file") or next(iter(names), "")
        return {"names": names, "name": name, "shown": files.log_tail(run_dir, name)}
    read: dict[str, Callable[[RunDir], Any]] = {
        "memory": views.memory,
        "plan": views.plan_of,
        "checkpoints": views.checkpoints,
        "events": views.events,
    }
    return {"found": read[tab](run_dir)} if tab in read else {}


def curve(board: Board, request: Request) -> Response:
    """The charts of a run; nothing where its file is as long as the page says that it has seen."""
    run_dir = the_run(board, request)
    if odd_files(run_dir):
        return JSONResponse({"size": 0, "charts": []})
    with board.curves.lock:
        curves = board.curves.of(run_dir)
        if request.query_params.get("seen") == str(curves.tail.offset):
            return Response(status_code=NO_CONTENT)
        return JSONResponse({"size": curves.tail.offset, "charts": curves.charts()})


def act_on_run(board: Board, request: Request, _: dict[str, Any]) -> Response:
    action = request.path_params["action"]
    if action not in actions.ACTIONS:
        raise HTTPException(404, "There is no such action.")
    done = actions.run(actions.words_of(action, the_run(board, request), board.output), board.folder)
    return result(done)


def result(done: actions.Done) -> Response:
    print(f"{done.command}  (exit code {done.code})", flush=True)
    return JSONResponse(masked_in(vars(done)))


READS: dict[str, Read] = {
    "/top": top,
    "/texts": said,
    "/runs": runs,
    "/runs/list": run_list,
    "/runs/{id}": run,
    "/runs/{id}/head": run_head,
    "/runs/{id}/curve": curve,
    "/runs/{id}/tab/{tab}": run_tab,
}
ACTS: dict[str, Act] = {"/runs/{id}/{action}": act_on_run}
