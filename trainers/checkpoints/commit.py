"""The commit of a folder: hash and fsync every file, write the manifest, rename. The rename is the only commit."""

import hashlib
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from conf import journal
from conf.committed import DAMAGED, HASHING, MANIFEST, Manifest, faults, sealed, set_aside
from conf.run_dir import RunDir


def commit(staged: Path, run_dir: RunDir, step: int, world: int) -> Path:
    """Make the staged folder the checkpoint of `step`. A whole checkpoint of that step stays as it is; a damaged one is set aside.

    Raises:
        OSError: when a file cannot be written; the staged folder is left for the next attempt to remove.
    """
    target = run_dir.checkpoint(step)
    if target.exists() and not faults(target):
        shutil.rmtree(staged)
        return target
    began = time.monotonic()
    sealed_now = seal(staged, step, world)
    if target.exists():
        set_aside(target, DAMAGED)
    os.rename(staged, target)
    sync(target.parent)
    journal.record(run_dir, journal.Committed(step, sealed_now.size, round(time.monotonic() - began, 3)))
    return target


def commit_model(staged: Path, run_dir: RunDir, step: int, world: int) -> None:
    """Make the staged folder the final model. That of an earlier end is removed only when the new one has its name.

    Raises:
        OSError: as commit.
    """
    seal(staged, step, world)
    earlier = earlier_model(run_dir)
    if run_dir.model.exists():
        os.rename(run_dir.model, earlier)
    os.rename(staged, run_dir.model)
    sync(run_dir.path)
    if earlier.exists():
        shutil.rmtree(earlier)


def earlier_model(run_dir: RunDir) -> Path:
    return run_dir.model.with_name(f".removing-{run_dir.model.name}")


def seal(staged: Path, step: int, world: int) -> Manifest:
    """Write the manifest of a folder whose files are complete, and make all of it durable."""
    paths = sorted(path for path in staged.rglob("*") if path.is_file())
    with ThreadPoolExecutor(HASHING) as threads:
        files = dict(zip((str(path.relative_to(staged)) for path in paths), threads.map(describe, paths), strict=True))
    manifest = Manifest(step, world, files)
    (staged / MANIFEST).write_text(sealed(manifest), encoding="utf-8")
    sync(staged / MANIFEST)
    for folder in [*(path for path in staged.rglob("*") if path.is_dir()), staged]:
        sync(folder)
    return manifest


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


def remove(folder: Path) -> None:
    """It vanishes from its name first, so that a kill in between leaves no half of it there."""
    doomed = folder.with_name(f".removing-{folder.name}")
    os.rename(folder, doomed)
    shutil.rmtree(doomed)


def clear_leftovers(run_dir: RunDir) -> None:
    """Remove what a killed attempt left half-made or half-removed; an earlier model whose successor has not got its name keeps its own."""
    if earlier_model(run_dir).is_dir() and not run_dir.model.exists():
        os.rename(earlier_model(run_dir), run_dir.model)
    for path in [*run_dir.checkpoints.glob(".*"), *run_dir.path.glob(".making-*"), *run_dir.path.glob(".removing-*")]:
        if path.is_dir():
            shutil.rmtree(path)
