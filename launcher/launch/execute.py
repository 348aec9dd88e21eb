"""Does what a LaunchPlan says: makes the folder, writes the files, starts the processes. All side effects of a launch are here."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NoReturn

from conf import journal
from conf.exit_codes import CONFIG, DATA
from conf.processes import SUPERVISOR, Identity, die_with_parent, identity_of, kill_supervised_by, supervised_by
from conf.reserve import RUN_BYTES, despite_full_disk, reserve
from conf.run_dir import RunDir, load_run, save_run, write_text_atomically
from conf.schema import Run
from launcher.command import Command, launcher_environment
from launcher.composition.recorded import changes
from launcher.errors import ConfigError, DiskError, GateRefused, RanksFailed
from launcher.facts.model.tokenizer_files import refuse_absent_tokenizer
from launcher.facts.node import refuse_absent_gpus
from launcher.gate.judge import Judged
from launcher.gate.verdict import refusal_text
from launcher.launch import lock, places
from launcher.launch.backends import command
from launcher.launch.batch_script import STOPPED_BY_SLURM
from launcher.launch.outcome import Outcome
from launcher.launch.plan import LaunchPlan, new_run_dir, plan_as_dict

HANDOVER_SECONDS = 0.05  # between two looks at whether a detached supervisor has the folder
REMAINS_SECONDS = 8.0  # nothing of a run lives 10 s after its end


def start_fresh(judged: Judged, listed: bool = True) -> RunDir:
    """Make the run folder of a judged run; `listed`: `regimen status` and `last` find it afterwards.

    Raises:
        GateRefused, ConfigError: before anything is written.
        DiskError: where the output folder cannot be written.
    """
    if not judged.verdict.permitted:
        raise GateRefused(refusal_text(judged.verdict))
    if judged.run.cluster.name != "slurm":
        refuse_absent_tokenizer(judged.run.model)
    if judged.run.cluster.name == "local":
        refuse_absent_gpus(judged.run.node)
        refuse_occupied_port(judged.run.backend.port)
    run_dir = make_run_dir(judged)
    if listed:
        places.remember(Path(judged.run.output))
    return run_dir


def make_run_dir(judged: Judged) -> RunDir:
    stamp = time.strftime("%Y-%m-%d_%H-%M-%S")
    for attempt in range(1000):
        run_dir = new_run_dir(judged.run, stamp if attempt == 0 else f"{stamp}-{attempt}")
        try:
            run_dir.path.parent.mkdir(parents=True, exist_ok=True)
            run_dir.path.mkdir(mode=0o700)
        except FileExistsError:
            if not run_dir.path.parent.is_dir():
                raise DiskError(f"{run_dir.path.parent} is a file. Set output= to a folder.") from None
            continue
        except OSError as error:
            raise DiskError(f"{run_dir.path} cannot be made: {error.strerror}. Set output= to a folder that you may write to.") from error
        return run_dir
    raise DiskError(f"{judged.run.output} holds a thousand runs of this second. Set a different name=.")


def write_plan(plan: LaunchPlan, site: Mapping[str, str]) -> None:
    """Everything that a start needs on disk; the same for a first start and for a resume."""
    run_dir = plan.run_dir
    for folder in (run_dir.logs, run_dir.exits, run_dir.layouts, run_dir.peaks):
        folder.mkdir(exist_ok=True)
    reserve(run_dir.reserve, RUN_BYTES)
    save_run(plan.run, run_dir)
    write_text_atomically(run_dir.plan, json.dumps(plan_as_dict(plan, dict(site)), indent=1))
    for path, text in plan.files:
        write_text_atomically(path, text)


def clear_last_attempt(run_dir: RunDir) -> None:
    """Remove what is only about the attempt before: causes of its end, a request to stop."""
    run_dir.stop.unlink(missing_ok=True)
    run_dir.hold.unlink(missing_ok=True)
    clear_traces(run_dir)


def clear_traces(run_dir: RunDir) -> None:
    for folder in (run_dir.exits, run_dir.layouts, run_dir.peaks, run_dir.signs):
        shutil.rmtree(folder, ignore_errors=True)


def clear_failed(run_dir: RunDir, outcome: Outcome) -> None:
    """Record why an attempt failed, and remove its traces: the run is started again."""
    journal.record(run_dir, journal.Failed(outcome.exit_code, outcome.message))
    clear_traces(run_dir)
    for folder in (run_dir.exits, run_dir.layouts, run_dir.peaks):
        folder.mkdir()


def change(run_dir: RunDir, run: Run) -> None:
    """Have the next start train `run`, and record in what it differs from the one before."""
    changed = changes(run_dir, run)
    for row in changed:
        journal.record(run_dir, row)
    if changed:
        save_run(run, run_dir)


def forget_stop_of_slurm(run_dir: RunDir) -> str:
    """Remove the stop file if Slurm made it, and say what of Slurm; one that the user made stays, and the answer is empty."""
    said = run_dir.stop.read_text(encoding="utf-8", errors="replace").strip() if run_dir.stop.exists() else ""
    if said in STOPPED_BY_SLURM:
        run_dir.stop.unlink()
    return STOPPED_BY_SLURM.get(said, "")


def start_ranks(
    run_dir: RunDir, command: Command, site: Mapping[str, str], supervisor: Identity, by: str = journal.USER
) -> "subprocess.Popen[bytes]":
    """Start the agent in a session of its own; it and the ranks die with this process, so that nobody else writes in the folder then.

    They are killed: on SIGTERM ranks would save for up to 30 s while a resume already begins.
    """
    via = site.get(journal.VIA) if by == journal.USER else None
    journal.record(run_dir, journal.Started(socket.gethostname(), by, argv=command.argv, via=via))
    shutil.rmtree(run_dir.signs, ignore_errors=True)  # of ranks that have ended
    with (run_dir.logs / "agent.txt").open("ab") as log:
        return subprocess.Popen(
            command.argv,
            env={**command.environment(site), SUPERVISOR: str(supervisor)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=partial(as_agent, supervisor.pid),
        )


def as_agent(supervisor: int) -> None:
    """In the child, before it becomes the agent, which would die of SIGUSR1 until it has imported what handles it."""
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    die_with_parent(supervisor)


def end_with_this_process() -> Callable[[], None]:
    """What a child calls that is a launcher or a verb: SIGTERM when this process dies, so that it saves and stops."""
    return partial(die_with_parent, os.getpid(), signal.SIGTERM)


def detach(run_dir: RunDir, held: lock.Owner, site: Mapping[str, str]) -> int:
    """Start a supervisor that outlives this terminal, and hand it the folder; returns its pid once the folder is its own.

    Raises:
        RanksFailed: when it ends before that. The folder is released.
    """
    with run_dir.launcher_log.open("ab") as log:
        process = subprocess.Popen(
            (sys.executable, "-m", "launcher", "supervise", str(run_dir.path), "--handed-over", held.nonce),
            env=launcher_environment(site),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    while owned_by_me(run_dir, held) and process.poll() is None:
        time.sleep(HANDOVER_SECONDS)
    if owned_by_me(run_dir, held):
        lock.release(run_dir, held)
        raise RanksFailed(f"The supervisor ended with exit code {process.returncode} before it had the run. {run_dir.launcher_log} says why.")
    lock.let_go(held)
    return process.pid


def owned_by_me(run_dir: RunDir, held: lock.Owner) -> bool:
    owner = lock.read_owner(run_dir)
    return owner is not None and (owner.nonce, owner.pid) == (held.nonce, held.pid)


def end_group(process: "subprocess.Popen[bytes]", number: int) -> None:
    """Signal the agent's whole process group."""
    if process.poll() is None:
        os.killpg(process.pid, number)


