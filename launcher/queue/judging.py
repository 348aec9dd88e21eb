"""A run of the queue judged: when it is added, on this machine as if nothing else ran there, and when it begins, on the GPUs that it gets."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from conf.run_dir import RunDir
from conf.schema import Composed
from launcher.composition.compose import compose
from launcher.composition.recorded import PREFIX, output_of, recorded_run, resumed_run, split_resume
from launcher.composition.reshaping import reshaping_lines
from launcher.errors import ConfigError
from launcher.facts.node import settle_node
from launcher.gate.judge import Judged, judge_recorded, judge_run
from launcher.launch import batch_job, lock, rewind, status
from launcher.launch.canary import after_canary, is_needed
from launcher.launch.foreign import NO_TRUST, refuse_foreign
from launcher.launch.lengthen import changed_length, lengthening, lengthening_lines, standing
from launcher.sweep.going_on import judge_again
from launcher.sweep.points import Permitted, Point, Result, judge_point, on_its_share
from launcher.sweep.schedule import Resources


def settled(overrides: Sequence[str]) -> tuple[str, ...]:
    """With the absolute folder of the run to go on with, since `last` and a name may mean another run when its turn comes.

    Raises:
        ConfigError: where there is no such run.
    """
    name, others = split_resume(overrides)
    return tuple(overrides) if name is None else (f"{PREFIX}{named(name, others).path}", *others)


def judged_for_later(overrides: Sequence[str], config_dirs: Sequence[Path], resources: Resources) -> Judged:
    """On its share of this machine; what other runs hold of the GPUs now does not count. Its notes say what changes in a run that goes on.

    Raises:
        ConfigError: for what cannot be composed, and for more than this machine has.
        RegimenError: as going_on, for a run to go on with.
    """
    name, others = split_resume(overrides)
    if name is None:
        return with_canary_to_come(judge_run(as_if_alone(on_its_share(on_this_machine(compose(overrides, config_dirs)), resources))))
    run_dir = named(name, others)
    run, before = going_on(run_dir, others), recorded_run(run_dir)
    decided = judge_recorded(as_if_alone(on_its_share(on_this_machine(run), resources)))
    length = lengthening(run_dir, before, run)
    notes = [*(lengthening_lines(length, run) if length else []), *reshaping_lines(before, decided.run, saved=standing(run_dir, run) > 0)]
    return with_canary_to_come(replace(decided, notes=(*notes, *decided.notes)))


def with_canary_to_come(decided: Judged) -> Judged:
    """With a note where a canary will decide: it tries its steps when the run begins, on the GPUs that the run gets."""
    note = "gate.canary=true: the estimate alone cannot decide, so the run waits, and a canary decides when its turn comes."
    return replace(decided, notes=(*decided.notes, note)) if is_needed(decided) else decided


def judged_now(overrides: Sequence[str], config_dirs: Sequence[Path], resources: Resources) -> Permitted | Result:
    """The run ready to start, or why it may not. Where the estimate cannot decide and the run asks for it, a canary does, in this process.

    Raises:
        RegimenError: as going_on, for a run to go on with.
    """
    name, others = split_resume(overrides)
    if name is None:
        return judge_point(Point(1, tuple(overrides), ()), config_dirs, resources, after_canary)
    run_dir = named(name, others)
    going_on(run_dir, others)
    return judge_again(Point(1, tuple(others), ()), run_dir, resources, NO_TRUST, others, after_canary)


def named(name: str, others: Sequence[str]) -> RunDir:
    """Its path is absolute."""
    return RunDir(status.named_run(name, output_of(others)).path.absolute())


def going_on(run_dir: RunDir, others: Sequence[str]) -> Composed:
    """The recorded run with what is given for this start. What `train resume=` would not start is refused; nothing in the folder is touched.

    Raises:
        ConfigError: for a key that differs from the record, a run with nothing left to do, an unusable checkpoint and an impossible length.
        Unsafe, RunLocked: where another user owns the folder, or somebody works in it.
    """
    refuse_foreign(run_dir, NO_TRUST)
    run, before = resumed_run(run_dir, others), recorded_run(run_dir)
    if status.status_of(run_dir).state == "finished" and not changed_length(before, run):
        rewind.refuse_finished(run_dir, run.checkpoint.resume)
        raise ConfigError(f"{run_dir.path} is finished. Nothing is left to do. To make it longer, give more training.max_steps or training.epochs.")
    batch_job.refuse_active(run_dir)
    lock.refuse_live_owner(run_dir)
    rewind.refuse_unusable(run_dir, run.checkpoint.resume)
    lengthening(run_dir, before, run)
    return run


def on_this_machine(run: Composed) -> Composed:
    """Raises ConfigError for a run that waits in the queue of its cluster."""
    if run.cluster.name != "local":
        raise ConfigError(
            f"cluster={run.cluster.name} is not possible here: the queue begins runs on this machine. Use cluster=local, "
            f"or `regimen train ... cluster={run.cluster.name}`, which does not need it."
        )
    return run


def as_if_alone(run: Composed) -> Composed:
    """With the node stated as it is here, so that nobody looks at how much of its GPUs is free now."""
    if not run.node.auto or run.node.gpus == 0:
        return run
    here = settle_node(run.node, 1).node
    card = replace(run.node, auto=False, gpu_name=here.gpu_name, gpu_memory=here.gpu_memory, tflops=here.tflops)
    return replace(run, node=replace(card, gpus=here.gpus, host_memory=here.host_memory))
