"""Committed checkpoints of a run: which there are, and whether they are whole. trainers/checkpoints/commit.py makes them."""

import hashlib
import json
from pathlib import Path

from conf.run_dir import RunDir

MANIFEST = "manifest.json"
PREFIX = "step-"


def committed(run_dir: RunDir) -> list[Path]:
    """Committed checkpoints, newest step first."""
    found = [path for path in run_dir.checkpoints.glob(f"{PREFIX}*") if path.name.removeprefix(PREFIX).isdigit()]
    return sorted(found, key=step_of, reverse=True)


def step_of(path: Path) -> int:
    return int(path.name.removeprefix(PREFIX))


def faults(checkpoint: Path) -> list[str]:
    """What differs between a checkpoint and its manifest; empty when it is whole."""
    manifest = checkpoint / MANIFEST
    if not manifest.is_file():
        return [f"{manifest} is missing"]
    try:
        files = [(name, size, digest) for name, (size, digest) in json.loads(manifest.read_text(encoding="utf-8"))["files"].items()]
    except (ValueError, KeyError, TypeError, AttributeError) as error:  # no JSON, or JSON of another shape
        return [f"{manifest} is damaged ({error})"]
    if not files:
        return [f"{manifest} is damaged (it lists no files)"]
    return [fault for name, size, digest in files for fault in file_faults(checkpoint / name, size, digest)]


def file_faults(path: Path, size: int, digest: str) -> list[str]:
    if not path.is_file():
        return [f"{path} is missing"]
    if path.stat().st_size != size:
        return [f"{path} has {path.stat().st_size} bytes instead of {size}"]
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    return [] if found == digest else [f"{path} was changed since it was saved (its hash differs)"]