def end_remains(run_dir: RunDir, supervisor: Identity) -> None:
    """What a run leaves when its agent has ended, such as a tracker that still sends, gets a few seconds, and is then killed."""
    deadline = time.monotonic() + REMAINS_SECONDS
    while list(supervised_by(supervisor)):
        if time.monotonic() > deadline:
            killed = kill_supervised_by(supervisor)
            journal.record(run_dir, journal.KilledRemains(tuple(map(str, killed))))
            return
        time.sleep(0.1)


def discard_unbegun(run_dir: RunDir, outcome: Outcome) -> Path | None:
    """Remove the folder of a run that refused its input before it began; only its logs are of use, and the answer is where they are now."""
    began = run_dir.progress.exists() or run_dir.checkpoints.exists() or len([e for e in journal.events(run_dir) if e["event"] == "start"]) > 1
    if outcome.exit_code not in (CONFIG, DATA) or began:
        return None
    kept = Path(tempfile.mkdtemp(prefix="regimen-logs-"))
    shutil.copytree(run_dir.logs, kept, dirs_exist_ok=True)
    remove_run_dir(run_dir.path)
    return kept


def own(run_dir: RunDir, nonce: str | None = None, take_over: bool = False) -> lock.Owner:
    """Become the owner of the folder; `nonce`: what the process that hands it over gave to this one."""
    owner = lock.this_process(nonce)
    lock.acquire(run_dir, owner, take_over)
    return owner


def finish(run_dir: RunDir, outcome: Outcome) -> Outcome:
    despite_full_disk(run_dir, lambda: journal.record(run_dir, journal.Ended(outcome.exit_code, outcome.message)))
    run_dir.reserve.unlink(missing_ok=True)
    return outcome


def refuse_occupied_port(port: int) -> None:
    if port == 0:
        return
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise ConfigError(f"backend.port={port} cannot be used: {error.strerror}. Set another port, or 0 for a free one.") from error


def ask_to_stop(run_dir: RunDir) -> None:
    """The ranks look for this file at every step, save together and end."""
    despite_full_disk(run_dir, lambda: write_text_atomically(run_dir.stop, "stop\n"))


def remove_run_dir(path: Path) -> None:
    """The folder of a run that never began, and that of its name where it holds no other run."""
    shutil.rmtree(path)
    with suppress(OSError):  # other runs are in it
        path.parent.rmdir()


def gate_refusal(judged: Judged) -> GateRefused:
    return GateRefused(refusal_text(judged.verdict))


def become_trainer(run_folder: Path, site: Mapping[str, str]) -> NoReturn:
    """Replace this process by the trainer of a run folder: torchrun goes on watching the same pid."""
    run_dir = RunDir(run_folder)
    agent = identity_of(os.getppid())  # torchrun, which the user started, is the only process around the ranks
    environment = {**command(load_run(run_dir), run_dir).environment(site), SUPERVISOR: str(agent)}
    lock.keep_over_exec()
    os.execve(sys.executable, (sys.executable, "-m", "trainers", str(run_folder)), environment)


def remove_with_empty_parent(path: Path) -> None:
    """Remove a folder or file, and the folder around it if nothing else is in that.

    Raises:
        DiskError: where something in it cannot be removed.
    """
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
        if not any(path.parent.iterdir()):
            path.parent.rmdir()
    except OSError as error:
        raise DiskError(f"{error.filename} cannot be removed: {error.strerror}. Remove it yourself, or ask its owner.") from error
