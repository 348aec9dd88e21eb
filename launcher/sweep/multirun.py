"""`train --multirun` through Hydra's own multirun: its sweepers choose the points, its launcher gets a Sweep to run them."""

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hydra._internal.hydra import Hydra
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig

from conf.reserve import FULL
from launcher.composition.compose import CONFIG_NAME, checked_overrides, config_loader, load_config, parsed
from launcher.composition.recorded import output_of, split_resume
from launcher.errors import ConfigError, DiskError
from launcher.launch import lock, places
from launcher.launch.foreign import NO_TRUST, Trust, refuse_foreign
from launcher.sweep import ledger, table
from launcher.sweep.find import named_sweep
from launcher.sweep.going_on import continued
from launcher.sweep.grid import SWEEPER, fixed_keys, grid_points, refuse_hopeless, refuse_twice, refuse_without_effect
from launcher.sweep.halving import STEPS, checked, most_steps, steps_of_rounds
from launcher.sweep.ledger import Start, SweepDir
from launcher.sweep.page import page
from launcher.sweep.session import Sweep, limits_of, resources_here, say
from launcher.sweep.standing import currents
from launcher.sweep.summary import as_dict, summary_of
from launcher.words import plural, wrapped

NO_TRIAL = "No trials are completed yet"  # the message of optuna.study.Study.best_trial


def multirun(overrides: Sequence[str], config_dirs: Sequence[Path], trust: Trust = NO_TRUST) -> int:
    """Run every point of a sweep, or with resume=SWEEP what is left of them; the exit code of the whole.

    Raises:
        ConfigError: for a sweep that cannot be composed or that its sweeper refuses.
        RunLocked: where another process works on the sweep that is to go on.
        Unsafe: when a value is a secret.
    """
    name, others = split_resume(overrides)
    refuse_without_effect(others)
    if name is not None:
        sweep_dir = named_sweep(name, output_of(others))
        start = later_start(sweep_dir, others, config_dirs, trust)
        checked_settings(start)
        return run(sweep_dir, start, trust)
    start = checked_start(others, config_dirs)
    output = Path(checked_settings(start).output)
    sweep_dir = ledger.make_sweep_dir(output)
    places.remember(output)
    return run(sweep_dir, start, trust)


def later_start(sweep_dir: SweepDir, given: Sequence[str], config_dirs: Sequence[Path], trust: Trust) -> Start:
    """
    Raises:
        ConfigError: for what makes it another sweep, and in another working folder.
        Unsafe: where another user could have changed its folder.
    """
    refuse_foreign(sweep_dir.lockable, trust)
    before = ledger.newest_start(sweep_dir)
    if before.working_folder not in ("", os.getcwd()):
        raise ConfigError(f"{sweep_dir.path} was started in {before.working_folder}, and its paths are meant from there. Change to that folder.")
    before = replace(before, config_dirs=tuple(config_dirs) or before.config_dirs)
    return checked_start(continued(sweep_dir, before, given), before.config_dirs)


def checked_start(overrides: Sequence[str], config_dirs: Sequence[Path]) -> Start:
    """Every mistake that is not one point's own is found here, before anything is written."""
    given = checked_overrides(overrides, config_dirs)
    refuse_twice(parsed(given))
    submits = submits_jobs(load_config(given, config_dirs, RunMode.MULTIRUN))
    points = grid_points(given, config_dirs)
    if points is None and submits:
        raise ConfigError(
            "hydra/launcher=slurm returns when the points are submitted, and this hydra/sweeper waits for their results. Leave one out."
        )
    if points is not None:
        refuse_hopeless(points, config_dirs, submits)
    return Start(tuple(given), tuple(config_dirs), os.getcwd())


def submits_jobs(settings: DictConfig) -> bool:
    """Whether the launcher is hydra/launcher=slurm.

    Raises:
        ConfigError: for a throttle below 1.
    """
    launcher = settings.hydra.launcher
    if "throttle" not in launcher:
        return False
    if launcher.throttle is not None and (type(launcher.throttle) is not int or launcher.throttle < 1):
        raise ConfigError(
            f"hydra.launcher.throttle={launcher.throttle} is out of range. It must be a whole number of at least 1; null means no limit."
        )
    return True


