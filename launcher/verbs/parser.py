"""How the command line is parsed: argparse, with one message for a mistake, and with the line that works."""

import argparse
import difflib
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from launcher.command import PACKAGES
from launcher.errors import ConfigError

VERBS = (
    "train",
    "plan",
    "queue",
    "import",
    "status",
    "stop",
    "board",
    "mcp",
    "clean",
    "doctor",
    "memory",
    "data",
    "export",
    "predict",
    "evaluate",
    "chat",
)
INTERNAL = ("supervise", "queue-serve", "queue-run", "job-start", "job-end", "start-hosts", "host")  # what regimen calls itself; they are not offered
# What people type for a verb that has a different name here.
SAID = {
    "run": "train",
    "sft": "train stage=sft",
    "finetune": "train",
    "fine-tune": "train",
    "resume": "train resume=last",
    "list": "status",
    "ls": "status",
    "ps": "status",
    "logs": "status last --follow",
    "kill": "stop",
    "rm": "clean",
    "delete": "clean",
    "eval": "evaluate",
    "infer": "predict",
    "generate": "predict",
    "merge": "export",
    "validate": "data validate",
    "help": "--help",
    "version": "--version",
}


class Parser(argparse.ArgumentParser):
    """Options are not abbreviated, and a mistake is an error like every other: one message, exit code 2."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{"allow_abbrev": False, **options})
        self._positionals.title = "arguments"

    def error(self, message: str) -> NoReturn:
        usage = " ".join(self.format_usage().removeprefix("usage: ").replace("[-h] ", "").split())
        lacking = re.fullmatch(r"argument (?P<option>\S+): expected one argument", message)
        if lacking is not None:
            option = lacking["option"].rsplit("/", 1)[-1]
            message = f"{option} has no value. A value that begins with - is written with =, as in {option}=VALUE"
        run = ". RUN is a run folder, the name of a run, or last" if "required: RUN" in message else ""
        raise ConfigError(f"{message if lacking is not None else message[0].upper() + message[1:]}{run}. Write: {usage}")


class Version(argparse.Action):
    """Prints the version and ends; read only when it is asked for."""

    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        super().__init__(option_strings, dest, nargs=0, help="print the version")

    def __call__(self, *_: Any) -> NoReturn:
        print(f"regimen {version()}")
        sys.exit(0)


def version() -> str:
    """As the project's file says, or, where only the packages are installed, as pip recorded it."""
    project = PACKAGES / "pyproject.toml"
    if project.is_file():
        import tomllib

        return str(tomllib.loads(project.read_text(encoding="utf-8"))["project"]["version"])
    import importlib.metadata

    return importlib.metadata.version("regimen")


def show_help(parser: argparse.ArgumentParser) -> Callable[[argparse.Namespace], int]:
    """The action of a command line that names no verb."""

    def act(_: argparse.Namespace) -> int:
        parser.print_help()
        return 0

    return act


def refuse_other_names(argv: Sequence[str]) -> None:
    """
    Raises:
        ConfigError: for a word of the command line or a working folder that is not UTF-8 (Arrow cannot open files there); for a folder that is gone.
    """
    from conf.text_encoding import is_utf8, other_name

    try:
        folder = os.getcwd()
    except FileNotFoundError as error:
        raise ConfigError("The working folder was removed. Change to a folder that exists.") from error
    for text in (*argv, folder):
        if not is_utf8(text):
            value = text.partition("=")[2] or text
            raise ConfigError(str(other_name(value.strip("[]'\""))))


def refuse_verb(argv: Sequence[str]) -> None:
    """Raises ConfigError where the first word is not a verb."""
    word = argv[0] if argv else ""
    if word in ("", *VERBS, *INTERNAL) or word.startswith("-"):
        return
    if "=" in word:
        raise ConfigError(f"{word} is not a verb. Write: regimen train {word} ..., or regimen plan {word} ... to see first what it would do.")
    near = SAID.get(word) or next(iter(difflib.get_close_matches(word.lower(), VERBS, n=1)), None)
    raise ConfigError(
        f"{word} is not a verb. {f'Write: regimen {near}. ' if near else ''}The verbs are {', '.join(VERBS)}. `regimen --help` explains them."
    )


def refuse_options(arguments: argparse.Namespace, rest: Sequence[str], argv: Sequence[str]) -> NoReturn:
    """The message for what is neither an option nor an argument of the verb.

    Raises:
        ConfigError: always.
    """
    verb = " ".join(word for word in argv[:2] if word in (*VERBS, "report", "validate", "prepare", "add", "remove", "first"))
    option = next((text for text in rest if text.startswith("-")), None)
    if option is None:
        raise ConfigError(f"`regimen {verb}` cannot use `{' '.join(rest)}`. `regimen {verb} --help` shows what it takes.")
    name, equals, given = option.partition("=")
    following = [*argv, ""][argv.index(option) + 1]
    value = given if equals else following if following and "=" not in following and not following.startswith("-") else None
    known = [f"--{key.replace('_', '-')}" for key in vars(arguments) if key not in ("act", "overrides")]
    elsewhere = name in known  # an option of the verb around this one, or the name of an argument
    near = [] if elsewhere else difflib.get_close_matches(name, known, n=1, cutoff=0.8)
    if "overrides" not in arguments or elsewhere or (near and name != "--config"):
        raise ConfigError(
            f"{name} is not an option of `regimen {verb}`. {f'Did you mean {near[0]}? ' if near else ''}`regimen {verb} --help` shows them."
        )
    from launcher.composition.spelling import with_dashes

    raise ConfigError(with_dashes(name, value))
