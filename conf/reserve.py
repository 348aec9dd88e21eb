"""A few KiB of disk that a run keeps, so that it can still say how it ended when the disk is full."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from conf.run_dir import RunDir

FULL = (errno.ENOSPC, errno.EDQUOT)
RUN_BYTES = 16384  # freed for the journal and the request to stop
EXIT_BYTES = 4096  # of each rank: its exit file, written in place
Result = TypeVar("Result")


def reserve(path: Path, size: int) -> None:
    """Hold `size` bytes on disk; not of zeros, which some file systems do not store.

    Raises:
        OSError: where they are not there.
    """
    with path.open("wb") as file:
        file.write(os.urandom(size))
        file.flush()
        os.fsync(file.fileno())


def despite_full_disk(run_dir: RunDir, write: Callable[[], Result]) -> Result:
    """Write; where the disk is full, give back what the run reserved, and write again.

    Raises:
        OSError: where it cannot be written even then.
    """
    try:
        return write()
    except OSError as error:
        if error.errno not in FULL or not run_dir.reserve.exists():
            raise
    run_dir.reserve.unlink()
    return write()


def write_in_reserve(path: Path, reserved: Path, text: str) -> None:
    """Write `text`, cut to what was reserved, into the blocks of `reserved`, and rename it to `path`: nothing new is needed on disk.

    Raises:
        OSError: where nothing was reserved, or the file system writes elsewhere what is written again.
    """
    with reserved.open("r+b") as file:
        file.write(text.encode()[:EXIT_BYTES].ljust(EXIT_BYTES))
        file.flush()
        os.fsync(file.fileno())
    os.replace(reserved, path)
