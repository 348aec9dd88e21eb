"""The board as one application: which request goes where, and what is answered when one fails."""

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from conf.secrets import masked
from launcher.board import chat, compare, data, new, node, runs, sweeps
from launcher.board.address import Proxy
from launcher.board.board import Act, Board, Read, language, page
from launcher.board.guard import LARGEST_BODY, Guard
from launcher.board.pages import in_language, rendered
from launcher.errors import RegimenError

STATIC = Path(__file__).resolve().parent / "static"
SERVED = {  # these files and no others are served
    "app.js": "text/javascript",
    "chart.js": "text/javascript",
    "data.js": "text/javascript",
    "form.js": "text/javascript",
    "matrix.js": "text/javascript",
    "style.css": "text/css",
    "htmx.min.js": "text/javascript",
    "uPlot.iife.min.js": "text/javascript",
    "uPlot.min.css": "text/css",
}
OPEN = ("/", *(f"/static/{name}" for name in SERVED))  # without the token; they hold nothing of the user's


def application(board: Board, token: str, proxy: Proxy | None = None) -> Guard:
    """Everything that the board answers, behind its guard."""
    routes = [
        Route("/", shell),
        Route("/static/{name}", static),
        *(Route(path, reading(board, read)) for path, read in READS.items()),
        *(Route(path, acting(board, act), methods=["POST"]) for path, act in ACTS.items()),
    ]
    handlers: Any = {RegimenError: told, HTTPException: told_plainly, Exception: told_of_bug}
    return Guard(Starlette(routes=routes, exception_handlers=handlers), token, OPEN, proxy)


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


def top(board: Board, request: Request) -> Response:
    return page(request, "top.html.j2", node=board.node, folder=str(board.folder))


def said(_: Board, request: Request) -> Response:
    chosen = language(request)
    return JSONResponse(in_language(chosen), headers={"Content-Language": chosen})


READS: dict[str, Read] = {
    "/top": top,
    "/texts": said,
    **runs.READS,
    **new.READS,
    **compare.READS,
    **sweeps.READS,
    **node.READS,
    **data.READS,
}
ACTS: dict[str, Act] = {**new.ACTS, **chat.ACTS, **runs.ACTS, **sweeps.ACTS, **node.ACTS, **data.ACTS}
