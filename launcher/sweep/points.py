"""One point of a sweep: composed, placed on its share of the machine and judged."""

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

from conf.run_dir import RunDir
from conf.schema import Composed, Node
from launcher.composition.compose import compose
from launcher.composition.given import given_values
from launcher.errors import ConfigError, GateRefused, RegimenError
from launcher.facts.node import stated_or_host_memory
from launcher.gate.judge import Judged, with_unread
from launcher.gate.verdict import Verdict
from launcher.launch.after import with_run_folder
from launcher.sweep.fingerprint import fingerprint_of
from launcher.sweep.judging import Judging
from launcher.sweep.schedule import Cluster, Resources
from launcher.words import plural

LONGEST_LABEL = 60  # characters; file names end at 255 bytes, and a run's name is read by people


@dataclass(frozen=True)
class Point:
    number: int  # from 1
    overrides: tuple[str, ...]
    varied: tuple[str, ...]  # those that distinguish this point from the others
    fingerprint: str = ""  # of its configuration: by it a later start of the sweep knows the point again


@dataclass(frozen=True)
class Permitted:
    point: Point
    judged: Judged
    gpus: int  # 0: it runs on the CPU
    run_dir: RunDir | None = None  # where it goes on; None: it begins in a folder of its own
    take_over: bool = False  # the user knows that an owner of that folder who cannot be judged from here has ended
    shares: int = 0  # bytes of its one GPU, which other points may share; 0: it has its GPUs alone


@dataclass(frozen=True)
class Result:
    point: Point
    state: str  # finished | refused | failed | stopped | not started; of an earlier start also running, where no end was recorded
    objective: float | None = None  # the evaluation loss of the final model, else the last loss; finite
    measure: str = ""  # which of the two
    run_dir: RunDir | None = None
    cause: str = ""
    seconds: float = 0.0
    refusal: int = GateRefused.exit_code  # of a refused point: what it would have ended with outside of a sweep
    fits: tuple[str, ...] = ()  # of a point that does not fit: the cheapest change, appended to its overrides, with which it would


def composed_or_refusal(overrides: Sequence[str], config_dirs: Sequence[Path]) -> Composed | RegimenError:
    """The run that a point describes, or what is wrong with it."""
    try:
        return compose(overrides, config_dirs)
    except RegimenError as error:
        return error


@dataclass(frozen=True)
class Identified:
    point: Point
    described: Composed | RegimenError
    before: Result | None  # of a point that the sweep came to before
    twin: Point | None = None  # of the same batch, with the same configuration: one run answers for both


class Batch:
    """The points of one batch so far, and those that the sweep came to before; a point is known again by the fingerprint of its configuration."""

    def __init__(self, known: Iterable[Result]) -> None:
        self.before: dict[str, Result] = {}
        self.taken: dict[str, Point] = {}
        self.highest = 0
        for result in known:
            self.before.setdefault(result.point.fingerprint, result)
            self.highest = max(self.highest, result.point.number)

    def identified(self, overrides: tuple[str, ...], judging: Judging, fixed: frozenset[str]) -> Identified:
        """Which point this is, one of before or a new one, which is of this batch from now on; or the twin of one of this batch."""
        described = judging.composer.composed_or_refusal(overrides)
        fingerprint = fingerprint_of(described, overrides)
        varied = tuple(override for override in overrides if override.split("=", 1)[0] not in fixed)
        twin = self.taken.get(fingerprint)
        if twin is not None:
            return Identified(replace(twin, overrides=overrides, varied=varied), described, None, twin)
        before = self.before.get(fingerprint)
        point = Point(self.highest + 1 if before is None else before.point.number, overrides, varied, fingerprint)
        self.taken[fingerprint] = point
        self.highest = max(self.highest, point.number)
        return Identified(point, described, before)


def as_estimated(judged: Judged) -> Judged:
    return judged


def judge_point(
    point: Point, config_dirs: Sequence[Path], resources: Resources, decide: Callable[[Judged], Judged] = as_estimated
) -> Permitted | Result:
    """The point ready to start, or why it may not. `decide`: what has the last word on the verdict."""
    judging = Judging(config_dirs)
    return judge_described(point, judging.composer.composed_or_refusal(point.overrides), resources, judging, decide)


def judge_described(
    point: Point,
    described: Composed | RegimenError,
    resources: Resources | Cluster,
    judging: Judging,
    decide: Callable[[Judged], Judged] = as_estimated,
) -> Permitted | Result:
    if isinstance(described, RegimenError):
        return refused(point, described)
    try:
        run = with_run_folder(on_its_share(described, resources))
        judged = judging.judge(replace(run, name=named(run.name, point.varied)))
        judged = decide(with_unread(judged, run, given_values(point.overrides, judging.config_dirs)))
    except RegimenError as error:
        return refused(point, error)
    found = permitted_or_refused(point, judged)
    if isinstance(found, Result):
        return replace(found, fits=judging.what_fits(judged))
    return sharing(found, resources)


