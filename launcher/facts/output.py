"""Whether run folders can be made where `output` says."""

import os
from pathlib import Path

from conf.schema import Run
from launcher.errors import DiskError
from launcher.facts.node import may_be_elsewhere


def nearest_folder(output: Path) -> Path:
    """The output folder, or the nearest one above it that exists."""
    # not Path.exists, which raises where a folder may not be searched or a name is too long
    return next(folder for folder in (output.absolute(), *output.absolute().parents) if os.path.exists(folder))


def refuse_unusable_output(run: Run) -> None:
    """Refuse an output that no start could use. A disk that a described node has and this machine lacks is not looked for.

    Raises:
        DiskError: for a file, for a file system without room for files, and where this machine's ranks could not write.
    """
    output = Path(run.output)
    there = nearest_folder(output)
    for path in (there, there / run.name):
        if path.exists() and not path.is_dir():
            raise DiskError(f"output={run.output}: {path} is a file. Set output= to a folder.")
    if os.statvfs(there).f_blocks == 0:
        raise DiskError(f"output={run.output}: {there} is made by the kernel and keeps no files. Set output= to a folder on a disk.")
    if not may_be_elsewhere(run) and not os.access(there, os.W_OK | os.X_OK):
        raise DiskError(f"output={run.output}: {there} cannot be written. Set output= to a folder that you may write to.")
