"""The lock of a run folder: who works in it, and whether that process still lives.

The file `lock` names the owner, and the owner keeps the kernel's own lock (flock) on that very file for as long as it lives. The kernel's lock
answers across containers, whose process numbers mean nothing to each other; the names answer where a file system has no such locks.
"""

import fcntl
import json
import os
import socket
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from conf.processes import process_start
from conf.run_dir import RunDir
from launcher.errors import RunLocked
from launcher.launch import elsewhere
from launcher.words import age

Standing = Literal["alive", "dead", "unknown"]

# File systems that only one kernel can have mounted: an owner that holds no lock there is not at work on another machine.
LOCAL = frozenset({"bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "jfs", "overlay", "ramfs", "tmpfs", "xfs", "zfs"})
ATTEMPTS = 20
PAUSE_SECONDS = 0.05

HELD: dict[str, int] = {}  # of each lock that this process took: its nonce, and the open file that holds the kernel's lock


@dataclass(frozen=True)
class Owner:
    host: str
    pid: int
    process_start: int  # clock ticks since boot, from /proc/PID/stat: tells a reused pid from the owner
    since: float  # seconds since the epoch, for people only
    nonce: str
    boot: str = ""  # the kernel's boot id: the same in all containers of a machine, another one after it was started again
    namespace: str = ""  # the pid namespace, in which `pid` means something
    kernel: bool = False  # whether the owner holds the kernel's lock on the file
    slurm_job: str = ""  # the job of Slurm that the owner runs in: its end is the owner's


@dataclass(frozen=True)
class Place:
    """Where a process is, as far as it matters for judging another one."""

    host: str
    boot: str
    namespace: str


def here() -> Place:
    return Place(socket.gethostname(), first_line_of("/proc/sys/kernel/random/boot_id"), link_of("/proc/self/ns/pid"))


def this_process(nonce: str | None = None) -> Owner:
    place = here()
    nonce = nonce or os.urandom(8).hex()
    job = os.environ.get("SLURM_JOB_ID", "")
    return Owner(place.host, os.getpid(), process_start(os.getpid()), time.time(), nonce, place.boot, place.namespace, slurm_job=job)


def first_line_of(path: str) -> str:
    """Empty where the kernel does not say."""
    try:
        return Path(path).read_text(encoding="ascii").strip()
    except OSError:
        return ""


def link_of(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def judged(owner: Owner, place: Place, started: int, held: bool | None, local: bool) -> Standing:
    """Whether the owner may still work.

    Args:
        place: where the judging process is.
        started: the start time of the process that has the owner's pid here, in clock ticks; 0: there is none.
        held: whether somebody holds the kernel's lock; None: the file system has no such locks.
        local: whether only this kernel can have the file system mounted.
    """
    same_machine = owner.host == place.host and owner.boot == place.boot != ""
    if same_machine and owner.namespace == place.namespace != "":
        return "alive" if started == owner.process_start != 0 else "dead"
    if held:
        return "alive"
    if held is False and owner.kernel and (local or same_machine):
        return "dead"  # the kernel lets go of the lock when its holder ends
    if local and owner.boot != "" != place.boot != owner.boot:
        return "dead"  # this machine was started again since
    return "unknown"


def standing(run_dir: RunDir, owner: Owner) -> Standing:
    return judged(owner, here(), process_start(owner.pid), kernel_lock_held(run_dir.lock), is_local(run_dir.path))


def kernel_lock_held(path: Path) -> bool | None:
    """Whether a process holds the kernel's lock on the file; None where that cannot be asked."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    except OSError:
        return None
    return False


def is_local(path: Path) -> bool:
    """Whether the file system of a folder can be mounted by one kernel only, as /proc/self/mountinfo (proc(5)) names it."""
    try:
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    mounts = {fields[4]: fields[fields.index("-") + 1] for fields in map(str.split, lines)}  # the last mount on a folder covers the others
    around = [str(folder) for folder in (path.resolve(), *path.resolve().parents)]
    return next((mounts[folder] for folder in around if folder in mounts), "") in LOCAL


def refuse_live_owner(run_dir: RunDir, take_over: bool = False) -> None:
    """Raises RunLocked while somebody works in the folder, or may work there; `take_over`: the user knows that such an owner has ended."""
    try:
        owner = read_owner(run_dir)
    except RunLocked:
        if take_over and not kernel_lock_held(run_dir.lock):
            return
        raise
    if owner is not None:
        refuse_owner(run_dir, owner, take_over)


def refuse_owner(run_dir: RunDir, owner: Owner, take_over: bool) -> None:
    found = standing(run_dir, owner)
    if found == "unknown" and not take_over:
        found = elsewhere.standing(run_dir, owner)
    if found == "alive":
        raise RunLocked(in_use(run_dir, owner))
    if found == "unknown" and not take_over:
        raise RunLocked(perhaps_in_use(run_dir, owner))


def read_owner(run_dir: RunDir) -> Owner | None:
    """Who holds the folder; None: nobody.

    Raises:
        RunLocked: when the lock says nothing, as after a power failure.
    """
    try:
        return owner_in(run_dir.lock.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise RunLocked(
            f"{run_dir.lock} is damaged and names no owner. If no process works in that folder, take it over with: {with_flag(run_dir)}"
        ) from error


def owner_in(text: str) -> Owner:
    values = json.loads(text)
    if not isinstance(values, dict):
        raise TypeError(text)
    values["slurm_job"] = values.get("slurm_job") or ""  # null in earlier versions
    owner = Owner(**values)
    if any(
        type(value) is not type_
        for value, type_ in ((owner.pid, int), (owner.process_start, int), (owner.host, str), (owner.nonce, str), (owner.slurm_job, str))
    ):
        raise TypeError(text)
    return owner


def acquire(run_dir: RunDir, owner: Owner, take_over: bool = False) -> None:
    """Become the owner of the folder. A dead owner's lock is replaced, and so is that of the process that handed this one its nonce.

    Args:
        take_over: an owner that cannot be judged from here counts as dead. One that is known to live never does.

    Raises:
        RunLocked: naming host, pid and age of the process that works there.
    """
    for _ in range(ATTEMPTS):
        if create(run_dir.lock, owner):
            return
        try:
            holder = read_owner(run_dir)
        except RunLocked:
            refuse_live_owner(run_dir, take_over)
            holder = None
        else:
            if holder is None:
                continue  # released between the two looks
            if holder.nonce == owner.nonce:
                if holder.pid != owner.pid:
                    replace(run_dir.lock, owner)
                return
            refuse_owner(run_dir, holder, take_over)
        remove_dead(run_dir, holder)
        time.sleep(PAUSE_SECONDS)
    raise RunLocked(f"{run_dir.lock} changes its owner too often, because another process starts the same run. Look with `regimen status`.")


def draft_of(path: Path, owner: Owner) -> tuple[Path, int]:
    """The lock in full under another name, with the kernel's lock on it: it is never seen empty, not even after a power failure."""
    draft = path.with_name(f".lock-{owner.nonce}")
    handle = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        kernel = True
    except OSError:  # the file system has no such locks; the names have to do
        kernel = False
    with os.fdopen(os.dup(handle), "w", encoding="utf-8") as file:
        file.write(json.dumps({**asdict(owner), "kernel": kernel}))
        file.flush()
        os.fsync(file.fileno())
    return draft, handle


def create(path: Path, owner: Owner) -> bool:
    draft, handle = draft_of(path, owner)
    try:
        os.link(draft, path)
    except FileExistsError:
        os.close(handle)
        return False
    finally:
        draft.unlink()
    HELD[owner.nonce] = handle
    return True


def replace(path: Path, owner: Owner) -> None:
    """The lock passes from the process that made it to this one, without a moment in which nobody holds it."""
    draft, handle = draft_of(path, owner)
    os.replace(draft, path)
    HELD[owner.nonce] = handle


def remove_dead(run_dir: RunDir, dead: Owner | None) -> None:
    """Remove a dead owner's lock (None: a damaged one), and only that: whoever removes one holds the kernel's lock on that very file."""
    try:
        file = run_dir.lock.open("r+", encoding="utf-8")
    except FileNotFoundError:
        return
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return  # another process looks at it, or was faster
        except OSError:  # the file system has no such locks
            pass
        if says(run_dir) == (dead.nonce if dead else None):
            run_dir.lock.unlink(missing_ok=True)


def says(run_dir: RunDir) -> str | None:
    """The nonce in the lock; None for a damaged one, and empty where there is none."""
    try:
        owner = read_owner(run_dir)
    except RunLocked:
        return None
    return owner.nonce if owner else ""


def release(run_dir: RunDir, owner: Owner) -> None:
    if says(run_dir) == owner.nonce:
        run_dir.lock.unlink(missing_ok=True)
    let_go(owner)


def let_go(owner: Owner) -> None:
    """Give up the kernel's lock of this process alone: another one has the folder now."""
    handle = HELD.pop(owner.nonce, None)
    if handle is not None:
        os.close(handle)


def keep_over_exec() -> None:
    """This process is about to become another program under the same pid, which goes on holding what this one holds."""
    for handle in HELD.values():
        os.set_inheritable(handle, True)


def in_use(run_dir: RunDir, owner: Owner) -> str:
    return (
        f"{run_dir.path} is in use by process {owner.pid} on {owner.host}, which has held it for {age(time.time() - owner.since)}. "
        f"Follow it with `regimen status --follow {run_dir.path}`, or end it with `regimen stop {run_dir.path}`."
    )


def perhaps_in_use(run_dir: RunDir, owner: Owner) -> str:
    where = "on another machine" if owner.host != socket.gethostname() else "in another container, or before this machine started again"
    return (
        f"{run_dir.path} may be in use by process {owner.pid} on {owner.host}, which took it {age(time.time() - owner.since)} ago {where}. "
        f"This machine cannot see whether it still runs. If it has ended, take the folder over with: {with_flag(run_dir)}"
    )


def with_flag(run_dir: RunDir) -> str:
    return f"regimen train resume={run_dir.path} --take-over"
