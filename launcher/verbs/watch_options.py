"""The options of the verbs that look at runs and at this machine; what they do is imported when they are called."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from launcher.errors import ConfigError
from launcher.verbs.after_training_options import add_output
from launcher.verbs.parser import show_help

AddParser = Callable[..., argparse.ArgumentParser]


def add_watching(add: AddParser) -> None:
    """Define the verbs on the command line."""
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


def act_status(arguments: argparse.Namespace) -> int:
    from launcher.verbs import watch

    if arguments.follow:
        return watch.follow(arguments.run or "last", arguments.output)
    return watch.show_status(arguments.run, arguments.output, arguments.json)


def act_stop(arguments: argparse.Namespace) -> int:
    from launcher.verbs import watch

    return watch.stop(arguments.run, arguments.output)


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
