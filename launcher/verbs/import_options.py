"""The options of `import`; what it does is imported when it is called."""

import argparse
from collections.abc import Callable
from pathlib import Path

from conf.private import keep_private


def add_import(add: Callable[..., argparse.ArgumentParser]) -> None:
    what = "translate a training file or command of LLaMA-Factory, or a training file of axolotl"
    moved = add("import", help=what, description=what[0].upper() + what[1:] + ", and say what becomes of every argument.")
    moved.add_argument("words", nargs="+", metavar="FILE", help="its training file (.yaml or .json), or after -- its command line")
    moved.add_argument("--save", type=Path, metavar="FILE.yaml", help="write the file of a run here (default: print it)")
    moved.add_argument("--run", action="store_true", help="start the run at once, as `regimen train FILE.yaml` would")
    moved.set_defaults(act=act_import)


def act_import(arguments: argparse.Namespace) -> int:
    keep_private()
    from launcher.verbs.import_run import import_run, start

    draft = import_run(arguments.words, arguments.save, arguments.run)
    return start(draft) if arguments.run else 0
