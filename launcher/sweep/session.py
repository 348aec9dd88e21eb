"""One start of a sweep: judges batches of points, has them run, and keeps what became of them."""

from collections.abc import Sequence
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from launcher.errors import ConfigError
from launcher.facts.node import visible_gpus
from launcher.launch.foreign import NO_TRUST, Trust
from launcher.sweep import ledger, table
from launcher.sweep.display import Display, Lines, display_for
from launcher.sweep.going_on import judge_again, what_is_left
from launcher.sweep.judging import Judging
from launcher.sweep.ledger import SweepDir
from launcher.sweep.points import Batch, Permitted, Point, Result, judge_described
from launcher.sweep.pool import Limits, Pool
from launcher.sweep.processes import Running
from launcher.sweep.schedule import Cluster, Resources
from launcher.words import plural, wrapped


class Sweep:
    """What Hydra carries to its launcher as the task function: gpu_pool gives it whole batches, Hydra's basic launcher calls it point by point."""

    def __init__(self, sweep_dir: SweepDir, config_dirs: Sequence[Path], fixed: frozenset[str], trust: Trust = NO_TRUST) -> None:
        self.sweep_dir, self.config_dirs, self.fixed, self.trust = sweep_dir, config_dirs, fixed, trust
        self.before = {result.point.number: result for result in ledger.results(sweep_dir)}
        self.results: dict[int, Result] = {}  # of the points that this start came to, by their numbers
        self.gpus: tuple[str, ...] = ()
        self.noted: set[str] = set()
        self.stopped = False  # before it had come to all of its points
        self.display: Display = Lines()

    def __call__(self, config: DictConfig) -> float | None:
        return self.run_batch([HydraConfig.get().overrides.task], resources_here(None, 1))[0]

    def run_batch(self, job_overrides: Sequence[Sequence[str]], resources: Resources, limits: Limits = Limits()) -> list[float | None]:  # noqa: B008
        """Judge every point, then run the permitted ones; the objective of each, None where there is none.

        Raises:
            KeyboardInterrupt: when it was asked to stop or too many points failed, so that no sampler goes on.
        """
        self.gpus, batch, judging = resources.gpus, Batch(self.known().values()), Judging(self.config_dirs)
        decided = [self.decided(tuple(overrides), resources, judging, batch) for overrides in job_overrides]
        permitted = [found for found in decided if isinstance(found, Permitted)]
        self.note([note for point in permitted for note in point.judged.notes])
        failed = sum(1 for result in self.results.values() if result.state == "failed" and result != self.before.get(result.point.number))
        with display_for(resources.gpus) as self.display:
            end = Pool(resources, self, limits, failed).run(permitted)
        self.display = Lines()
        if end == "too many failures":
            self.say(f"No other point starts, because {plural(limits.failures or 0, 'point')} failed (hydra.launcher.max_failures).")
        if end != "done":
            raise KeyboardInterrupt
        return [self.results[found.number if isinstance(found, Point) else found.point.number].objective for found in decided]

    def decided(self, overrides: tuple[str, ...], resources: Resources | Cluster, judging: Judging, batch: Batch) -> Permitted | Result | Point:
        """What happens to a point: it begins, it goes on, its result is known, or it is another one of its batch, whose result it has."""
        one = batch.identified(overrides, judging, self.fixed)
        if one.twin is not None:
            self.say(table.twin_line(one.point, one.twin))
            return one.twin
        point, left = one.point, None if one.before is None else what_is_left(one.before)
        if isinstance(left, Result):
            self.keep(left)
            return left
        found = judge_again(point, left, resources, self.trust) if left is not None else judge_described(point, one.described, resources, judging)
        if isinstance(found, Result):
            self.ended(found)
        return found

    def known(self) -> dict[int, Result]:
        return {**self.before, **self.results}

    def keep(self, result: Result) -> None:
        """A point whose result is known. The ledger gets what it does not hold yet, as where the sweep died before a point had ended."""
        number = result.point.number
        if result != self.known().get(number):
            ledger.record_result(self.sweep_dir, result)
        self.say(table.known_line(result))
        self.results[number] = result

    def note(self, notes: Sequence[str]) -> None:
        """Say each once, however many points it is about."""
        for note in notes:
            if note not in self.noted:
                self.noted.add(note)
                self.say("\n".join(wrapped(f"note: {note}")))

    def started(self, running: Running) -> None:
        ledger.record_start(self.sweep_dir, running)
        self.say(table.started_line(running, self.gpus))

    def ended(self, result: Result) -> None:
        self.results[result.point.number] = result
        ledger.record_result(self.sweep_dir, result)
        self.say(table.ended_line(result))

    def stop_asked(self) -> bool:
        return self.sweep_dir.stop.exists()

    def say(self, text: str) -> None:
        self.display.say(text)

    def update(self, running: Sequence[Running], waiting: int) -> None:
        self.display.update(running, waiting)


def say(text: str) -> None:
    print(text, flush=True)


def limits_of(max_jobs: object, max_failures: object, ahead: object) -> Limits:
    """The settings of gpu_pool as they were given.

    Raises:
        ConfigError: for what is neither null nor a whole number of at least 1; for what is no number of seconds.
    """
    if not isinstance(ahead, (int, float)) or isinstance(ahead, bool) or not 0 <= ahead < float("inf"):
        raise ConfigError(f"hydra.launcher.ahead={ahead} is not a number of seconds. Give 0 or more; 0 starts no point before its GPUs are free.")
    return Limits(count_of("max_jobs", max_jobs), count_of("max_failures", max_failures), float(ahead))


def count_of(key: str, value: object) -> int | None:
    if value is None:
        return None
    if type(value) is not int or value < 1:
        raise ConfigError(f"hydra.launcher.{key}={value} is out of range. It must be a whole number of at least 1; null means no limit.")
    return value


def resources_here(gpus: int | None, slots: object, per_gpu: object = 1) -> Resources:
    """The GPUs of this machine that the sweep may use, by their number in PCI order: DeepSpeed reads CUDA_VISIBLE_DEVICES as integers.

    Raises:
        ConfigError: when more are asked for than are visible; as slots_of and places_of.
    """
    visible, _ = visible_gpus()
    if gpus is not None and not 0 <= gpus <= len(visible):
        raise ConfigError(f"hydra.launcher.gpus={gpus}, but {len(visible)} GPUs are visible here. Leave it out to use all.")
    names = tuple(gpu.uuid if gpu.mig else str(gpu.index) for gpu in visible[:gpus])
    return Resources(names, slots_of(slots), places_of(per_gpu), min((gpu.free for gpu in visible[:gpus]), default=0))


def slots_of(slots: object) -> int:
    return at_least_one("slots", slots)


def places_of(per_gpu: object) -> int:
    return at_least_one("per_gpu", per_gpu)


def at_least_one(key: str, value: object) -> int:
    """
    Raises:
        ConfigError: for what is not a whole number of at least 1.
    """
    if type(value) is not int or value < 1:
        raise ConfigError(f"hydra.launcher.{key}={value} is out of range. It must be a whole number of at least 1.")
    return value
