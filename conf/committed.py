"""Committed folders of a run, checkpoints and the final model: which there are, and whether they are whole.

trainers/checkpoints/commit.py makes them. The manifest of each lists its files and guards itself: it holds the digest of its own fields, and no other
text than its own can hold these fields.
"""

import hashlib
import json
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from conf.run_dir import RunDir

MANIFEST = "manifest.json"
PREFIX = "step-"
DAMAGED = "damaged-"
KEPT_WHOLE = 2  # until a run is finished: damage to the newest checkpoint then costs an interval and not the run
HASHING = 4  # threads: sha256 of one core is slower than a disk
BEING_REMOVED = ".nfs"  # how NFS names a removed file that somebody still reads


@dataclass(frozen=True)
class Manifest:
    step: int
    world: int  # ranks that saved
    files: dict[str, tuple[int, str]]  # relative path: (bytes, sha256)

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(size for size, _ in self.files.values())


def sealed(manifest: Manifest) -> str:
    """The text of manifest.json."""
    fields = asdict(manifest)
    return json.dumps({**fields, "sha256": digest_of(fields)}, sort_keys=True)


def digest_of(fields: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def read_manifest(folder: Path) -> Manifest:
    """Read and check the manifest itself; the files that it lists are not looked at.

    Raises:
        FileNotFoundError: where there is none.
        ValueError: where it is damaged, saying how.
    """
    text = (folder / MANIFEST).read_bytes()
    try:
        fields = json.loads(text)
        digest = fields.pop("sha256")
        found = Manifest(fields["step"], fields["world"], {name: (size, of) for name, (size, of) in fields["files"].items()})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:  # no JSON, or JSON of another shape
        raise ValueError(f"it cannot be read: {type(error).__name__} {error}") from error
    if not found.files:
        raise ValueError("it lists no files")
    if digest_of(fields) != digest or sealed(found).encode() != text:
        raise ValueError("its own digest differs")
    return found


def committed(run_dir: RunDir) -> list[Path]:
    """Committed checkpoints, newest step first."""
    found = [path for path in run_dir.checkpoints.glob(f"{PREFIX}*") if path.name.removeprefix(PREFIX).isdigit()]
    return sorted(found, key=step_of, reverse=True)


def damaged(run_dir: RunDir) -> list[Path]:
    """Checkpoints that were set aside because they are damaged."""
    return sorted(run_dir.checkpoints.glob(f"{DAMAGED}{PREFIX}*"))


def step_of(path: Path) -> int:
    return int(path.name.removeprefix(PREFIX))


def set_aside(checkpoint: Path, prefix: str) -> Path:
    """Rename a checkpoint so that no start takes it, and return where it is now. Nothing of it is removed."""
    number = 1
    while (target := checkpoint.with_name(f"{prefix}{checkpoint.name}{'' if number == 1 else f'-{number}'}")).exists():
        number += 1
    os.rename(checkpoint, target)
    return target


def faults(folder: Path, contents: bool = True) -> list[str]:
    """What differs between a committed folder and its manifest; empty when it is whole.

    `contents`: every byte is read and hashed. Otherwise only the manifest, the list of files and their sizes are compared.
    """
    manifest = folder / MANIFEST
    if manifest.is_symlink():
        return [f"{manifest} is a link"]
    try:
        listed = read_manifest(folder)
    except FileNotFoundError:
        return [f"{manifest} is missing"]
    except (ValueError, OSError) as error:
        return [f"{manifest} is damaged: {error}"]
    if folder.name.removeprefix(PREFIX).isdigit() and step_of(folder) != listed.step:
        return [f"{manifest} is of step {listed.step}, and the folder is {folder.name}"]
    there = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()}
    extra = sorted(name for name in there - set(listed.files) - {MANIFEST} if not Path(name).name.startswith(BEING_REMOVED))
    return [*files_faults(folder, listed.files, contents), *(f"{folder / name} does not belong to the checkpoint" for name in extra)]


def files_faults(folder: Path, files: dict[str, tuple[int, str]], contents: bool) -> Iterable[str]:
    with ThreadPoolExecutor(HASHING) as threads:
        found = threads.map(lambda name: file_faults(folder / name, *files[name], contents), files)
        return [fault for of_file in found for fault in of_file]


def file_faults(path: Path, size: int, digest: str, contents: bool) -> list[str]:
    if path.is_symlink():
        return [f"{path} is a link"]
    if not path.is_file():
        return [f"{path} is missing"]
    if path.stat().st_size != size:
        return [f"{path} has {path.stat().st_size} bytes instead of {size}"]
    if not contents:
        return []
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return [f"{path} cannot be read: {error.strerror}"]
    return [] if found == digest else [f"{path} was changed since it was saved (its hash differs)"]
