"""Starts the supervisor of a point, signals it, and reads what it left: the side effects of a sweep's runs."""

import contextlib
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import BinaryIO

from conf.evaluations import of_final_model
from conf.records import is_step, read_lines
from conf.run_dir import RunDir, write_text_atomically
from launcher.command import python_path
from launcher.composition.recorded import recorded_run
from launcher.launch import execute, lock, status
from launcher.launch.again import take_again
from launcher.launch.foreign import Trust
from launcher.launch.plan import LaunchPlan, plan_for
from launcher.sweep.points import Permitted, Point, Result, one_line


@dataclass(frozen=True)
class Running:
    point: Point
    run_dir: RunDir
    gpus: tuple[str, ...]
    process: "subprocess.Popen[bytes]"
    log: BinaryIO  # kept open: somebody may remove the folder, and the cause is in here
    since: float  # of time.monotonic
    again: bool = False  # it goes on in the folder of an earlier start
    held: bool = False  # its GPUs are not free yet: its ranks load their libraries and wait


def point_environment(site: Mapping[str, str], gpus: tuple[str, ...], threads: int) -> dict[str, str]:
    """What a point sees: its own GPUs, its share of the cores, and these packages, whatever the working folder holds."""
    visible = {"CUDA_VISIBLE_DEVICES": ",".join(gpus), "CUDA_DEVICE_ORDER": "PCI_BUS_ID"} if gpus else {}  # NVML's order, not fastest first
    return {"OMP_NUM_THREADS": str(threads), **site, **python_path(site.get("PYTHONPATH", "")), "PYTHONSAFEPATH": "1", **visible}


def start(permitted: Permitted, gpus: tuple[str, ...], environment: Mapping[str, str], held: bool = False) -> Running:
    """Make the run folder, or take it up again, and start its supervisor in a session of its own; it saves and stops if the sweep dies.

    `held`: its GPUs are not free yet, so its ranks do not touch them before `release`.

    Raises:
        DiskError: where the folder cannot be made.
        RunLocked: where somebody else has begun to work in it.
    """
    run_dir = prepared(permitted, environment)
    if held:
        write_text_atomically(run_dir.hold, "")
    log = run_dir.launcher_log.open("a+b")
    process = subprocess.Popen(
        (sys.executable, "-m", "launcher", "supervise", str(run_dir.path)),
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=execute.end_with_this_process(),
    )
    return Running(permitted.point, run_dir, gpus, process, log, time.monotonic(), permitted.run_dir is not None, held)


def release(running: Running) -> Running:
    """Its GPUs are free: the ranks go on. Its time counts from here."""
    running.run_dir.hold.unlink(missing_ok=True)
    return replace(running, since=time.monotonic(), held=False)


def prepared(permitted: Permitted, environment: Mapping[str, str]) -> RunDir:
    """A folder that holds all that the supervisor needs, and that nobody owns: the supervisor takes it."""
    return planned(permitted, environment).run_dir


def planned(permitted: Permitted, environment: Mapping[str, str]) -> LaunchPlan:
    """The plan, written into a new folder or that which the point goes on in. Where it cannot be made no new folder stays."""
    if permitted.run_dir is None:
        run_dir = execute.start_fresh(permitted.judged)
        try:
            plan = plan_for(permitted.judged, run_dir)
            execute.write_plan(plan, environment)
        except BaseException:  # Ctrl-C too
            execute.remove_run_dir(run_dir.path)
            raise
        return plan
    plan, held = take_again(permitted.judged, permitted.run_dir, environment, Trust(permitted.take_over))
    lock.release(plan.run_dir, held)
    return plan


def ask_to_stop(running: Running) -> None:
    """First request: through the run's stop file, which works before its ranks have begun too."""
    with contextlib.suppress(FileNotFoundError):  # somebody may have removed the folder
        execute.ask_to_stop(running.run_dir)


def insist(running: Running) -> None:
    """Further requests go to the supervisor, which ends and then kills the ranks."""
    if running.process.poll() is None:
        os.kill(running.process.pid, signal.SIGTERM)


def result_of(running: Running) -> Result:
    """How an ended point ended."""
    seconds = time.monotonic() - running.since
    said = last_words(running.log)
    running.log.close()
    if not running.run_dir.path.exists():
        return Result(running.point, "failed", cause=said, seconds=seconds)
    return result_from(running.point, status.status_of(running.run_dir), said, seconds)


def result_from(point: Point, now: status.RunStatus, said: str, seconds: float) -> Result:
    """What its folder says of a point that has ended; `said`: its cause where the folder has none."""
    if now.state == "finished":
        objective, measure = objective_of(of_what_was_kept(now))
        return Result(point, "finished", objective, measure, now.run_dir, seconds=seconds)
    if now.state == "stopped":
        return Result(point, "stopped", run_dir=now.run_dir, cause=now.message, seconds=seconds)
    cause = now.message if now.state == "failed" else said or now.message
    return Result(point, "failed", run_dir=now.run_dir, cause=one_line(cause), seconds=seconds)


def last_words(log: BinaryIO) -> str:
    """The message that a supervisor ended with, else its last line, in one line."""
    log.seek(0)
    text = log.read().decode("utf-8", "replace")
    _, found, message = f"\n{text}".rpartition("\nregimen: ")
    return one_line(message if found else "\n".join(text.split("\n")[-2:]))


def of_what_was_kept(now: status.RunStatus) -> status.RunStatus:
    """With the evaluation of the final model: evaluation.best_at_end may have kept an earlier one than the last."""
    entries = [entry for entry in read_lines(now.run_dir.progress, is_step).entries if "eval_loss" in entry]
    final = of_final_model(entries, recorded_run(now.run_dir).evaluation) if entries else None
    return now if final is None else replace(now, eval_loss=final["eval_loss"])


def objective_of(now: status.RunStatus) -> tuple[float | None, str]:
    """What a sampler minimises. Never NaN or infinity: NaN ends Optuna, and infinity can become its best value."""
    value, measure = (now.loss, "loss") if now.eval_loss is None else (now.eval_loss, "evaluation loss")
    return (value, measure) if value is not None and math.isfinite(value) else (None, "")
