"""The options of `queue` and its verbs; what they do is imported when they are called."""

import argparse
from collections.abc import Callable

from conf.private import keep_private


def add_queue(add: Callable[..., argparse.ArgumentParser], composing: Callable[[argparse.ArgumentParser], None]) -> None:
    """Define the verbs on the command line; `composing` adds what every verb has that composes a run."""
    what = "let runs wait for GPUs of this machine, apart from any terminal"
    queue = add("queue", help=what, description=what.capitalize() + ". Without a verb: show what runs, what waits and why.")
    queue.add_argument("--json", action="store_true", help="print the list as JSON")
    queue.set_defaults(act=act_show)
    verbs = queue.add_subparsers(title="verbs", metavar="VERB")
    added = verbs.add_parser(
        "add", help="judge a run, and start it as soon as its GPUs are free; resume=RUN lets a run go on", description="Add a run."
    )
    composing(added)
    added.set_defaults(act=act_add)
    removed = verbs.add_parser("remove", help="take runs that wait out of the queue", description="Take runs that wait out of the queue.")
    removed.add_argument("numbers", nargs="+", type=int, metavar="NUMBER", help="as `regimen queue` shows it")
    removed.set_defaults(act=act_remove)
    first = verbs.add_parser(
        "first", help="let a run that waits begin before all others", description="Let a run that waits begin before all others."
    )
    first.add_argument("number", type=int, metavar="NUMBER", help="as `regimen queue` shows it")
    first.set_defaults(act=act_first)
    what = "how many runs without a GPU go on at the same time: 1 unless it was set; each gets its share of the host memory and the cores"
    slots = verbs.add_parser("slots", help=what, description=what.capitalize() + ".")
    slots.add_argument("number", type=int, metavar="NUMBER")
    slots.set_defaults(act=act_slots)


def add_queue_processes(add: Callable[..., argparse.ArgumentParser]) -> None:
    serve = add("queue-serve", description="Start the runs of the queue as GPUs become free. `queue add` leaves this verb running.")
    serve.set_defaults(act=act_serve)
    run = add("queue-run", description="Begin a run of the queue and watch it to its end. The scheduler calls this.")
    run.add_argument("number", type=int)
    run.add_argument("--on", default="", help="its GPUs, as CUDA_VISIBLE_DEVICES names them")
    run.add_argument("--of", type=int, default=0, help="how many GPUs the queue has")
    run.set_defaults(act=act_run)


def act_show(arguments: argparse.Namespace) -> int:
    keep_private()
    from launcher.verbs import queue

    return queue.show(arguments.json)


def act_add(arguments: argparse.Namespace) -> int:
    keep_private()
    if arguments.cfg:
        from launcher.verbs.plan import show_configuration

        return show_configuration(arguments.overrides, arguments.config_dir)
    from launcher.verbs import queue

    return queue.add(arguments.overrides, arguments.config_dir)


def act_remove(arguments: argparse.Namespace) -> int:
    from launcher.verbs import queue

    return queue.remove(arguments.numbers)


def act_first(arguments: argparse.Namespace) -> int:
    from launcher.verbs import queue

    return queue.put_first(arguments.number)


def act_slots(arguments: argparse.Namespace) -> int:
    keep_private()
    from launcher.verbs import queue

    return queue.set_slots(arguments.number)


def act_serve(arguments: argparse.Namespace) -> int:
    keep_private()
    from launcher.verbs import queue

    return queue.serve()


def act_run(arguments: argparse.Namespace) -> int:
    keep_private()
    from launcher.verbs import queue

    return queue.run(arguments.number, tuple(arguments.on.split(",")) if arguments.on else (), arguments.of)
