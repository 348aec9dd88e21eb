"""A run of the queue judged: when it is added, on this machine as if nothing else ran there, and when it begins, on the GPUs that it gets."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from conf.run_dir import RunDir
from conf.schema import Composed
from launcher.composition.compose import compose
from launcher.composition.recorded import output_of, resumed_run, split_resume
from launcher.errors import ConfigError
from launcher.facts.node import settle_node
from launcher.gate.judge import Judged, judge_recorded, judge_run
from launcher.launch import lock, status
from launcher.launch.foreign import NO_TRUST, refuse_foreign
from launcher.sweep.going_on import judge_again
from launcher.sweep.points import Permitted, Point, Result, judge_point, on_its_share
from launcher.sweep.schedule import Resources


def judged_for_later(overrides: Sequence[str], config_dirs: Sequence[Path], resources: Resources) -> Judged:
    """On its share of this machine; what other runs hold of the GPUs now does not count.

    Raises:
        ConfigError: for what cannot be composed, for a run to go on with that is not there, and for more than this machine has.
        Unsafe, RunLocked: where another user owns the folder of a run to go on with, or somebody works in it.
    """
    name, others = split_resume(overrides)
    if name is None:
        return judge_run(as_if_alone(on_its_share(on_this_machine(compose(overrides, config_dirs)), resources)))
    run_dir = folder_to_go_on_in(name, others)
    return judge_recorded(as_if_alone(on_its_share(on_this_machine(resumed_run(run_dir, others)), resources)))


def judged_now(overrides: Sequence[str], config_dirs: Sequence[Path], resources: Resources) -> Permitted | Result:
    """The run ready to start, or why it may not.

    Raises:
        RegimenError: as judged_for_later, for a run to go on with.
    """
    name, others = split_resume(overrides)
    if name is None:
        return judge_point(Point(1, tuple(overrides), ()), config_dirs, resources)
    return judge_again(Point(1, tuple(others), ()), folder_to_go_on_in(name, others), resources, NO_TRUST)


def folder_to_go_on_in(name: str, others: Sequence[str]) -> RunDir:
    run_dir = status.named_run(name, output_of(others))
    refuse_foreign(run_dir, NO_TRUST)
    lock.refuse_live_owner(run_dir)
    resumed_run(run_dir, others)  # refuses keys that differ
    return run_dir


def on_this_machine(run: Composed) -> Composed:
    """Raises ConfigError for a run that waits in the queue of its cluster."""
    if run.cluster.name != "local":
        raise ConfigError(
            f"cluster={run.cluster.name} is not possible here: the queue begins runs on this machine. Use cluster=local, "
            f"or `regimen train ... cluster={run.cluster.name}`, which waits in the cluster's own queue."
        )
    return run


def as_if_alone(run: Composed) -> Composed:
    """With the node stated as it is here, so that nobody looks at how much of its GPUs is free now."""
    if not run.node.auto or run.node.gpus == 0:
        return run
    here = settle_node(run.node, 1).node
    card = replace(run.node, auto=False, gpu_name=here.gpu_name, gpu_memory=here.gpu_memory, tflops=here.tflops)
    return replace(run, node=replace(card, gpus=here.gpus, host_memory=here.host_memory))
