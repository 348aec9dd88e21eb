"""Run folders of other users: what is in one decides which code is run, so it must be the user's own."""

import os
import pwd
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from conf.run_dir import RunDir
from launcher.errors import Unsafe

ROOT = 0  # who could change this process itself
FLAG = "--other-owner"


@dataclass(frozen=True)
class Trust:
    """What the user vouches for on the command line."""

    take_over: bool = False  # an owner of the lock that cannot be judged from here has ended
    other_owner: bool = False  # whoever can write into the run folder


NO_TRUST = Trust()


def refuse_foreign(run_dir: RunDir, trust: Trust) -> None:
    """Raises Unsafe where another user owns the run folder or a file in it, or where every user can write there."""
    if trust.other_owner:
        return
    for path in below(run_dir.path):
        why = foreign(path.lstat()) or (foreign(path.stat()) if path.is_symlink() and path.exists() else "")
        if why:
            raise Unsafe(
                f"{path} {why}. A run folder decides which code is run, for example by stage.reward_packages. If you trust who can write there, "
                f"add {FLAG}; otherwise copy the folder, and look through it first."
            )


def below(folder: Path) -> Iterator[Path]:
    yield folder
    for parent, folders, files in os.walk(folder):
        yield from (Path(parent, name) for name in (*folders, *files))


def foreign(found: os.stat_result) -> str:
    """Why a file is not the user's own; empty where it is."""
    if found.st_uid not in (os.geteuid(), ROOT):
        return f"belongs to {user(found.st_uid)}, and you are {user(os.geteuid())}"
    if found.st_mode & stat.S_IWOTH and not stat.S_ISLNK(found.st_mode):
        return "can be written by every user of this machine"
    return ""


def user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"the user with the number {uid}"
