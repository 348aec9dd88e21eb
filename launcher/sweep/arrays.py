"""`hydra/launcher=slurm`: the points of a batch as job arrays, one for each shape of job; the sweep returns when they are submitted.

Every point is judged first. A point has the run folder, the plan and the batch script that it would have alone; a task of an array does nothing but
become that script.
"""

import os
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from conf import journal
from launcher.errors import RegimenError, SubmissionError
from launcher.launch import execute, slurm_commands
from launcher.launch.batch_script import sbatch_argv
from launcher.launch.plan import LaunchPlan
from launcher.sweep import ledger, table
from launcher.sweep.judging import Judging
from launcher.sweep.ledger import SweepDir
from launcher.sweep.points import Batch, Permitted, Point, Result, one_line
from launcher.sweep.processes import planned
from launcher.sweep.schedule import Cluster
from launcher.sweep.session import Sweep
from launcher.words import plural

LARGEST_ARRAY = 1000  # slurm.conf(5): MaxArraySize is 1001 where the site states nothing, and the largest index is below it
OWN = ("--job-name=", "--output=")  # directives in which points of one shape differ


@dataclass(frozen=True)
class Task:
    """One task of an array."""

    permitted: Permitted
    plan: LaunchPlan

    @property
    def point(self) -> Point:
        return self.permitted.point


@dataclass(frozen=True)
class Array:
    tasks: tuple[Task, ...]
    script: Path
    listed: Path  # the run folder of each task, a line each


def submit_batch(sweep: Sweep, job_overrides: Sequence[Sequence[str]], throttle: int | None) -> None:
    """Judge every point, then submit the permitted ones."""
    judging, batch = Judging(sweep.config_dirs), Batch(sweep.known().values())
    decided = [sweep.decided(tuple(overrides), Cluster(), judging, batch) for overrides in job_overrides]
    permitted = [point for point in decided if isinstance(point, Permitted)]
    sweep.note([note for point in permitted for note in point.judged.notes])
    for result in submit(sweep.sweep_dir, permitted, throttle):
        sweep.results[result.point.number] = result


def directives_in(script: str) -> list[str]:
    return [line.removeprefix("#SBATCH ") for line in script.splitlines() if line.startswith("#SBATCH ")]


def script_of(plan: LaunchPlan) -> str:
    return dict(plan.files)[plan.run_dir.batch_script]


def shape(plan: LaunchPlan) -> tuple[object, ...]:
    """What tasks of one array have in common: their directives, and the environment that sbatch passes on."""
    command = plan.command
    shared = tuple(directive for directive in directives_in(script_of(plan)) if not directive.startswith(OWN))
    from_environment = tuple(pair for pair in command.forced if pair[0].startswith("SBATCH_"))
    return shared, command.defaults, command.withheld, from_environment


def grouped(tasks: Sequence[Task], sweep_dir: SweepDir, first: int) -> Iterator[Array]:
    """Arrays of tasks of one shape, in the order of the points. `first`: the number of the first one in the folder of the sweep."""
    shapes: dict[tuple[object, ...], list[Task]] = {}
    for task in tasks:
        shapes.setdefault(shape(task.plan), []).append(task)
    parts = (alike[at : at + LARGEST_ARRAY] for alike in shapes.values() for at in range(0, len(alike), LARGEST_ARRAY))
    for number, part in enumerate(parts, start=first):
        named = sweep_dir.path / f"array-{number}"
        yield Array(tuple(part), named.with_suffix(".sbatch"), named.with_suffix(".txt"))


def array_script(array: Array, throttle: int | None) -> str:
    """The text of an array. A task gives its script the number that Slurm's commands know it by."""
    shared = [directive for directive in directives_in(script_of(array.tasks[0].plan)) if not directive.startswith(OWN)]
    folder = array.script.parent
    indices = f"--array=0-{len(array.tasks) - 1}{f'%{throttle}' if throttle else ''}"
    own = [f"--job-name={folder.name}", f"--output={array.script.with_suffix('.log')}", indices]
    lines = [f"#SBATCH {directive}" for directive in [*own, *shared]]
    listed = shlex.quote(str(array.listed))
    return "\n".join([
        "#!/bin/bash",
        *lines,
        "",
        "# Written by regimen: each task becomes the batch script of its own run.",
        f'run_dir=$(sed -n "$((SLURM_ARRAY_TASK_ID + 1))p" {listed})',
        'task=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID',
        'exec bash "$run_dir/train.sbatch" "$task" >>"$run_dir/log/slurm-$task.txt" 2>&1',
        "",
    ])  # fmt: skip


def submit(sweep_dir: SweepDir, permitted: Sequence[Permitted], throttle: int | None) -> Iterator[Result]:
    """Submit the permitted points; what is known of each afterwards, as the ledger has it."""
    tasks: list[Task] = []
    for point in permitted:
        try:
            tasks.append(Task(point, planned(point, os.environ)))
        except RegimenError as error:
            yield failed(sweep_dir, point.point, error)
    first = len(list(sweep_dir.path.glob("array-*.sbatch"))) + 1
    for array in grouped(tasks, sweep_dir, first):
        try:
            job = submitted(array, throttle)
        except SubmissionError as error:
            yield from (refused_by_slurm(sweep_dir, task, error) for task in array.tasks)
            continue
        for index, task in enumerate(array.tasks):
            journal.record(task.plan.run_dir, journal.Submitted(f"{job}_{index}", os.environ.get(journal.VIA)))
            ledger.record(sweep_dir, ledger.BEGUN, **ledger.facts_of(task.point, task.plan.run_dir), gpus=[])
            yield Result(task.point, "running", run_dir=task.plan.run_dir)
        print(f"submitted {plural(len(array.tasks), 'point')} as Slurm job array {job}: {array.script}", flush=True)


def submitted(array: Array, throttle: int | None) -> str:
    """
    Raises:
        SubmissionError: with the message of sbatch.
        DiskError: where the folder of the sweep cannot be written.
    """
    ledger.write(array.listed, "".join(f"{task.plan.run_dir.path}\n" for task in array.tasks))
    ledger.write(array.script, array_script(array, throttle))
    environment = array.tasks[0].plan.command.environment(os.environ)
    return slurm_commands.submit(sbatch_argv(array.script), environment)


def refused_by_slurm(sweep_dir: SweepDir, task: Task, error: SubmissionError) -> Result:
    """A folder that was made for it alone is removed; one that the point goes on in stays."""
    again = task.permitted.run_dir is not None
    if not again:
        execute.remove_run_dir(task.plan.run_dir.path)
    return failed(sweep_dir, task.point, error, task)


def failed(sweep_dir: SweepDir, point: Point, error: RegimenError, task: Task | None = None) -> Result:
    kept = task.permitted.run_dir if task is not None else None
    result = replace(Result(point, "refused", run_dir=kept, cause=one_line(str(error))), refusal=error.exit_code)
    ledger.record_result(sweep_dir, result)
    print(table.ended_line(result), flush=True)
    return result
