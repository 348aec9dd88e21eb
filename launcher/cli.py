"""The verbs of the command line, and the one place that turns an error into a message and an exit code."""

import argparse
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TextIO, cast

from conf.exit_codes import BUG, DISK, INTERRUPTED
from conf.private import OWNER_ALONE, keep_private
from conf.secrets import masked
from launcher.errors import RegimenError
from launcher.steady import Steady
from launcher.verbs.after_training_options import add_after_training, add_output
from launcher.verbs.data_options import add_data_verbs
from launcher.verbs.import_options import add_import
from launcher.verbs.parser import Parser, Version, refuse_options, refuse_other_names, refuse_verb, show_help
from launcher.verbs.process_options import add_processes
from launcher.verbs.queue_options import add_queue
from launcher.verbs.run_options import add_plan, add_train, composing
from launcher.verbs.watch_options import add_memory, add_watching

DESCRIPTION = "Fine-tune language models. A run is described once, judged before it starts, started anywhere, and resumed bit for bit."
FIRST_STEPS = """first steps:
  regimen doctor                    check this machine
  regimen plan                      judge the demo, which is used where no model and no data are named
  regimen train                     train it
  regimen train --help              the groups, their choices, and how a run is described
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit code of the process."""
    before, mask = (sys.stdout, sys.stderr), os.umask(OWNER_ALONE)
    os.umask(mask)  # which cannot be asked without being set
    out, err = Steady(sys.stdout), Steady(sys.stderr)
    sys.stdout, sys.stderr = cast(TextIO, out), cast(TextIO, err)
    try:
        code = answer(sys.argv[1:] if argv is None else argv)
        out.flush()
        if out.failed is None:
            return code
        print(f"regimen: standard output could not be written ({out.failed.strerror}); from there on it is lost.", file=sys.stderr)
        return code or DISK
    finally:
        err.flush()
        sys.stdout, sys.stderr = before
        os.umask(mask)


