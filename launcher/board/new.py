"""The routes of a new run: its form, what the judge says of it, and its start."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from conf.groups import built_in_choices
from conf.run_dir import RunDir
from launcher.board import actions, form
from launcher.board.board import Act, Board, Read, page, result
from launcher.board.form import Field, Section
from launcher.board.index import odd_files
from launcher.errors import ConfigError, RegimenError

QUICK = ("plan", "save")  # what a person waits for at each change, and at the start
COMMAND_FORMS = ("command", "processes", "script")  # by which the page shows what would run
START, QUEUE = ("train", "--detach"), ("queue", "add")  # before the overrides of the form


def new(board: Board, request: Request) -> Response:
    """The form of a new run; with ?like=ID as that run was."""
    like = request.query_params.get("like")
    found: dict[str, Any] = board.advisor.ask("like", path=str(plain_run_yaml(board.index.run(like)).absolute())) if like else {"error": ""}
    given: dict[str, str] = found.get("form", {})
    sections = [(section, shown_fields(section, given)) for section in form.sections()]
    values = {"sections": sections, "form": given, "error": found["error"], "recipes": built_in_choices("recipe"), "command_forms": COMMAND_FORMS}
    return page(request, "new.html.j2", name_help=form.name_help("name"), **values)


def plain_run_yaml(run_dir: RunDir) -> Path:
    if odd_files(run_dir):
        raise ConfigError(odd_files(run_dir))
    return run_dir.run_yaml


def shown_fields(section: Section, given: Mapping[str, str]) -> list[Field]:
    return form.fields_of(section.group, given.get(section.group) or form.first_choice(section.group))


def new_fields(board: Board, request: Request) -> Response:
    group, choice = request.path_params["group"], request.path_params["choice"]
    return page(request, "fields.html.j2", fields=form.fields_of(group, choice))


def asking(what: str) -> Act:
    """A question to a process that judges, about the form that the page sends."""

    def act(board: Board, _: Request, values: dict[str, Any]) -> Response:
        given = form_from(board, values)
        asked = board.judge if what in QUICK else board.advisor
        return JSONResponse({**asked.ask(what, form=given), "command": command_of_form(given), "queue": command_of_form(given, QUEUE)})

    return act


def load(board: Board, _: Request, values: dict[str, Any]) -> Response:
    if not isinstance(values.get("text"), str):
        raise ConfigError("There is no text of a file.")
    return JSONResponse(board.advisor.ask("load", text=values["text"]))


def cell(board: Board, _: Request, values: dict[str, Any]) -> Response:
    """The form that a cell of the matrix leads to."""
    named = {name: str(values.get(name, "")) for name in ("regime", "sharding")}
    return JSONResponse(board.advisor.ask("cell", form=form_from(board, values), **named))


def beginning(first: Sequence[str]) -> Act:
    """What the form describes, started or put into the queue by the command that was shown; the command judges it again."""

    def act(board: Board, _: Request, values: dict[str, Any]) -> Response:
        given = form_from(board, values)
        saved = board.judge.ask("save", form=given)
        if saved["error"]:
            raise ConfigError(saved["error"])
        board.starts.count()
        return result(actions.run([*first, *form.overrides_of(given)], board.folder))

    return act


def form_from(board: Board, values: dict[str, Any]) -> dict[str, str]:
    """What the page sent; a board of one output folder starts its runs there."""
    given = values.get("form")
    if not isinstance(given, dict):
        raise ConfigError("There is no form in the request.")
    return given if board.output is None else {"output": str(board.output), **given}


def command_of_form(given: Mapping[str, Any], first: Sequence[str] = START) -> str:
    """Empty for a form that cannot be said."""
    try:
        return actions.command_of([*first, *form.overrides_of(given)])
    except RegimenError:
        return ""


READS: dict[str, Read] = {"/new": new, "/new/fields/{group}/{choice}": new_fields}
ACTS: dict[str, Act] = {
    "/new/plan": asking("plan"),
    "/new/proposals": asking("proposals"),
    "/new/save": asking("save"),
    "/new/load": load,
    "/new/matrix": asking("matrix"),
    "/new/cell": cell,
    "/new/start": beginning(START),
    "/new/queue": beginning(QUEUE),
}
