"""What a supervisor leaves when it is killed: the guardian ends it, and ends itself."""

import os
import subprocess
import sys
from pathlib import Path

from conf.processes import SUPERVISOR, identity_from, identity_of, process_start, supervised_by
from launcher.launch import guardian
from tests.waiting import wait_until

# A supervisor with a compiler: a program in a session of its own that no parent's death reaches.
SUPERVISES = f"""
import os, subprocess, sys, time
from conf.processes import identity_of
from launcher.launch import guardian
this = identity_of(os.getpid())
guarded = guardian.start(this, os.environ)
compiler = subprocess.Popen(["sleep", "1000"], start_new_session=True, env={{**os.environ, {SUPERVISOR!r}: str(this)}})
print(this, guarded.pid, compiler.pid, flush=True)
time.sleep(1000)
"""


def test_what_a_killed_supervisor_leaves_is_ended(tmp_path: Path) -> None:
    supervisor = subprocess.Popen([sys.executable, "-c", SUPERVISES], stdout=subprocess.PIPE, text=True)
    assert supervisor.stdout is not None
    this, guarded, compiler = supervisor.stdout.readline().split()
    assert list(supervised_by(identity_from(this))) == [int(compiler)]
    os.kill(int(guarded), 15)  # it stays for what it is there for
    supervisor.kill()
    supervisor.wait()
    wait_until(lambda: process_start(int(compiler)) == 0, "end of the compiler")
    wait_until(lambda: process_start(int(guarded)) == 0, "end of the guardian")


def test_a_guardian_that_is_released_ends_and_kills_nothing() -> None:
    this = identity_of(os.getpid())
    guarded = guardian.start(this, os.environ)
    with subprocess.Popen(["sleep", "1000"], env={**os.environ, SUPERVISOR: str(this)}) as other:
        guardian.release(guarded)
        assert guarded.returncode == 0
        assert other.poll() is None
        other.kill()


def test_a_guardian_that_was_killed_is_released_all_the_same() -> None:
    guarded = guardian.start(identity_of(os.getpid()), os.environ)
    guarded.kill()
    guarded.wait()
    guardian.release(guarded)
