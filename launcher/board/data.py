"""The page of data sets: which are there, and what `regimen data validate` says of them."""

import base64
import json
import re
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from conf.constants import GENERATED
from conf.data_registry import DataError, read_registry, registered_source
from conf.data_sets import COMPRESSIONS, ENDINGS
from conf.groups import built_in_choices
from launcher.board import actions, form
from launcher.board.board import Act, Board, Read, page
from launcher.board.files import visible
from launcher.errors import ConfigError
from launcher.words import gib

REGISTRY = "dataset_info.json"  # what conf/data says of data.registry
MOST_SETS = 500
LARGEST_REGISTRY, LARGEST_PICTURE = 8 * 2**20, 2 * 2**20  # bytes
LEARNED = re.compile("(⟦[^⟧]*⟧)")  # as trainers/data/inspect/preview.py marks it
at_work = Lock()  # each look loads torch, so there is one at a time


@dataclass(frozen=True)
class SetRow:
    name: str
    where: str  # its file, folder or repository of the hub
    size: str
    layout: str
    fault: str = ""


def data(board: Board, request: Request) -> Response:
    folder = request.query_params.get("folder") or form.DATA_FOLDER
    for path in (folder, f"{folder}/{REGISTRY}"):
        refuse_elsewhere(board, path)
    rows = sets_in(board.folder / folder)
    choices = {"models": built_in_choices("model"), "stages": built_in_choices("stage")}
    return page(request, "data.html.j2", folder=folder, rows=rows[:MOST_SETS], left_out=len(rows[MOST_SETS:]), **choices)


def refuse_elsewhere(board: Board, folder: str) -> None:
    """Raises Unsafe for a folder that a new run may not read either."""
    form.refuse_outside({"data.folder": folder}, board.folder, board.judge.roots)


def sets_in(folder: Path) -> list[SetRow]:
    """The generated set, the entries of the registry, and the data files beside it."""
    return [SetRow(GENERATED, "", "", ""), *registered(folder / REGISTRY), *map(file_row, data_files(folder))]


def registered(path: Path) -> list[SetRow]:
    """
    Raises:
        ConfigError: for a registry that cannot be read.
    """
    if path.is_file() and path.stat().st_size > LARGEST_REGISTRY:
        raise ConfigError(f"{path} has more than {LARGEST_REGISTRY:,} bytes, which is no registry that a page can show.")
    try:
        entries = read_registry(path)
    except DataError as error:
        raise ConfigError(str(error)) from error
    return [entry_row(path, name, entry) for name, entry in entries.items()]


def entry_row(path: Path, name: str, entry: object) -> SetRow:
    try:
        source = registered_source(path, name, entry)
    except DataError as error:
        return SetRow(name, "", "", "", str(error))
    where = source.hub_id or str(source.file or "")
    return SetRow(name, where, size_of(source.file), "" if source.layout is None else type(source.layout).__name__)


def size_of(path: Path | None) -> str:
    return gib(path.stat().st_size) if path is not None and path.is_file() else ""


def data_files(folder: Path) -> list[Path]:
    """The plain data files of a folder, by their names; those below it a set may name too, and are not listed."""
    endings = tuple(f"{ending}{packed}" for ending in ENDINGS for packed in ("", *COMPRESSIONS))
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted(path for path in found if path.name.endswith(endings) and path.name != REGISTRY and path.is_file() and not path.is_symlink())


def file_row(path: Path) -> SetRow:
    return SetRow(path.name, path.name, size_of(path), "")


def look(board: Board, request: Request, values: dict[str, Any]) -> Response:
    """What `regimen data validate` says of the sets of a form: its own figures and its own samples, in a page."""
    given = values.get("form")
    if not isinstance(given, dict):
        raise ConfigError("There is no form in the request.")
    words = ["data", "validate", "--json", *form.overrides_of(given)]
    form.refuse_outside(given, board.folder, board.judge.roots)
    if not at_work.acquire(blocking=False):
        raise ConfigError("The board looks at data already. Wait until it has answered.")
    try:
        done = actions.run(words, board.folder, apart=True)
    finally:
        at_work.release()
    print(f"{done.command}  (exit code {done.code})", flush=True)
    return page(request, "data_report.html.j2", command=done.command, **report(done, board))


def report(done: actions.Done, board: Board) -> dict[str, Any]:
    """`error`: what the command says instead of a report, or beside one that training would end with."""
    try:
        found = json.loads(done.text)
        shown = {"train": found["train"], "evaluation": found["evaluation"], "problems": found["problems"], "notes": found["disagreements"]}
        previews = [parts_of(visible(text)) for text in found["previews"]]
        return {"found": shown, "previews": previews, "picture": picture(Path(found["picture"]), board), "error": done.said.strip()}
    except (ValueError, KeyError, TypeError):
        return {"found": None, "previews": [], "picture": "", "error": (done.said or done.text).strip()}


def parts_of(preview: str) -> list[str]:
    """Its text as it is, in parts of which every second one is learned; the first line says what the marks mean."""
    head, line_break, body = preview.partition("\n")
    first, *rest = LEARNED.split(body)
    return [f"{head}{line_break}{first}", *rest]


def picture(path: Path, board: Board) -> str:
    """The histogram that the command has drawn, as a data: address; empty where it is not a file of the board's folders."""
    inside = any(path.resolve().is_relative_to(root.resolve()) for root in board.judge.roots)
    if not inside or not path.is_file() or path.stat().st_size > LARGEST_PICTURE:
        return ""
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


READS: dict[str, Read] = {"/data": data}
ACTS: dict[str, Act] = {"/data/look": look}