def sharing(permitted: Permitted, resources: Resources | Cluster) -> Permitted:
    """With the bytes that it needs of a GPU that others share: all that torch reserves, since no process gives back its cache for another."""
    if isinstance(resources, Cluster) or resources.places == 1 or permitted.gpus != 1 or not permitted.judged.verdict.checks:
        return permitted
    estimate, margin = permitted.judged.estimate, permitted.judged.run.gate.margin
    needed = int(max(estimate.required, estimate.nvml) * (1 + margin))
    return replace(permitted, shares=needed) if needed <= resources.bytes else permitted


def refused(point: Point, error: RegimenError, run_dir: RunDir | None = None) -> Result:
    return Result(point, "refused", run_dir=run_dir, cause=one_line(str(error)), refusal=error.exit_code)


def permitted_or_refused(point: Point, judged: Judged, run_dir: RunDir | None = None) -> Permitted | Result:
    if not judged.verdict.permitted:
        return Result(point, "refused", run_dir=run_dir, cause=failed_check(judged.verdict))
    return Permitted(point, judged, judged.run.node.gpus, run_dir)


def one_line(message: str) -> str:
    """The first line of a message, with the second where the first only announces it."""
    lines = [line.strip() for line in message.splitlines() if line.strip()] or [""]
    return " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]


def failed_check(verdict: Verdict) -> str:
    check = next(check for check in verdict.checks if check.binding and not check.passed)
    return f"{check.rule}: {check.sentence}"


def on_its_share(run: Composed, resources: Resources | Cluster) -> Composed:
    """The run on as many GPUs as it has ranks, and with their share of the host memory: other points use the rest.

    Raises:
        ConfigError: for what one machine with these resources cannot run.
    """
    if isinstance(resources, Cluster):
        refuse_unsubmittable(run)
        return run
    refuse_unshareable(run)
    wanted = gpus_wanted(run, len(resources.gpus))
    refuse_wider(wanted, resources)
    share = Fraction(wanted, len(resources.gpus)) if wanted else Fraction(1, resources.slots)
    share /= resources.places if wanted == 1 else 1
    return replace(run, node=replace(run.node, gpus=wanted, host_memory=shared_memory(run.node, share)))


def refuse_wider(wanted: int, resources: Resources) -> None:
    """Raises ConfigError for more GPUs than the sweep or the queue has."""
    if wanted > len(resources.gpus):
        raise ConfigError(
            f"This run needs {plural(wanted, 'GPU')}, and {len(resources.gpus)} may be used here. "
            "Lower cluster.ranks_per_node, or start it on a larger machine."
        )


def refuse_unshareable(run: Composed) -> None:
    if run.cluster.name != "local" or run.cluster.nodes > 1:
        raise ConfigError(
            f"cluster={run.cluster.name} with {plural(run.cluster.nodes, 'node')} is not possible: the points share this machine. "
            "Use cluster=local, or submit them with cluster=slurm hydra/launcher=slurm."
        )
    if run.backend.port:
        raise ConfigError(
            f"backend.port={run.backend.port} is not possible, because points that run at the same time cannot share a port. Leave backend.port at 0."
        )


def refuse_unsubmittable(run: Composed) -> None:
    """Raises ConfigError for a point that would start on this machine, where the sweep submits jobs."""
    if run.cluster.name != "slurm":
        raise ConfigError(f"cluster={run.cluster.name} is not possible with hydra/launcher=slurm, which submits every point. Use cluster=slurm.")


def gpus_wanted(run: Composed, there: int) -> int:
    """One GPU a rank, all of the node where no ranks are given; more ranks than the node has GPUs are refused when the run is settled."""
    on_node = there if run.node.gpus is None else run.node.gpus
    wanted = on_node if run.cluster.ranks_per_node is None else run.cluster.ranks_per_node
    return min(wanted, on_node)


def shared_memory(node: Node, share: Fraction) -> int | None:
    """Bytes of host memory; None where the node's memory is not judged, or is all the point's."""
    named_without_memory = node.host_memory is None and not node.auto and node.gpus != 0
    if share == 1 or named_without_memory:
        return node.host_memory
    memory, _ = stated_or_host_memory(node, Path("/"))
    return int(memory * share)


def named(name: str, varied: Sequence[str]) -> str:
    """The run's name with what is special about the point; short, and of characters that every file system accepts."""
    parts = [override.split("=", 1) for override in varied if not override.startswith("name=")]
    label = "-".join(f"{key.rsplit('.', 1)[-1]}_{safe(value)}" for key, value in parts)
    if len(label) > LONGEST_LABEL:
        label = f"{label[: LONGEST_LABEL - 9]}-{hashlib.sha256(label.encode()).hexdigest()[:8]}"
    return f"{name}-{label}" if label else name


def safe(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9.+-]+", "_", text).strip("_")
