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
from launcher.errors import ConfigError, RegimenError
from launcher.steady import Steady
from launcher.verbs.after_training_options import add_after_training, add_output
from launcher.verbs.data_options import add_data_verbs
from launcher.verbs.parser import Parser, Version, refuse_options, refuse_other_names, refuse_verb, show_help
from launcher.verbs.queue_options import add_queue, add_queue_processes
from launcher.verbs.run_options import add_plan, add_train, composing

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
            print(f"regimen: {with_places(str(error), places)}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception:  # noqa: BLE001 - a bug: the traceback is kept for us, the user gets a sentence
        return report_bug()


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
    add_board(verbs.add_parser)
    add_mcp(verbs.add_parser)
    add_memory(verbs.add_parser)
    add_data_verbs(verbs.add_parser, composing)
    add_after_training(verbs.add_parser)
    return top


AddParser = Callable[..., argparse.ArgumentParser]


def add_import(add: AddParser) -> None:
    what = "translate a training file or command of LLaMA-Factory"
    moved = add("import", help=what, description=what.capitalize() + ", and say what becomes of every argument.")
    moved.add_argument("words", nargs="+", metavar="FILE", help="its training file (.yaml or .json), or after -- its command line")
    moved.add_argument("--save", type=Path, metavar="FILE.yaml", help="write the file of a run here (default: print it)")
    moved.add_argument("--run", action="store_true", help="start the run at once, as `regimen train FILE.yaml` would")
    moved.set_defaults(act=act_import)


def add_watching(add: AddParser) -> None:
    status = add(
        "status",
        help="list runs, or follow one",
        description="List runs, or follow one. It reads their files, and asks squeue about runs that wait or run in Slurm.",
    )
    status.add_argument("run", nargs="?", metavar="RUN", help="a run folder, the name of a run, last, or the folder of a sweep")
    status.add_argument("--follow", action="store_true", help="show the run's progress until it ends")
    add_output(status)
    status.add_argument("--json", action="store_true", help="print the list as JSON")
    status.set_defaults(act=act_status)
    stop = add(
        "stop", help="ask a run to save a checkpoint and stop", description="Ask a run, or each point of a sweep, to save a checkpoint and stop."
    )
    stop.add_argument("run", metavar="RUN", help="a run folder, the name of a run, last, or the folder of a sweep")
    add_output(stop)
    stop.set_defaults(act=act_stop)
    add_clean(add)
    doctor = add("doctor", help="check this machine and say what to do", description="Check this machine and say what to do.")
    doctor.add_argument("--output", default="outputs", type=Path, metavar="FOLDER", help="the folder whose disk is checked (default: %(default)s)")
    doctor.set_defaults(act=act_doctor)
    supervise = add(
        "supervise", description="Start the ranks of a run folder and wait until they have ended. `train --detach` leaves this verb running."
    )
    supervise.add_argument("run", type=Path)
    supervise.add_argument("--handed-over", metavar="NONCE", help="of the lock that the starting process holds and hands over")
    supervise.set_defaults(act=act_supervise)
    add_queue_processes(add)
    add_job_records(add)


def add_board(add: AddParser) -> None:
    what = "show runs in a browser, on this machine alone"
    board = add("board", help=what, description=what.capitalize() + "; stop them, resume them, start new ones.")
    add_output(board)
    further = "a new run may also name files below this folder, such as models; can be given several times"
    board.add_argument("--root", action="append", default=[], type=Path, metavar="FOLDER", help=further)
    board.add_argument("--port", type=int, metavar="PORT", help="listen on this port of 127.0.0.1 (default: any free one; over ssh, a socket)")
    board.add_argument("--socket", type=Path, metavar="FILE", help="listen on this Unix socket, which its user alone can open")
    board.add_argument("--new-token", action="store_true", help="make a new token; addresses that were printed before open no page any more")
    board.set_defaults(act=act_board)


def add_mcp(add: AddParser) -> None:
    what = "let an agent plan and watch runs: a server of the Model Context Protocol on standard input and output"
    mcp = add("mcp", help=what, description=what.capitalize() + ". It opens no port.")
    mcp.add_argument("--allow-start", action="store_true", help="the agent may also start and stop runs, behind the same gate")
    add_output(mcp)
    mcp.set_defaults(act=act_mcp)


def add_clean(add: AddParser) -> None:
    clean = add(
        "clean",
        help="remove what old runs left, after asking",
        description="Remove the runs that you name. Without a name: tokenised data, other leftovers, and runs that left neither a model nor "
        "a checkpoint. It shows sizes and asks first. A run that is alive is never touched.",
    )
    clean.add_argument("runs", nargs="*", metavar="RUN", help="a run folder, the name of a run, or last: remove these runs, with their models")
    clean.add_argument("--older", type=float, metavar="DAYS", help="also every run that ended this many days ago, with its model")
    clean.add_argument("--yes", action="store_true", help="do not ask")
    add_output(clean)
    clean.set_defaults(act=act_clean)


def add_memory(add: AddParser) -> None:
    what = "compare predicted with measured memory over runs"
    memory = add("memory", help=what, description=what.capitalize() + ".")
    memory.set_defaults(act=show_help(memory))
    verbs = memory.add_subparsers(title="verbs", metavar="VERB")
    report = verbs.add_parser("report", help="tabulate the errors of runs", description="Tabulate the errors by run, phase, regime and sharding.")
    report.add_argument("runs", nargs="+", metavar="RUN", help="a run folder, last, or a folder that holds runs")
    report.add_argument("--picture", type=Path, metavar="FILE", help="draw the errors (.png, .svg, .pdf or .jpg)")
    add_output(report)
    report.set_defaults(act=act_memory_report)


def add_job_records(add: AddParser) -> None:
    start = add("job-start", description="Record that a Slurm job starts this run. Its batch script calls this.")
    end = add("job-end", description="Record how the ranks of a Slurm job ended; queue it again where that may help. Its batch script calls this.")
    for verb, act in ((start, act_job_start), (end, act_job_end)):
        verb.add_argument("run", type=Path)
        verb.add_argument("job")
        verb.set_defaults(act=act)
    end.add_argument("code", type=int, help="the exit code of srun")
    end.add_argument("--set-up", action="store_true", help="a line of cluster.setup failed with this code, and no rank was started")
    end.add_argument("--ending", action="store_true", help="Slurm ends the job itself: it was cancelled or queued again, or its time is over")


def act_import(arguments: argparse.Namespace) -> int:
    keep_private()
    from launcher.verbs.import_run import import_run, start

    draft = import_run(arguments.words, arguments.save)
    return start(draft) if arguments.run else 0


def act_status(arguments: argparse.Namespace) -> int:
    from launcher.verbs import watch

    if arguments.follow:
        return watch.follow(arguments.run or "last", arguments.output)
    return watch.show_status(arguments.run, arguments.output, arguments.json)


def act_stop(arguments: argparse.Namespace) -> int:
    from launcher.verbs import watch

    return watch.stop(arguments.run, arguments.output)


def act_board(arguments: argparse.Namespace) -> int:
    keep_private()
    from launcher.board.serve import serve

    return serve(arguments.output, arguments.root, arguments.port, arguments.socket, arguments.new_token)


def act_mcp(arguments: argparse.Namespace) -> int:
    keep_private()
    from launcher.agent.server import serve

    return serve(Path.cwd(), arguments.output, arguments.allow_start)


def act_clean(arguments: argparse.Namespace) -> int:
    from launcher.verbs.clean import clean

    if arguments.runs and arguments.older is not None:
        raise ConfigError("--older chooses among all runs, and RUN names one. Give one of them.")
    if arguments.older is not None and not 0 <= arguments.older < float("inf"):
        raise ConfigError(f"--older {arguments.older:g} is not a number of days. Give 0 or more, for example --older 30.")
    return clean(arguments.runs, arguments.output, arguments.older, arguments.yes)


def act_doctor(arguments: argparse.Namespace) -> int:
    from launcher.verbs.doctor import check_machine, lines
    from launcher.words import red_alarms

    findings = check_machine(arguments.output)
    print(red_alarms("\n".join(lines(findings)), sys.stdout))
    return 1 if any(finding.state == "fail" for finding in findings) else 0


def act_memory_report(arguments: argparse.Namespace) -> int:
    from launcher.verbs.memory_report import report

    return report(arguments.runs, arguments.output, arguments.picture)


def act_supervise(arguments: argparse.Namespace) -> int:
    keep_private()
    from launcher.verbs import train

    return train.supervise_folder(arguments.run, arguments.handed_over)


def act_job_start(arguments: argparse.Namespace) -> int:
    keep_private()
    from conf.run_dir import RunDir
    from launcher.launch import batch_job

    return batch_job.job_start(RunDir(arguments.run), arguments.job)


def act_job_end(arguments: argparse.Namespace) -> int:
    keep_private()
    from conf.run_dir import RunDir
    from launcher.launch import batch_job

    if arguments.set_up:
        return batch_job.setup_failed(RunDir(arguments.run), arguments.job, arguments.code)
    return batch_job.job_end(RunDir(arguments.run), arguments.job, arguments.code, arguments.ending)
