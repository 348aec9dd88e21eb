"""The commit of a checkpoint: hash and fsync every file, write the manifest, rename. The rename is the only commit."""

import hashlib
import json
import os
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from conf import journal
from conf.committed import MANIFEST, committed, faults
from conf.run_dir import RunDir


@dataclass(frozen=True)
class Manifest:
    step: int
    world: int
    files: dict[str, tuple[int, str]]  # relative path: (bytes, sha256)


def commit(staged: Path, run_dir: RunDir, step: int, world: int) -> Path:
    """Make the staged folder the checkpoint of `step`. A whole checkpoint of that step stays as it is; a damaged one is replaced.

    Raises:
        OSError: when a file cannot be written; the staged folder is left for the next attempt to remove.
    """
    target = run_dir.checkpoint(step)
    if target.exists() and not faults(target):
        shutil.rmtree(staged)
        return target
    began = time.monotonic()
    files = {str(path.relative_to(staged)): describe(path) for path in sorted(staged.rglob("*")) if path.is_file()}
    manifest = staged / MANIFEST
    manifest.write_text(json.dumps(asdict(Manifest(step, world, files))), encoding="utf-8")
    sync(manifest)
    for folder in [*(path for path in staged.rglob("*") if path.is_dir()), staged]:
        sync(folder)
    if target.exists():
        remove(target)
    os.rename(staged, target)
    sync(target.parent)
    journal.record(run_dir, journal.Committed(step, sum(size for size, _ in files.values()), round(time.monotonic() - began, 3)))
    return target


def describe(path: Path) -> tuple[int, str]:
    """(bytes, sha256) of a file that is on disk when this returns."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        os.fsync(file.fileno())
    return path.stat().st_size, digest


def sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@dataclass(frozen=True)
class Choice:
    checkpoint: Path | None
    passed_over: list[tuple[str, str]]  # (name, fault) of newer checkpoints that were not used


def choose(run_dir: RunDir) -> Choice:
    """The checkpoint to go on from: the newest whole one."""
    passed_over: list[tuple[str, str]] = []
    for checkpoint in committed(run_dir):
        problems = faults(checkpoint)
        if not problems:
            return Choice(checkpoint, passed_over)
        passed_over += [(checkpoint.name, problem) for problem in problems]
    return Choice(None, passed_over)


def prune(run_dir: RunDir, keep: int, best: Path | None) -> None:
    """Leave `keep` committed checkpoints: the newest, the best one if there is one, and then the newest others.

    What is removed vanishes from the list first.
    """
    there = committed(run_dir)
    needed = [checkpoint for checkpoint in there if checkpoint in (there[0], best)]
    others = [checkpoint for checkpoint in there if checkpoint not in needed]
    doomed = others[max(0, keep - len(needed)) :]
    for checkpoint in doomed:
        remove(checkpoint)
    if doomed:
        journal.record(run_dir, journal.Pruned(tuple(checkpoint.name for checkpoint in doomed)))


def remove(checkpoint: Path) -> None:
    doomed = checkpoint.with_name(f".removing-{checkpoint.name}")
    os.rename(checkpoint, doomed)
    shutil.rmtree(doomed)


def clear_leftovers(run_dir: RunDir) -> None:
    """Remove what a killed attempt left half-made or half-removed."""
    for path in [*run_dir.checkpoints.glob(".*"), *run_dir.path.glob(".making-*")]:
        if path.is_dir():
            shutil.rmtree(path)
