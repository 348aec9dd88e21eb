"""The verb clean: what is not needed any more is removed once the user has agreed, and never from a run that is alive."""

import sys
from collections.abc import Sequence
from pathlib import Path

from launcher.errors import ConfigError, RegimenError
from launcher.launch import execute, lock
from launcher.launch.places import in_words, places
from launcher.verbs.offer import Item, Offer, all_leftovers, lines_of, named_runs
from launcher.words import gib, plural


def clean(names: Sequence[str], output: Path | None, older: float | None, agreed: bool) -> int:
    """Say what would go and how large it is, ask, and remove it."""
    offer = named_runs(names, output) if names else all_leftovers(output, older)
    print("".join(f"{line}\n" for line in lines_of(offer)), end="")
    if not offer.items:
        print(nothing_line(offer, output))
        return 0
    print(f"{plural(len(offer.items), 'folder')}, {gib(sum(item.size for item in offer.items))} in all.")
    if not (agreed or asked()):
        print("Nothing was removed.")
        return 0
    freed = sum(removed(item) for item in offer.items)
    print(f"{gib(freed)} removed.")
    return 0


def nothing_line(offer: Offer, output: Path | None) -> str:
    more = "" if offer.kept else " To remove a run that ended, name it: regimen clean RUN, or give --older DAYS."
    return f"There is nothing to clean under {in_words(places(output))}.{more}"


def asked() -> bool:
    """Raises ConfigError where nobody can answer."""
    if not sys.stdin.isatty():
        raise ConfigError("Nothing was removed, because nobody can be asked here. Write: regimen clean --yes, with the same words after it.")
    return input("Remove them? [y/N] ").strip().lower() in ("y", "yes")


def removed(item: Item) -> int:
    """Bytes that are free afterwards. A run that somebody has started meanwhile stays, and a line says so."""
    try:
        held = None if item.run_dir is None else execute.own(item.run_dir)
        execute.remove_with_empty_parent(item.path)
        if item.run_dir is not None and held is not None and item.path != item.run_dir.path:
            lock.release(item.run_dir, held)
    except RegimenError as error:
        print(f"kept: {error}")
        return 0
    return item.size
