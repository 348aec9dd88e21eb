"""`plan -m`: every point of a grid judged on the node that it names, and nothing started."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.types import RunMode
from omegaconf import DictConfig

from conf.exit_codes import REFUSED
from conf.run_dir import RunDir
from conf.schema import Composed
from conf.words import aligned
from launcher.composition.compose import load_config
from launcher.composition.recorded import output_of, split_resume
from launcher.errors import ConfigError
from launcher.launch.foreign import NO_TRUST
from launcher.sweep import ledger, table
from launcher.sweep.find import named_sweep
from launcher.sweep.going_on import judge_again, what_is_left
from launcher.sweep.grid import grid_points, refuse_without_effect
from launcher.sweep.halving import Points, checked, most_steps, steps_of_rounds, with_steps
from launcher.sweep.judging import Judging
from launcher.sweep.ledger import Start
from launcher.sweep.multirun import checked_start, halves, later_start, same_in_all, submits_jobs
from launcher.sweep.points import Batch, Permitted, Point, Result, judge_described
from launcher.sweep.schedule import Cluster, Resources
from launcher.sweep.session import limits_of, places_of, resources_here, say, slots_of
from launcher.words import duration, gib, plural

HEAD = ("point", "overrides", "verdict", "need", "to spare", "time", "")


@dataclass(frozen=True)
class Row:
    """A point of the table; `found`: its verdict, or its result where nothing is left to do."""

    point: Point
    found: Permitted | Result
    again: bool  # it goes on in the folder of an earlier start

    @property
    def verdict(self) -> str:
        if isinstance(self.found, Result):
            return self.found.state
        return "goes on" if self.again else "permitted"


def show_points(overrides: Sequence[str], config_dirs: Sequence[Path], as_json: bool) -> int:
    """Print the verdict of every point; 0 where none is refused, else the code of the refusals, or 3 where they have several.

    Raises:
        ConfigError: as a sweep, and for a sweeper that chooses its points as it goes.
    """
    rows = judged_rows(overrides, config_dirs)
    if as_json:
        say(json.dumps([as_dict(row) for row in rows], indent=1))
    else:
        notes = dict.fromkeys(note for row in rows if isinstance(row.found, Permitted) for note in row.found.judged.notes)
        counts = Counter(row.verdict for row in rows)
        counted = f"{plural(len(rows), 'point')}: " + ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
        say("\n".join([*aligned([HEAD, *map(cells, rows)]), "", counted, *(f"note: {note}" for note in notes)]))
    codes = {row.found.refusal for row in rows if isinstance(row.found, Result) and row.found.state == "refused"}
    return 0 if not codes else codes.pop() if len(codes) == 1 else REFUSED


def judged_rows(overrides: Sequence[str], config_dirs: Sequence[Path]) -> list[Row]:
    name, others = split_resume(overrides)
    refuse_without_effect(others)
    sweep_dir = None if name is None else named_sweep(name, output_of(others))
    start = checked_start(others, config_dirs) if sweep_dir is None else later_start(sweep_dir, others, config_dirs, NO_TRUST)
    points = grid_points(without_halving(start), start.config_dirs)
    if points is None:
        raise ConfigError("plan -m shows every point of a grid, and this hydra/sweeper chooses its points as it goes. Leave it out.")
    before = {} if sweep_dir is None else {result.point.number: result for result in ledger.results(sweep_dir)}
    settings = load_config(start.overrides, start.config_dirs, RunMode.MULTIRUN)
    fixed, batch, judging, rows = same_in_all(start), Batch(before.values()), Judging(start.config_dirs), []
    for point in of_rounds(points, start, settings, before.values()) if halves(start) else points:
        one = batch.identified(tuple(point), judging, fixed)
        if one.twin is not None:
            rows.append(Row(one.point, Result(one.point, "the same run"), False))
            continue
        left = None if one.before is None else what_is_left(one.before)
        resources = resources_of(one.described, settings)
        if isinstance(left, Result):
            found: Permitted | Result = left
        elif isinstance(left, RunDir):
            found = judge_again(one.point, left, resources, NO_TRUST)
        else:
            found = judge_described(one.point, one.described, resources, judging)
        rows.append(Row(one.point, found, isinstance(left, RunDir)))
    return rows


def without_halving(start: Start) -> list[str]:
    """The overrides of the grid whose points its first round trains."""
    return [text for text in start.overrides if not halves(start) or not text.startswith(("hydra/sweeper=", "hydra.sweeper."))]


def of_rounds(points: Points, start: Start, settings: DictConfig, before: Iterable[Result]) -> list[tuple[str, ...]]:
    """The points of a halving sweep: those of its first round, and those that later rounds have chosen by now. Nobody knows which others they will
    choose; one point alone is trained once."""
    rounds, factor = checked(settings.hydra.sweeper.rounds, settings.hydra.sweeper.factor)
    most = most_steps([start.overrides])
    first = [tuple(point) for point in with_steps(points, most if len(points) == 1 else steps_of_rounds(most, rounds, factor)[0])]
    return list(dict.fromkeys([*first, *(result.point.overrides for result in before)]))


def resources_of(described: object, settings: DictConfig) -> Resources | Cluster:
    """What the sweep would have on the node of the point: as many GPUs as it states, or those of this machine where it is looked up."""
    if submits_jobs(settings):
        return Cluster()
    pool = settings.hydra.launcher
    gpus, slots, per_gpu = (pool.get(key, default) for key, default in (("gpus", None), ("slots", 1), ("per_gpu", 1)))
    if "ahead" in pool:  # another launcher has settings of its own
        limits_of(*(pool[key] for key in ("max_jobs", "max_failures", "ahead")))
    if not isinstance(described, Composed) or described.node.auto or described.node.gpus is None:
        return resources_here(gpus, slots, per_gpu)
    there, memory = described.node.gpus, described.node.gpu_memory
    if gpus is not None and not 0 <= gpus <= there:
        raise ConfigError(f"hydra.launcher.gpus={gpus}, but node={described.node.name} has {there} GPUs. Leave it out to use all.")
    names = tuple(map(str, range(there if gpus is None else gpus)))
    return Resources(names, slots_of(slots), places_of(per_gpu), 0 if memory is None else memory)


def cells(row: Row) -> tuple[str, ...]:
    point, found = row.point, row.found
    if isinstance(found, Result):
        return (str(point.number), table.label(point), row.verdict, "", "", "", table.why(found))
    seconds = found.judged.expectations.seconds
    time = "" if seconds is None else duration(seconds)
    verdict = found.judged.verdict
    chosen = found.judged.fit[0] if found.judged.fit else ""
    return (str(point.number), table.label(point), row.verdict, gib(need(found)), gib(verdict.headroom), time, chosen)


def need(permitted: Permitted) -> int:
    """Bytes of one GPU, or of the host memory where there is none."""
    judged = permitted.judged
    return judged.estimate.required if judged.run.node.gpus else judged.estimate.host


def as_dict(row: Row) -> dict[str, Any]:
    """For programs; sizes are bytes, times seconds."""
    point, found = row.point, row.found
    told: dict[str, Any] = {"point": point.number, "overrides": list(point.overrides), "varied": list(point.varied), "verdict": row.verdict}
    if isinstance(found, Result):
        return told | {"cause": found.cause, "fits": list(found.fits), "exit_code": found.refusal if found.state == "refused" else None}
    judged = found.judged
    expected = {"seconds": judged.expectations.seconds, "steps": judged.expectations.steps}
    return told | {"need": need(found), "headroom": judged.verdict.headroom, "gpus": found.gpus, **expected, "fit": list(judged.fit)}
