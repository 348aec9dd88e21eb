"""`regimen host FOLDER N`: one machine's share of a run of cluster=hosts. It starts the agent of its ranks, and ends with it, or ends it.

The ranks end as soon as nobody supervises the run any more: the connection broke (the input of an attached share ends), the supervisor has let go of
the folder or another one has it, it gave no sign of life for a minute, or the shares of other machines have failed.
"""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

from conf import journal
from conf.processes import SUPERVISOR, Identity, identity_of, kill_supervised_by
from conf.run_dir import RunDir, load_run, write_text_atomically
from conf.schema import Run
from launcher.command import Command
from launcher.errors import ConfigError, RanksFailed
from launcher.launch import execute, guardian, hosts
from launcher.launch.elsewhere import SILENCE_SECONDS, text_of
from launcher.launch.heartbeat import nonce_in
from launcher.launch.supervise import StopRequests

POLL_SECONDS = 0.2
LOOK_SECONDS = 1.0  # from one look at the lock and the heartbeat to the next


def run_share(run_dir: RunDir, node_rank: int, folder: Path, attached: bool) -> int:
    """Start this machine's ranks and wait until they have ended; the exit code of their agent.

    Args:
        attached: the standard input ends when the process that started this one is gone.

    Raises:
        ConfigError: where the run folder, the working folder or the port cannot be used here.
        RanksFailed: where the ranks were ended because of what happened elsewhere.
    """
    enter(folder)
    run, nonce = supervised_run(run_dir)
    if node_rank == 0:
        refuse_occupied(run, run_dir)
    this = identity_of(os.getpid())
    record(run_dir, node_rank, None)
    guarded, requests = guardian.start(this, os.environ), StopRequests()
    with (run_dir.logs / f"agent-{node_rank}.txt").open("ab") as log:
        process = start_agent(hosts.share_of_ranks(run, run_dir, node_rank), this, log.fileno())
    try:
        why = watch(process, run_dir, nonce, attached, requests)
    finally:
        requests.restore()
    if why:
        execute.end_group(process, signal.SIGKILL)
        process.wait()
    kill_supervised_by(this)
    guardian.release(guarded)
    record(run_dir, node_rank, process.returncode)
    if why:
        raise RanksFailed(why)
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


def enter(folder: Path) -> None:
    try:
        os.chdir(folder)
    except OSError as error:
        where = f"The working folder {folder} cannot be entered on {socket.gethostname()}: {error.strerror}."
        raise ConfigError(f"{where} Start the run in a folder that all machines share.") from error


def supervised_run(run_dir: RunDir) -> tuple[Run, str]:
    """The run, and the nonce of whoever supervises it."""
    if not run_dir.run_yaml.is_file():
        raise ConfigError(f"{run_dir.path} is not on {socket.gethostname()}. Set output= to a folder on a file system that all machines share.")
    nonce = nonce_in(run_dir.lock)
    if nonce is None or run_dir.hosts_failure.exists():
        raise ConfigError(f"Nobody supervises {run_dir.path} now. Start it with: regimen train resume={run_dir.path}")
    return load_run(run_dir), nonce


def refuse_occupied(run: Run, run_dir: RunDir) -> None:
    """On the first machine, where the ranks meet."""
    port = hosts.meeting_port(run, run_dir)
    both = socket.has_dualstack_ipv6()
    try:
        socket.create_server(("", port), family=socket.AF_INET6 if both else socket.AF_INET, dualstack_ipv6=both).close()
    except OSError as error:
        why = f"cannot be used on {socket.gethostname()}: {os.strerror(error.errno or 0)}"
        raise ConfigError(f"Port {port}, at which the ranks meet, {why}. Set backend.port to another one.") from error


def record(run_dir: RunDir, node_rank: int, code: int | None) -> None:
    """That this machine has begun, and later how its agent ended."""
    write_text_atomically(run_dir.host_file(node_rank), json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "code": code}))


def start_agent(command: Command, this: Identity, log: int) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        command.argv,
        env={**command.environment(os.environ), SUPERVISOR: str(this)},
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
        preexec_fn=partial(execute.as_agent, this.pid),
    )


def watch(process: "subprocess.Popen[bytes]", run_dir: RunDir, nonce: str, attached: bool, requests: StopRequests) -> str:
    """Until the agent has ended; why it has to be ended, or an empty text. A first signal to this process asks the whole run to save and stop."""
    beat, silent_since, looked, seen = text_of(run_dir), time.monotonic(), time.monotonic(), 0
    while process.poll() is None:
        if requests.count > seen:
            seen = requests.count
            if seen > 1:
                return "Ended at once, at a second request."
            journal.record(run_dir, journal.StopRequested(f"{requests.last} on {socket.gethostname()}"))
            execute.ask_to_stop(run_dir)
        if attached and input_has_ended():
            return "The process that started this share is gone."
        now = time.monotonic()
        if now - looked >= LOOK_SECONDS:
            looked = now
            if run_dir.hosts_failure.exists():
                return "The run has failed on another machine."
            if nonce_in(run_dir.lock) != nonce:
                return "Nobody supervises this start of the run any more."
            beat, silent_since = (beat, silent_since) if text_of(run_dir) == beat else (text_of(run_dir), now)
            if now - silent_since > SILENCE_SECONDS:
                return f"The supervisor of the run gave no sign of life for {SILENCE_SECONDS:.0f} s."
        time.sleep(POLL_SECONDS)
    return ""


def input_has_ended() -> bool:
    readable, _, _ = select.select([sys.stdin], [], [], 0)
    return bool(readable) and os.read(sys.stdin.fileno(), 1) == b""
