"""What runs left that is not needed any more, with sizes: found and told, and not touched."""

import re
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from conf import journal
from conf.committed import DAMAGED
from conf.run_dir import RunDir
from launcher.launch import batch_job, lock, status
from launcher.launch.places import places
from launcher.launch.rewind import ASIDE
from launcher.launch.status import RunStatus
from launcher.words import gib

ALIVE = ("running", "queued", "unknown")  # unknown: its lock is damaged
STARTING = 600.0  # seconds: a folder without an owner may be at its start for this long
LEFTOVERS = {  # in an output folder, made again when they are needed
    ".data/*": "tokenised data",
    ".torchrun/*": "where the ranks of your own torchrun met",
    ".canary-*": "a canary that was killed",
}
CACHE = re.compile(r"^data:\n(  .*\n)*?  cache: (?P<path>.+)$", re.MULTILINE)  # in run.yaml; reading a run as a whole takes much longer
CACHED = re.compile(r"[0-9a-f]{32}|\.making-.*")  # what trainers/data/prepare/cache.py makes in a cache
DAY = 86400.0


@dataclass(frozen=True)
class Item:
    path: Path
    what: str
    size: int
    run_dir: RunDir | None = None  # whose folder it is, or in whose folder it lies; None: it belongs to no run


@dataclass(frozen=True)
class Offer:
    items: tuple[Item, ...]
    kept: tuple[str, ...]  # what stays although it was named or looks old, and why


def lines_of(offer: Offer) -> list[str]:
    return [*(f"kept: {line}" for line in offer.kept), *(f"{gib(item.size):>12}  {item.path}  ({item.what})" for item in offer.items)]


def named_runs(names: Sequence[str], output: Path | None) -> Offer:
    """The named runs; one that is alive is refused before anything is removed.

    Raises:
        ConfigError: for a name that is no run.
        RunLocked: for a run that is alive.
    """
    runs = list({run_dir.path: run_dir for run_dir in (status.named_run(name, output) for name in names)}.values())
    for run_dir in runs:
        batch_job.refuse_active(run_dir)
        lock.refuse_live_owner(run_dir)
    others = [run_dir for run_dir in status.find_runs(output) if run_dir.path.absolute() not in {named.path.absolute() for named in runs}]
    return Offer(tuple(run_item(status.status_of(run_dir), others) for run_dir in runs), ())


def all_leftovers(output: Path | None, older: float | None) -> Offer:
    """What can be made again, runs that left neither a model nor a checkpoint, and with `older` every run that ended so many days ago."""
    found = batch_job.as_slurm_says([status.status_of(run_dir) for run_dir in status.find_runs(output)])
    alive = [run for run in found if is_alive(run)]
    ended = [run for run in found if not is_alive(run) and (is_empty(run.run_dir) or is_older(run, older))]
    kept = [f"{run.run_dir.path} is {'at its start' if run.state == 'made' else run.state}." for run in alive]
    runs = [run_item(run, [other.run_dir for other in found if other not in ended]) for run in ended]
    stay = [run for run in found if run not in ended and run not in alive]
    aside = [item for run in stay for item in set_aside(run.run_dir)]
    caches: list[Item] = []
    for cache in sorted({cache for run in found if (cache := own_cache(run.run_dir)) is not None}):
        there = [Item(path, LEFTOVERS[".data/*"], size_of(path)) for path in sorted(cache.glob("*")) if CACHED.fullmatch(path.name)]
        if any(own_cache(run.run_dir) == cache for run in alive):
            kept += [f"{item.path} may be in use by a run that is alive." for item in there]
        else:
            caches += there
    for place in places(output):
        there = list(leftovers_of(place))
        if any(place.absolute() in run.run_dir.path.absolute().parents for run in alive):
            kept += [f"{item.path} may be in use by a run that is alive." for item in there]
        else:
            caches += there
    return Offer((*runs, *aside, *caches), tuple(kept))


def set_aside(run_dir: RunDir) -> list[Item]:
    """Checkpoints that checkpoint.resume=step-N or a resume that found them damaged has set aside."""
    found = sorted([*run_dir.checkpoints.glob(f"{ASIDE}*"), *run_dir.checkpoints.glob(f"{DAMAGED}*")])
    return [Item(path, "a checkpoint that was set aside", size_of(path), run_dir) for path in found]


def own_cache(run_dir: RunDir) -> Path | None:
    """The folder that data.cache names; None for the one under `output`, and where run.yaml does not say."""
    found = CACHE.search(run_dir.run_yaml.read_text(encoding="utf-8", errors="replace"))
    named = None if found is None else yaml.safe_load(found["path"])
    return Path(named).absolute() if isinstance(named, str) else None


def is_alive(run: RunStatus) -> bool:
    return run.state in ALIVE or (time.time() - run.updated < STARTING and not journal.events(run.run_dir))


def is_older(run: RunStatus, older: float | None) -> bool:
    return older is not None and time.time() - run.updated > older * DAY


def is_empty(run_dir: RunDir) -> bool:
    return not run_dir.model.exists() and not any(run_dir.checkpoints.glob("step-*"))


def leftovers_of(place: Path) -> Iterator[Item]:
    for pattern, what in LEFTOVERS.items():
        for path in sorted(place.glob(pattern)):
            yield Item(path, what, size_of(path))


def run_item(run: RunStatus, others: Iterable[RunDir]) -> Item:
    users = [str(other.path) for other in others if mentions(other, run.run_dir)]
    without = ", left neither a model nor a checkpoint" if is_empty(run.run_dir) else ""
    used = f"; its files are used by {', '.join(users)}" if users else ""
    return Item(run.run_dir.path, f"{run.state}{without}{used}", size_of(run.run_dir.path), run.run_dir)


def mentions(run_dir: RunDir, other: RunDir) -> bool:
    """Whether a run names a folder of another, as its base, its adapter or its reward model."""
    return (
        other.path.name in (text := run_dir.run_yaml.read_text(encoding="utf-8", errors="replace"))
        and f"{other.path.parent.name}/{other.path.name}" in text
    )


def size_of(path: Path) -> int:
    """Bytes of the files below; a link counts as itself."""
    files = [path] if not path.is_dir() else [file for file in path.rglob("*") if file.is_symlink() or file.is_file()]
    return sum(file.lstat().st_size for file in files)
