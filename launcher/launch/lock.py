"""The lock of a run folder: who works in it, and whether that process still lives."""

import fcntl
import json
import os
import socket
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from conf.run_dir import RunDir
from launcher.errors import RunLocked
from launcher.words import age


@dataclass(frozen=True)
class Owner:
    host: str
    pid: int
    process_start: int  # clock ticks since boot, from /proc/PID/stat: tells a reused pid from the owner
    since: float  # seconds since the epoch, for people only
    nonce: str
    slurm_job: str | None = None  # a submitted run belongs to its job, on any host


def this_process() -> Owner:
    return Owner(socket.gethostname(), os.getpid(), process_start(os.getpid()), time.time(), os.urandom(8).hex())


def process_start(pid: int) -> int:
    """Start time of a process in clock ticks; 0 when there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return 0
    fields = text.rsplit(")", 1)[1].split()  # the command name may hold spaces and brackets
    return 0 if fields[0] in "ZX" else int(fields[19])


def refuse_live_owner(run_dir: RunDir) -> None:
    """Raises RunLocked while somebody works in the folder."""
    owner = read_owner(run_dir)
    if owner is not None and is_alive(owner):
        raise RunLocked(locked_message(run_dir, owner))


def read_owner(run_dir: RunDir) -> Owner | None:
    """Who holds the folder; None: nobody.

    Raises:
        RunLocked: when the lock says nothing, as after a power failure.
    """
    try:
        text = run_dir.lock.read_text(encoding="utf-8")
        return Owner(**json.loads(text))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise RunLocked(f"{run_dir.lock} is damaged and names no owner. If no process works in that folder, remove it.") from error


def is_alive(owner: Owner) -> bool:
    """Whether the owner may still work. An owner on another host is assumed to work, because this host cannot know."""
    if owner.host != socket.gethostname():
        return True
    return process_start(owner.pid) == owner.process_start != 0


def acquire(run_dir: RunDir, owner: Owner) -> None:
    """Become the owner of the folder; a dead owner's lock is replaced.

    Raises:
        RunLocked: naming host, pid and age of the process that works there.
    """
    for _ in range(10):
        if create(run_dir.lock, owner):
            return
        holder = read_owner(run_dir)
        if holder is None:
            continue  # released between the two looks
        if holder.nonce == owner.nonce:
            return
        if is_alive(holder):
            raise RunLocked(locked_message(run_dir, holder))
        take_over(run_dir, holder)
    raise RunLocked(f"{run_dir.lock} changes its owner too often, because another process starts the same run. Look with `regimen status`.")


def create(path: Path, owner: Owner) -> bool:
    """Write the lock in full under another name, then link it: it is never seen empty, not even after a power failure."""
    draft = path.with_name(f".lock-{owner.nonce}")
    with draft.open("w", encoding="utf-8") as file:
        file.write(json.dumps(asdict(owner)))
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(draft, path)
    except FileExistsError:
        return False
    finally:
        draft.unlink()
    return True


def take_over(run_dir: RunDir, dead: Owner) -> None:
    """Remove a dead owner's lock, and only that: whoever removes one holds the kernel's lock on that very file.

    Owners on other hosts are never considered dead, so the kernel's lock need not reach beyond this host.
    """
    try:
        file = run_dir.lock.open("r+", encoding="utf-8")
    except FileNotFoundError:
        return
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        holder = read_owner(run_dir)
        if holder is not None and holder.nonce == dead.nonce:
            run_dir.lock.unlink()


def release(run_dir: RunDir, owner: Owner) -> None:
    holder = read_owner(run_dir)
    if holder is not None and holder.nonce == owner.nonce:
        run_dir.lock.unlink()


def locked_message(run_dir: RunDir, holder: Owner) -> str:
    return (
        f"{run_dir.path} is in use by process {holder.pid} on {holder.host}, which has held it for {age(time.time() - holder.since)}. "
        f"Follow it with `regimen status --follow {run_dir.path}`, or end it with `regimen stop {run_dir.path}`."
        + ("" if holder.host == socket.gethostname() else f" If that host is gone, remove {run_dir.lock}.")
    )
