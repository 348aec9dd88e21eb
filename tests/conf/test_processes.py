"""Identities of processes, and children that do not outlive their parents: shown by real processes, killed at the moments that matter."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from conf.processes import (
    SUPERVISOR,
    Identity,
    descends_from,
    identity_from,
    identity_of,
    kill_supervised_by,
    process_start,
    supervised_by,
)
from tests.waiting import wait_until

SLEEP = "import time; time.sleep(1000)"


def python(code: str, *arguments: str, **variables: str) -> "subprocess.Popen[str]":
    environment = {**os.environ, **variables}
    return subprocess.Popen([sys.executable, "-c", code, *arguments], env=environment, stdout=subprocess.PIPE, text=True)


def said(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def is_gone(pid: int) -> Callable[[], bool]:
    return lambda: process_start(pid) == 0


def test_an_identity_is_read_back_and_tells_a_reused_pid() -> None:
    me = identity_of(os.getpid())
    assert identity_from(str(me)) == me
    assert me.lives()
    assert not Identity(me.pid, me.start - 1).lives()
    with pytest.raises(ValueError, match="not enough values"):
        identity_from("12")


def test_a_process_descends_from_its_parents_and_from_no_other() -> None:
    me, parent = identity_of(os.getpid()), identity_of(os.getppid())
    child = python(SLEEP)
    try:
        assert descends_from(child.pid, me)
        assert descends_from(child.pid, parent)
        assert not descends_from(child.pid, Identity(me.pid, me.start - 1))
        assert not descends_from(me.pid, identity_of(child.pid))
    finally:
        child.kill()
        child.wait()


# A parent starts a child that is born slowly, says its pid, and waits. The child takes its precautions only once a file is there.
BORN = """
import os, sys, time
from pathlib import Path
while not Path(sys.argv[1]).exists():
    time.sleep(0.01)
from conf.processes import die_with_ancestors
die_with_ancestors({} if sys.argv[2] == "broken" else os.environ)
Path(sys.argv[1] + ".alive").touch()
time.sleep(1000)
"""
PARENT = f"""
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", {BORN!r}, *sys.argv[1:]])
print(child.pid, flush=True)
time.sleep(1000)
"""


@pytest.mark.parametrize("how", ["guarded", "broken"])
def test_a_child_whose_parent_dies_before_it_has_begun_ends_itself(tmp_path: Path, how: str) -> None:
    """Without the names of its parents (broken) it lives on: this is what the check is for."""
    born = tmp_path / "born"
    parent = python(PARENT, str(born), how, **{SUPERVISOR: str(identity_of(os.getpid()))})
    child = int(said(parent))
    parent.kill()
    parent.wait()
    assert process_start(child)  # it knows nothing yet
    born.touch()
    try:
        if how == "guarded":
            wait_until(is_gone(child), "end of the orphan")
            assert not born.with_name("born.alive").exists()
        else:
            wait_until(born.with_name("born.alive").exists, "orphan that lives on")
    finally:
        if process_start(child):
            os.kill(child, signal.SIGKILL)


def test_a_child_whose_parents_live_goes_on_until_one_dies(tmp_path: Path) -> None:
    born = tmp_path / "born"
    born.touch()
    parent = python(PARENT, str(born), "guarded", **{SUPERVISOR: str(identity_of(os.getpid()))})
    child = int(said(parent))
    wait_until(born.with_name("born.alive").exists, "child that lives")
    parent.kill()
    parent.wait()
    wait_until(is_gone(child), "end of the child")


FORKS = """
import multiprocessing, os, threading, time
from conf.processes import ForkedChildren
ForkedChildren()
work = multiprocessing.get_context("fork").Process(target=time.sleep, args=(1000,))
work.start()
print(work.pid, flush=True)
def in_thread():
    other = multiprocessing.get_context("fork").Process(target=time.sleep, args=(1000,))
    other.start()
    print(other.pid, flush=True)
thread = threading.Thread(target=in_thread)
thread.start()
thread.join()
print("joined", flush=True)
time.sleep(1000)
"""


def test_a_forked_worker_dies_with_its_rank_and_not_with_a_thread() -> None:
    me = f"{os.getpid()}:1"  # of nobody, so that the leftover of the thread is found afterwards
    rank = python(FORKS, **{SUPERVISOR: me})
    worker, of_thread = int(said(rank)), int(said(rank))
    assert said(rank) == "joined"
    time.sleep(0.2)  # the thread has ended, and its child would have been killed
    assert process_start(of_thread)
    rank.kill()
    rank.wait()
    wait_until(is_gone(worker), "end of the worker")
    assert kill_supervised_by(identity_from(me)) == [of_thread]
    wait_until(is_gone(of_thread), "end of what was left")


def test_only_what_a_supervisor_started_is_found_and_killed() -> None:
    mine, other = "1:11", "1:111"
    ours, grandchild = python(PARENT, "/nonexistent", "guarded", **{SUPERVISOR: mine}), 0
    theirs = python(SLEEP, **{SUPERVISOR: other})
    try:
        grandchild = int(said(ours))
        assert set(supervised_by(identity_from(mine))) == {ours.pid, grandchild}
        assert set(kill_supervised_by(identity_from(mine))) == {ours.pid, grandchild}
        ours.wait()
        wait_until(is_gone(grandchild), "end of the grandchild")
        assert theirs.poll() is None
    finally:
        theirs.kill()
        theirs.wait()
