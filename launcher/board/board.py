"""What every route of the board has at hand, and how it answers with a page."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from conf.secrets import masked_in
from launcher.board.actions import Done, Starts
from launcher.board.curves import AllCurves
from launcher.board.index import Index
from launcher.board.judge import Judge
from launcher.board.pages import language_of, rendered
from launcher.launch.places import places


@dataclass
class Board:
    folder: Path  # the working folder: runs are found and started as on a command line there
    output: Path | None  # of --output
    node: str  # the name of this machine
    roots: tuple[Path, ...] = ()  # of --root: further folders that a new run may read and write
    index: Index = field(init=False)
    judge: Judge = field(init=False)
    advisor: Judge = field(init=False)  # of what takes longer, so that no verdict waits for it
    curves: AllCurves = field(default_factory=AllCurves)
    starts: Starts = field(default_factory=Starts)

    def __post_init__(self) -> None:
        self.index = Index(self.output)
        roots = (self.folder, *places(self.output), *self.roots)
        self.judge, self.advisor = Judge(self.folder, roots), Judge(self.folder, roots)


Read = Callable[[Board, Request], Response]
Act = Callable[[Board, Request, Any], Response]


def language(request: Request) -> str:
    return language_of(request.headers.get("accept-language", ""))


def page(request: Request, template: str, /, **values: Any) -> Response:
    return HTMLResponse(rendered(template, language(request), values))


def result(done: Done) -> Response:
    print(f"{done.command}  (exit code {done.code})", flush=True)
    return JSONResponse(masked_in(vars(done)))
