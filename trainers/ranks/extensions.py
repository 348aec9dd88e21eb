"""DeepSpeed compiles its extensions at their first use. A build that is killed must not hang the next one, nor leave a half-made library.

torch marks a build by an empty file, `lock`, that outlives its owner; whoever comes later waits for ever (torch.utils.file_baton).
Here every build, and every look at what is built, holds a lock of the kernel, which ends with its owner; and a library that is whole gets its
place by one rename.
"""

import fcntl
import hashlib
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from conf.records import is_doing, read_lines
from conf.run_dir import RunDir
from conf.words import duration
from trainers.ranks.doing import say_doing
from trainers.ranks.place import Place

VARIABLE = "TORCH_EXTENSIONS_DIR"  # where torch builds; a user who sets it chooses the folder
BATON = "lock"  # torch's file, in the folder of an extension
Say = Callable[[str], None]


@dataclass(frozen=True)
class Builds:
    folder: Path
    ours: bool  # nobody else builds in it


def builds_of(environment: Mapping[str, str]) -> Builds:
    """The user's folder, or one for these versions in this environment on this machine.

    Extensions are compiled for the machine's CPU (-march=native), against headers in the environment. Where another environment or compiler asks for
    what is already there, torch compiles it again in its place, and says nothing.
    """
    chosen = environment.get(VARIABLE)
    if chosen:
        return Builds(Path(chosen), ours=False)
    cache = Path(environment.get("XDG_CACHE_HOME") or Path(environment.get("HOME") or Path.home()) / ".cache")
    versions = "-".join(f"{name}{version(name)}" for name in ("torch", "deepspeed"))
    python = f"py{sys.version_info.major}{sys.version_info.minor}"
    return Builds(cache / "regimen" / "extensions" / f"{python}-{versions}" / f"{platform.node()}-{toolchain(environment)}", ours=True)


def toolchain(environment: Mapping[str, str]) -> str:
    """A short name of this environment, its compiler, and what this CPU can do: one home may serve machines of one name, as containers do."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    abilities = next((line for line in lines if line.startswith(("flags", "Features"))), platform.machine())
    return hashlib.sha256("\n".join((abilities, sys.prefix, environment.get("CXX", ""))).encode()).hexdigest()[:8]


def guard_deepspeed(run_dir: RunDir, place: Place) -> None:
    """From now on every extension that DeepSpeed compiles in this process is built by `built`."""
    from deepspeed.ops.op_builder.builder import OpBuilder

    # a process that trains several runs guards once: a guard within a guard would wait for the lock that it holds itself
    compile_or_load, builds = getattr(OpBuilder.jit_load, "unguarded", OpBuilder.jit_load), builds_of(os.environ)

    def say(doing: str) -> None:
        print(doing, flush=True)
        say_doing(run_dir, place, doing)

    def guarded(self: Any, verbose: bool = True) -> Any:
        before = read_lines(run_dir.doing, is_doing).entries if place.leads else []
        said: list[str] = []

        def tell(doing: str) -> None:
            said.append(doing)
            say(doing)

        loaded = built(builds, self.name, lambda: compile_or_load(self, verbose), tell)
        if said and before:
            say(str(before[-1]["doing"]))
        return loaded

    guarded.unguarded = compile_or_load  # type: ignore[attr-defined]
    OpBuilder.jit_load = guarded


def built(builds: Builds, name: str, compile_or_load: Callable[[], Any], say: Say) -> Any:
    """What `compile_or_load` returns: it builds below VARIABLE, or finds there what was built before.

    Raises:
        OSError: where the folder cannot be made.
    """
    builds.folder.mkdir(parents=True, exist_ok=True)
    if not builds.ours:
        tell_of_baton(builds.folder / name / BATON, name, say)
        return compile_or_load()
    with turn(builds.folder / f"{name}.lock", name, say):
        place = builds.folder / name
        if place.is_dir():
            (place / BATON).unlink(missing_ok=True)  # of a process that was killed: a living one would hold our lock
            with root(builds.folder):
                return compile_or_load()
        say(f"compiling DeepSpeed's {name}, once for this environment, in {place}")
        making = builds.folder / f".making-{name}"
        shutil.rmtree(making, ignore_errors=True)
        with root(making):
            loaded = compile_or_load()
        os.rename(making / name, place)
        making.rmdir()
        return loaded


@contextmanager
def turn(path: Path, name: str, say: Say) -> Iterator[None]:
    """Hold the kernel's lock on `path`, which names its owner for those who wait."""
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            say(f"waiting for process {file.read().strip() or 'unknown'} of this machine, which compiles DeepSpeed's {name}")
            fcntl.flock(file, fcntl.LOCK_EX)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def tell_of_baton(baton: Path, name: str, say: Say) -> None:
    """In a folder that others build in, nobody can know whether the owner of torch's lock lives."""
    try:
        age = max(0.0, time.time() - baton.stat().st_mtime)
    except FileNotFoundError:
        return
    say(f"waiting for {baton}, made {duration(age)} ago by a process that compiles DeepSpeed's {name}. If no process compiles it, remove that file")


@contextmanager
def root(folder: Path) -> Iterator[None]:
    """torch builds in this folder."""
    folder.mkdir(exist_ok=True)
    os.environ[VARIABLE] = str(folder)
    try:
        yield
    finally:
        del os.environ[VARIABLE]
