"""`python -m launcher.launch.heartbeat FOLDER NONCE PID:START`: shows machines that cannot see the owner of a run folder that it lives.

While that process lives, its file is written anew every few seconds. A machine that sees another host's lock watches the file (elsewhere.py). Where
the lock names another owner meanwhile, this machine was taken for dead, as after it was frozen: the process that holds the lock no more is killed.
"""

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from conf.processes import Identity, identity_from
from conf.run_dir import RunDir
from launcher.command import launcher_environment

BEAT_SECONDS = 5.0


def start(run_dir: RunDir, nonce: str, owner: Identity, site: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    """In a session of its own, so that what is sent to the terminal's processes does not reach it; it ends with the owner."""
    return subprocess.Popen(
        (sys.executable, "-m", "launcher.launch.heartbeat", str(run_dir.path), nonce, str(owner)),
        env=launcher_environment(site),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def end(process: "subprocess.Popen[bytes]", run_dir: RunDir) -> None:
    process.kill()
    process.wait()
    run_dir.heartbeat.unlink(missing_ok=True)


def beat_while_it_lives(run_dir: RunDir, nonce: str, owner: Identity) -> None:
    try:
        handle = os.pidfd_open(owner.pid)
    except ProcessLookupError:
        return
    ends = select.poll()
    ends.register(handle, select.POLLIN)
    count = 0
    while owner.lives():
        if nonce_in(run_dir.lock) not in (nonce, None):
            signal.pidfd_send_signal(handle, signal.SIGKILL)
            return
        write_beat(run_dir, nonce, count)
        count += 1
        ends.poll(BEAT_SECONDS * 1000)


def write_beat(run_dir: RunDir, nonce: str, count: int) -> None:
    """In place and always as long, so that a reader sees one beat or the next. A disk that is full or out of reach will take another one."""
    text = json.dumps({"nonce": nonce, "count": f"{count:012}"})
    with suppress(OSError):
        handle = os.open(run_dir.heartbeat, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.pwrite(handle, text.encode(), 0)
        finally:
            os.close(handle)  # a network file system sends it to its server now


def nonce_in(path: Path) -> str | None:
    """Of a lock or a heartbeat; None where it cannot be read."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    found = values.get("nonce") if isinstance(values, dict) else None
    return found if isinstance(found, str) else None


if __name__ == "__main__":
    beat_while_it_lives(RunDir(Path(sys.argv[1])), sys.argv[2], identity_from(sys.argv[3]))