def checked_settings(start: Start) -> DictConfig:
    """What all points share, with Hydra's own node.

    Raises:
        ConfigError: for settings of gpu_pool that this machine does not have, and for those of halving that cannot be.
    """
    config = load_config(start.overrides, start.config_dirs, RunMode.MULTIRUN)
    settings = config.hydra.launcher
    if "max_failures" in settings:  # another launcher has settings of its own
        resources_here(settings.gpus, settings.slots, settings.per_gpu)
        limits_of(settings.max_jobs, settings.max_failures, settings.ahead)
    if halves(start):
        rounds, factor = checked(config.hydra.sweeper.rounds, config.hydra.sweeper.factor)
        steps_of_rounds(most_steps([start.overrides]), rounds, factor)
    return config


def run(sweep_dir: SweepDir, start: Start, trust: Trust) -> int:
    """As run_in; a disk or a quota that is full is one message, and a sweep that came to nothing for it leaves no folder.

    Raises:
        DiskError: where that is so. Points that ran have saved.
    """
    try:
        return run_in(sweep_dir, start, trust)
    except OSError as error:
        if error.errno not in FULL:
            raise
        said = f"{sweep_dir.path} cannot be written: {error.strerror}."
        if not ledger.events(sweep_dir):
            ledger.remove(sweep_dir)
            raise DiskError(f"{said} Free space, or set output= to another disk. Nothing was started.") from error
        raise DiskError(f"{said} Free space, then go on with: regimen train -m resume={sweep_dir.path}") from error


def run_in(sweep_dir: SweepDir, start: Start, trust: Trust) -> int:
    """Own the folder of the sweep, and let Hydra choose its points."""
    held = lock.this_process()
    lock.acquire(sweep_dir.lockable, held, trust.take_over)
    try:
        sweep_dir.stop.unlink(missing_ok=True)
        sweep = Sweep(sweep_dir, start.config_dirs, same_in_all(start), trust)
        ledger.record_sweep(sweep_dir, start)
        say(f"sweep folder: {sweep_dir.path}")
        try:
            drive(sweep, [f"hydra.sweep.dir={json.dumps(str(sweep_dir.path), ensure_ascii=False)}", *start.overrides], start.config_dirs)
        finally:
            tell(sweep_dir, sweep)
    finally:
        lock.release(sweep_dir.lockable, held)
    return table.exit_code(list(sweep.results.values()))


def same_in_all(start: Start) -> frozenset[str]:
    """The keys that do not distinguish points: of halving, the rounds do."""
    fixed = fixed_keys(parsed(start.overrides))
    return fixed - {STEPS} if halves(start) else fixed


def halves(start: Start) -> bool:
    return f"{SWEEPER}=halving" in start.overrides


def drive(sweep: Sweep, given: list[str], config_dirs: Sequence[Path]) -> None:
    """Hydra's multirun; a sampler without a finished trial, or a request to stop, is an end and no error."""
    hydra = Hydra("regimen", config_loader(config_dirs))
    try:
        hydra.multirun(CONFIG_NAME, sweep, given, with_log_configuration=False)
    except KeyboardInterrupt:
        sweep.stopped = True
        say(f"The sweep has stopped. Go on with: regimen train -m resume={sweep.sweep_dir.path}")
    except HydraException as error:
        raise ConfigError(f"The sweep cannot go on: {str(error).splitlines()[0]}") from error
    except ValueError as error:
        if NO_TRIAL not in str(error):
            raise
        say("No point finished, so the sampler has no best point.")


def tell(sweep_dir: SweepDir, sweep: Sweep) -> None:
    """Show and keep what became of every point of the folder; a sweep that came to no point leaves no folder."""
    known = sweep.known()
    if not known:
        ledger.remove(sweep_dir)
        return
    results = currents([known[number] for number in sorted(known)])  # a point of an earlier grid may have no recorded end
    lines = table.table_lines(results)
    say("\n" + "\n".join(lines))
    passed = [str(one.point.number) for one in results if one.point.number not in sweep.results and one.state not in ("finished", "refused")]
    if passed and not sweep.stopped:
        of = f"{plural(len(passed), 'unfinished point')} of an earlier one ({', '.join(passed)})"
        text = f"This start did not come to {of}: its values leave them out."
        say("\n".join(wrapped(f"note: {text} To go on with them, give the earlier values again.")))
    found = summary_of(sweep_dir, results)
    ledger.write(sweep_dir.table, "\n".join(lines) + "\n")
    ledger.write(sweep_dir.summary, json.dumps(as_dict(found), indent=1) + "\n")
    ledger.write(sweep_dir.page, page(found))
    say(f"page: {sweep_dir.page}")
