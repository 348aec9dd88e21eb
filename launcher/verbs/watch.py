"""The verbs status and stop: what runs and sweeps are doing, and how one is asked to end."""

import json
import os
import shutil
import sys
import time
from pathlib import Path

from conf import journal
from conf.run_dir import RunDir
from launcher.errors import ConfigError
from launcher.launch import batch_job, execute, status
from launcher.launch.outcome import Outcome
from launcher.launch.places import in_words, places
from launcher.launch.progress import display_for
from launcher.sweep import standing
from launcher.sweep.find import find_sweeps, meant_sweep
from launcher.sweep.ledger import SweepDir
from launcher.sweep.table import exit_code
from launcher.verbs.train import ended
from launcher.words import plural, red_alarms

EVENTS = 30  # of the journal are shown of a run that is named

QUEUE_SECONDS = 30.0  # between two questions to squeue while a run is followed: every question costs the controller


def show_status(name: str | None, output: Path | None, as_json: bool) -> int:
    sweep = meant_sweep(name, output)
    if sweep is not None:
        return show_sweep(sweep, as_json)
    folders = [status.named_run(name, output)] if name is not None else list(status.find_runs(output))
    found = batch_job.as_slurm_says([status.status_of(run_dir) for run_dir in folders])
    sweeps = [standing.sweep_status(sweep_dir) for sweep_dir in find_sweeps(output)] if name is None else []
    if as_json:
        print(json.dumps([*map(status.as_dict, found), *map(standing.as_dict, sweeps)], indent=1))
    else:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        print(red_alarms("\n".join(status.table(found, width)), sys.stdout) if found else f"no runs under {in_words(places(output))}")
        if name is not None:
            print("\n".join(history(folders[0])))
        if sweeps:
            print("\n" + "\n".join(standing.list_lines(sweeps)))
    return 0


def show_sweep(sweep_dir: SweepDir, as_json: bool) -> int:
    sweep = standing.sweep_status(sweep_dir)
    print(json.dumps(standing.as_dict(sweep), indent=1) if as_json else red_alarms("\n".join(standing.status_lines(sweep)), sys.stdout))
    return 0


def follow_sweep(sweep_dir: SweepDir) -> int:
    """A line for each point that starts or ends, until the sweep ends; ends with the sweep's own exit code."""
    new_lines = standing.new_lines(sweep_dir)
    while True:
        alive = standing.owner_state(sweep_dir) == "running"
        for line in new_lines():
            print(line, flush=True)
        if not alive:
            break
        time.sleep(0.5)
    sweep = standing.sweep_status(sweep_dir)
    print("\n" + "\n".join(standing.status_lines(sweep)))
    return exit_code(sweep.results)


def history(run_dir: RunDir) -> list[str]:
    """What happened to a run, as its journal says: the newest events."""
    lines = journal.lines(journal.events(run_dir))
    earlier = len(lines) - EVENTS
    return [*([f"{plural(earlier, 'earlier event')} in {run_dir.journal}"] if earlier > 0 else []), *lines[-EVENTS:]]


def follow(name: str, output: Path | None) -> int:
    """Show a run's progress until it ends; ends with the run's own exit code."""
    sweep = meant_sweep(name, output)
    if sweep is not None:
        return follow_sweep(sweep)
    run_dir = status.named_run(name, output)
    with display_for(run_dir, sys.stdout, from_start=True) as display:
        ask_slurm_at = time.monotonic()
        while True:
            if not run_dir.run_yaml.exists():
                raise ConfigError(f"{run_dir.path} was removed while it was followed. `regimen status` lists the runs that are there.")
            now = status.status_of(run_dir)
            if now.job is not None and time.monotonic() >= ask_slurm_at:
                [now] = batch_job.as_slurm_says([now])
                ask_slurm_at = time.monotonic() + QUEUE_SECONDS
            display.update()
            if now.state not in status.ACTIVE:
                break
            time.sleep(0.5)
    if now.state == "dead":
        raise ConfigError(f"{run_dir.path}: {now.message}")
    return ended(run_dir, Outcome(now.exit_code or 0, now.message))


def stop_sweep(sweep_dir: SweepDir) -> int:
    if standing.owner_state(sweep_dir) != "running":
        jobs = [result.run_dir for result in standing.sweep_status(sweep_dir).results if result.state in status.ACTIVE and result.run_dir is not None]
        for run_dir in jobs:
            stop(str(run_dir.path), None)
        if jobs:
            return 0
        print(f"{sweep_dir.path} is not running. `regimen status {sweep_dir.path}` shows its points.")
        return 0
    standing.ask_to_stop(sweep_dir)
    print(f"{sweep_dir.path} is asked to stop: each running point saves first. Go on later with: regimen train -m resume={sweep_dir.path}")
    return 0


def stop(name: str, output: Path | None) -> int:
    sweep = meant_sweep(name, output)
    if sweep is not None:
        return stop_sweep(sweep)
    run_dir = status.named_run(name, output)
    [now] = batch_job.as_slurm_says([status.status_of(run_dir)])
    if now.state not in status.ACTIVE:
        print(f"{run_dir.path} is not running. It is {now.state}.")
        return 0
    execute.ask_to_stop(run_dir)
    journal.record(run_dir, journal.StopRequested("regimen stop", via=os.environ.get(journal.VIA)))
    if now.state == "queued" and now.job is not None and batch_job.cancel(run_dir, now.job):
        print(f"Slurm job {now.job} was waiting and is cancelled. Submit it again with: regimen train resume={run_dir.path}")
        return 0
    print(f"{run_dir.path} is asked to save and stop. Go on later with: regimen train resume={run_dir.path}")
    return 0
