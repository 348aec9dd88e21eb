"""The options of `data validate` and `data prepare`; what they do is imported when they are called."""

import argparse
from collections.abc import Callable
from pathlib import Path

from launcher.verbs.parser import show_help


def add_data_verbs(add: Callable[..., argparse.ArgumentParser], composing: Callable[[argparse.ArgumentParser], None]) -> None:
    """Define the verbs on the command line; `composing` adds what every verb has that composes a run."""
    data = add("data", help="check or tokenise data before a GPU is needed", description="Check or tokenise data before a GPU is needed.")
    data.set_defaults(act=show_help(data))
    verbs = data.add_subparsers(title="verbs", metavar="VERB")
    validate = verbs.add_parser("validate", help="count, measure and check what training would read; exit code 4 when it would fail")
    prepare = verbs.add_parser("prepare", help="tokenise once, with every core, into the cache that training reads")
    for verb, action in ((validate, act_validate), (prepare, act_prepare)):
        composing(verb)
        verb.set_defaults(act=action)
    validate.add_argument("--json", action="store_true", help="print the report as JSON")
    validate.add_argument("--picture", type=Path, metavar="FILE", help="draw the histogram of lengths (.png, .svg, .pdf or .jpg)")


def act_validate(arguments: argparse.Namespace) -> int:
    if arguments.cfg:
        return show(arguments)
    from conf.request import Validate
    from launcher.verbs.data import validate
    from launcher.verbs.pictures import refuse_unwritable

    if arguments.picture is None:
        return validate(arguments.overrides, arguments.config_dir, Validate(as_json=arguments.json, picture=None))
    refuse_unwritable(arguments.picture)
    return validate(arguments.overrides, arguments.config_dir, Validate(as_json=arguments.json, picture=str(arguments.picture.absolute())))


def act_prepare(arguments: argparse.Namespace) -> int:
    if arguments.cfg:
        return show(arguments)
    from launcher.verbs.data import prepare

    return prepare(arguments.overrides, arguments.config_dir)


def show(arguments: argparse.Namespace) -> int:
    from launcher.verbs.plan import show_configuration

    return show_configuration(arguments.overrides, arguments.config_dir)