def answer(argv: Sequence[str]) -> int:
    places: dict[str, str] = {}
    try:
        arguments = parsed_arguments(argv, places)
        return int(arguments.act(arguments))
    except RegimenError as error:
        if str(error):
            print(f"regimen: {readable(with_places(str(error), places))}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception:  # noqa: BLE001 - a bug: the traceback is kept for us, the user gets a sentence
        return report_bug()


def readable(message: str) -> str:
    """What a file or a word of the command line holds must not move the cursor of a terminal."""
    from launcher.words import on_one_line

    return "\n".join(map(on_one_line, message.split("\n")))


def with_places(message: str, places: Mapping[str, str]) -> str:
    """The message, and where the key that it is about stands in a file of the run."""
    if not places:
        return message
    from launcher.composition.run_file import with_place

    return with_place(message, places)


def parsed_arguments(argv: Sequence[str], places: dict[str, str] | None = None) -> argparse.Namespace:
    """argparse accepts positionals in one block only. Here overrides may stand between options, and after a file that holds some.

    Where each key of such a file stands is added to `places`.

    Raises:
        ConfigError: for what is neither a verb, nor an option of it, nor an override.
    """
    places = {} if places is None else places
    top = parser()
    refuse_verb(argv)
    refuse_other_names(argv)
    arguments, rest = top.parse_known_args(argv)
    if any(text.startswith("-") for text in rest) or (rest and "overrides" not in arguments):
        refuse_options(arguments, rest, argv)
    if rest:
        arguments.overrides += rest
    if any(text.endswith((".yaml", ".yml")) for text in vars(arguments).get("overrides", ())):
        from launcher.composition.run_file import with_files

        arguments.overrides = with_files(arguments.overrides, places)
    if not "".join(vars(arguments).get("overrides", ())).isascii():
        from launcher.composition.spelling import plainly

        arguments.overrides = [plainly(text) for text in arguments.overrides]
    lines = replaced(getattr(arguments, "overrides", []))
    if lines and not places and getattr(arguments, "multirun", False):
        from launcher.sweep.grid import refuse_given_twice

        refuse_given_twice(arguments.overrides)
    for line in lines:
        print(line, file=sys.stderr)
    if places:
        arguments.overrides = last_of_each(arguments.overrides)
    return arguments


def last_of_each(overrides: Sequence[str]) -> list[str]:
    """The overrides without those that a later one of the same key replaces: Hydra refuses two choices of a group."""
    last = {text.partition("=")[0]: at for at, text in enumerate(overrides)}
    return [text for at, text in enumerate(overrides) if "=" not in text or last[text.partition("=")[0]] == at]


def replaced(overrides: Sequence[str]) -> list[str]:
    """A line for each override that a later one of the same key replaces."""
    given = [text.partition("=") for text in overrides if "=" in text]
    last = {key: value for key, _, value in given}
    return [f"note: {key}={value} is replaced by {key}={last[key]}, which is given after it." for key, _, value in given if value != last[key]]


def report_bug() -> int:
    handle, name = tempfile.mkstemp(prefix="regimen-bug-", suffix=".txt")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(masked(traceback.format_exc()))
    cause = traceback.format_exc().splitlines()[-1]
    print(f"regimen: this is a bug in regimen ({cause}). The traceback is in {name}. Please report it.", file=sys.stderr)
    return BUG


def parser() -> argparse.ArgumentParser:
    top = Parser(prog="regimen", description=DESCRIPTION, epilog=FIRST_STEPS, formatter_class=argparse.RawDescriptionHelpFormatter)
    top.add_argument("--version", action=Version)
    top.set_defaults(act=show_help(top))
    verbs = top.add_subparsers(title="verbs", metavar="VERB")
    add_train(verbs.add_parser)
    add_plan(verbs.add_parser)
    add_queue(verbs.add_parser, composing)
    add_import(verbs.add_parser)
    add_watching(verbs.add_parser)
    add_processes(verbs.add_parser)
    add_board(verbs.add_parser)
    add_mcp(verbs.add_parser)
    add_memory(verbs.add_parser)
    add_data_verbs(verbs.add_parser, composing)
    add_after_training(verbs.add_parser)
    return top


AddParser = Callable[..., argparse.ArgumentParser]


def add_board(add: AddParser) -> None:
    what = "show runs in a browser, on this machine alone"
    board = add("board", help=what, description=what.capitalize() + "; stop them, resume them, start new ones.")
    add_output(board)
    further = "a new run may also name files below this folder, such as models; can be given several times"
    board.add_argument("--root", action="append", default=[], type=Path, metavar="FOLDER", help=further)
    board.add_argument("--port", type=int, metavar="PORT", help="listen on this port of 127.0.0.1 (default: any free one; over ssh, a socket)")
    board.add_argument("--socket", type=Path, metavar="FILE", help="listen on this Unix socket, which its user alone can open")
    board.add_argument(
        "--behind-proxy", metavar="URL", help="the address of the board in your browser, where a proxy of this node forwards to --port"
    )
    board.add_argument("--idle", type=float, default=12.0, metavar="HOURS", help="end after so long without a request; 0: never (default: 12)")
    board.add_argument("--new-token", action="store_true", help="make a new token; addresses that were printed before open no page any more")
    board.set_defaults(act=act_board)


def add_mcp(add: AddParser) -> None:
    what = "let an agent plan and watch runs: a server of the Model Context Protocol on standard input and output"
    mcp = add("mcp", help=what, description=what.capitalize() + ". It opens no port.")
    mcp.add_argument("--allow-start", action="store_true", help="the agent may also start and stop runs, behind the same gate")
    add_output(mcp)
    mcp.set_defaults(act=act_mcp)


def act_board(arguments: argparse.Namespace) -> int:
    keep_private()
    from launcher.board.serve import Options, serve

    given = vars(arguments)
    named = {"roots": tuple(given["root"]), "proxy": given["behind_proxy"]}
    return serve(Options(**named, **{name: given[name] for name in ("output", "port", "socket", "idle", "new_token")}))


def act_mcp(arguments: argparse.Namespace) -> int:
    keep_private()
    from launcher.agent.server import serve

    return serve(Path.cwd(), arguments.output, arguments.allow_start)
