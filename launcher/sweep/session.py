"""One sweep: judges batches of points, has them run, and keeps what became of them."""

from collections.abc import Sequence
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from launcher.errors import ConfigError
from launcher.facts.node import visible_gpus
from launcher.sweep import ledger, table
from launcher.sweep.ledger import SweepDir
from launcher.sweep.points import Permitted, Point, Result, judge_point
from launcher.sweep.pool import Pool
from launcher.sweep.processes import Running
from launcher.sweep.schedule import Resources
from launcher.words import wrapped


class Sweep:
    """What Hydra carries to its launcher as the task function: gpu_pool gives it whole batches, Hydra's basic launcher calls it point by point."""

    def __init__(self, sweep_dir: SweepDir, config_dirs: Sequence[Path], fixed: frozenset[str]) -> None:
        self.sweep_dir, self.config_dirs, self.fixed = sweep_dir, config_dirs, fixed
        self.results: list[Result] = []
        self.noted: set[str] = set()

    def __call__(self, config: DictConfig) -> float | None:
        hydra = HydraConfig.get()
        return self.run_batch([hydra.overrides.task], hydra.job.num + 1, resources_here(None, 1))[0]

    def run_batch(self, job_overrides: Sequence[Sequence[str]], first: int, resources: Resources) -> list[float | None]:
        """Judge every point, then run the permitted ones; the objective of each, None where there is none.

        Raises:
            KeyboardInterrupt: when it was asked to stop, so that no sampler goes on.
        """
        points = [self.point(first + index, overrides) for index, overrides in enumerate(job_overrides)]
        judged = [judge_point(point, self.config_dirs, resources) for point in points]
        for refused in judged:
            if isinstance(refused, Result):
                self.ended(refused)
        permitted = [point for point in judged if isinstance(point, Permitted)]
        self.note([note for point in permitted for note in point.judged.notes])
        pool = Pool(resources, lambda running: self.started(running, resources), self.ended, say)
        if not pool.run(permitted):
            raise KeyboardInterrupt
        objectives = {result.point.number: result.objective for result in self.results}
        return [objectives[point.number] for point in points]

    def note(self, notes: Sequence[str]) -> None:
        """Say each once, however many points it is about."""
        for note in notes:
            if note not in self.noted:
                self.noted.add(note)
                say("\n".join(wrapped(f"note: {note}")))

    def point(self, number: int, overrides: Sequence[str]) -> Point:
        varied = tuple(override for override in overrides if override.split("=", 1)[0] not in self.fixed)
        return Point(number, tuple(overrides), varied)

    def started(self, running: Running, resources: Resources) -> None:
        ledger.record_start(self.sweep_dir, running)
        say(table.started_line(running, resources.gpus))

    def ended(self, result: Result) -> None:
        self.results.append(result)
        ledger.record_result(self.sweep_dir, result)
        say(table.ended_line(result))


def say(text: str) -> None:
    print(text, flush=True)


def resources_here(gpus: int | None, slots: int) -> Resources:
    """The GPUs of this machine that the sweep may use, by their number in PCI order: DeepSpeed reads CUDA_VISIBLE_DEVICES as integers.

    Raises:
        ConfigError: when more are asked for than are visible.
    """
    visible, _ = visible_gpus()
    if gpus is not None and not 0 <= gpus <= len(visible):
        raise ConfigError(f"hydra.launcher.gpus={gpus}, but {len(visible)} GPUs are visible here. Leave it out to use all.")
    if slots < 1:
        raise ConfigError(f"hydra.launcher.slots={slots} is out of range. It must be at least 1.")
    return Resources(tuple(gpu.uuid if gpu.mig else str(gpu.index) for gpu in visible[:gpus]), slots)
