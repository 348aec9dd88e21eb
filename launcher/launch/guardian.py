"""`python -m launcher.launch.guardian PID:START`: ends what a killed supervisor leaves. It waits on a pipe, and does nothing else until then.

Ranks die with their parents by themselves (conf/processes.py); compilers and other programs that libraries start do not.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping

from conf.processes import Identity, identity_from, kill_supervised_by
from launcher.command import launcher_environment

ALL_ENDED = b"."  # what a supervisor sends that has seen the end of its run
LOOKS, PAUSE = 10, 0.3  # after the supervisor's death: what is being born at the first look is there at a later one


def start(supervisor: Identity, site: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    """Before anything that it guards; in a session of its own, so that what is sent to the terminal's processes does not reach it."""
    return subprocess.Popen(
        (sys.executable, "-m", "launcher.launch.guardian", str(supervisor)),
        env=launcher_environment(site),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=ignore_requests,
    )


def ignore_requests() -> None:
    """In the child, from its first moment: it stays for what it is there for. A program that is started inherits what is ignored."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def release(guardian: "subprocess.Popen[bytes]") -> None:
    """Everything has ended. The guardian may have been killed by somebody meanwhile."""
    assert guardian.stdin is not None, "it was started with a pipe"
    try:
        guardian.stdin.write(ALL_ENDED)
        guardian.stdin.close()
    except BrokenPipeError:
        pass
    guardian.wait()


def guard(supervisor: Identity, pipe: int) -> None:
    """Until the supervisor says that all has ended, or dies: then kill what it leaves."""
    if os.read(pipe, 1) == ALL_ENDED:
        return
    for _ in range(LOOKS):
        kill_supervised_by(supervisor)
        time.sleep(PAUSE)


if __name__ == "__main__":
    guard(identity_from(sys.argv[1]), sys.stdin.fileno())
