"""The names under which Hydra finds our launcher and sweeper; what they do is in launcher/sweep, imported when they are used."""

from collections.abc import Sequence

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class GpuPool(Launcher):
    """Judges all points of a batch, then runs the permitted ones over the GPUs of this machine."""

    def __init__(self, gpus: int | None, slots: int, max_jobs: int | None, max_failures: int | None, ahead: float, per_gpu: int) -> None:
        self.gpus, self.slots, self.max_jobs, self.max_failures, self.ahead, self.per_gpu = gpus, slots, max_jobs, max_failures, ahead, per_gpu

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.task_function = task_function

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from launcher.sweep.session import Sweep, limits_of, resources_here

        sweep = self.task_function
        assert isinstance(sweep, Sweep), "launcher/sweep/multirun.py hands Hydra a Sweep"
        limits = limits_of(self.max_jobs, self.max_failures, self.ahead)
        objectives = sweep.run_batch(job_overrides, resources_here(self.gpus, self.slots, self.per_gpu), limits)
        return [job_return(overrides, objective) for overrides, objective in zip(job_overrides, objectives, strict=True)]


class SlurmArrays(Launcher):
    """Judges all points, then submits the permitted ones as job arrays."""

    def __init__(self, throttle: int | None) -> None:
        self.throttle = throttle

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.task_function = task_function

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from launcher.sweep.arrays import submit_batch
        from launcher.sweep.session import Sweep

        sweep = self.task_function
        assert isinstance(sweep, Sweep), "launcher/sweep/multirun.py hands Hydra a Sweep"
        submit_batch(sweep, job_overrides, self.throttle)
        return [job_return(overrides, None) for overrides in job_overrides]


def job_return(overrides: Sequence[str], objective: float | None) -> JobReturn:
    """COMPLETED also without an objective, because FAILED would end the sweep. Optuna counts None as a failed trial."""
    done = JobReturn(overrides=[*overrides], status=JobStatus.COMPLETED)
    done.return_value = objective
    return done


class Grid(Sweeper):
    """Hydra's basic sweeper without its copy of the overrides on disk."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        from hydra.core.plugins import Plugins

        self.hydra_context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(hydra_context=hydra_context, task_function=task_function, config=config)

    def points_of(self, arguments: list[str]) -> list[list[str]]:
        from hydra.core.override_parser.overrides_parser import OverridesParser

        from launcher.sweep.grid import combinations

        assert self.hydra_context is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        return combinations(parser.parse_overrides(arguments))

    def sweep(self, arguments: list[str]) -> list[object]:
        assert self.launcher is not None
        returns = self.launcher.launch(self.points_of(arguments), initial_job_idx=0)
        return [done.return_value for done in returns]  # reading the value raises what another launcher's job raised


class Halving(Grid):
    """Successive halving over the same combinations."""

    def __init__(self, rounds: int, factor: int) -> None:
        self.rounds, self.factor = rounds, factor

    def sweep(self, arguments: list[str]) -> list[object]:
        from launcher.sweep.halving import checked, run_rounds

        def train(points: Sequence[Sequence[str]]) -> list[float | None]:
            return [done.return_value for done in self.launcher.launch(points, initial_job_idx=0)]

        rounds, factor = checked(self.rounds, self.factor)
        return [*run_rounds(self.points_of(arguments), rounds, factor, train)]
