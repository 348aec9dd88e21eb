"""The frame of `python -m trainers.<verb> FOLDER`: its end, good or bad, is written to exit/rank-0.json of that folder."""

import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from transformers.utils import logging

from conf.exit_codes import BUG, DONE, INTERRUPTED
from conf.run_dir import RunDir, load_run
from conf.schema import Composed
from trainers.__main__ import write_exit
from trainers.ranks.causes import cause_of, is_full_disk, is_out_of_memory
from trainers.ranks.place import Place

ALONE = Place(rank=0, local_rank=0, world=1)
Request = TypeVar("Request")
Described = TypeVar("Described", bound=Composed)


def perform(
    load_request: Callable[[Path], Request], work: Callable[[Described, Request], None], load: Callable[[RunDir], Described] = load_run
) -> int:
    """Do the work that the folder describes; the exit code of this process.

    `load` reads its run.yaml: a verb about data alone needs no settled run.
    """
    folder = RunDir(Path(sys.argv[1]).absolute())
    if not sys.stderr.isatty():
        logging.disable_progress_bar()  # of loading and writing weights: in a log they are noise
    try:
        work(load(folder), load_request(folder.path))
    except KeyboardInterrupt:
        return INTERRUPTED
    except BaseException as error:  # noqa: BLE001 - whatever ends a verb is recorded; the launcher shows it
        code, message = cause_of(error)
        if code == BUG:
            traceback.print_exc()
        write_exit(folder, ALONE, code, in_our_words(error, message))
        return code
    return DONE


@contextmanager
def naming_the_target(target: Path) -> Iterator[None]:
    """Raises ValueError where the place to write to cannot be made."""
    try:
        yield
    except OSError as error:
        if is_full_disk(error):
            raise
        raise ValueError(f"{target} cannot be created: {error.strerror}. Name another place with --to.") from error


def in_our_words(error: BaseException, message: str) -> str:
    """The messages of trainers/ranks/causes.py name keys of training; these name the options of the verb."""
    if is_out_of_memory(error):
        return too_large(error)
    return "The disk is full. Free space and start again, or name another place with --to." if is_full_disk(error) else message


def too_large(error: BaseException) -> str:
    first = next(iter(str(error).splitlines()), "host memory is exhausted.")
    return f"Out of memory: {first} Lower --batch where there is one, or use a machine with more memory."
