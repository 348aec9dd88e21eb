"""A later start of a sweep: which grid it has, and what is left to do of a point that an earlier start came to."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from hydra.core.override_parser.types import Override
from hydra.types import RunMode

from conf.exit_codes import CONFIG, NOT_A_NUMBER, OUT_OF_MEMORY, REFUSED, UNSAFE
from conf.run_dir import RunDir
from conf.schema import GROUPS, Composed
from launcher.composition.compose import load_config, parsed
from launcher.composition.names import known_keys
from launcher.composition.recorded import resumed_run
from launcher.errors import ConfigError, RegimenError
from launcher.gate.judge import Judged, judge_recorded
from launcher.launch import batch_job, lock, status
from launcher.launch.after import with_run_folder
from launcher.launch.foreign import Trust, refuse_foreign
from launcher.sweep.ledger import Start, SweepDir
from launcher.sweep.points import (
    Permitted,
    Point,
    Result,
    as_estimated,
    gpus_wanted,
    on_its_share,
    permitted_or_refused,
    refuse_wider,
    refused,
    sharing,
)
from launcher.sweep.processes import result_from
from launcher.sweep.schedule import Cluster, Resources

# The configuration alone decides these ends, so the same point would end in the same way. What a file, a disk, a machine or a person
# caused is tried again: a later start of a sweep is a person's decision.
SAME_AGAIN = frozenset({CONFIG, REFUSED, UNSAFE, OUT_OF_MEMORY, NOT_A_NUMBER})


def continued(sweep_dir: SweepDir, before: Start, given: Sequence[str]) -> list[str]:
    """The overrides of a later start: what was recorded, with other values for the swept keys and other settings of the sweep.

    Raises:
        ConfigError: for a key that does not exist; naming each key that makes it another sweep.
    """
    known = {override.get_key_element(): override for override in parsed(before.overrides)}
    changes = {override.get_key_element(): override for override in parsed(given)}
    texts = {key: str(override.input_line) for key, override in [*known.items(), *changes.items()]}
    if not changes.keys() <= {*known, *known_keys(), *GROUPS, "recipe"}:
        load_config([*texts.values()], before.config_dirs, RunMode.MULTIRUN)  # says which key does not exist
    foreign = [line for key, override in changes.items() for line in difference(key, known.get(key), override)]
    if foreign:
        listed = "\n  ".join(foreign)
        raise ConfigError(
            f"{sweep_dir.path} is a sweep of another grid:\n  {listed}\nOnly swept keys may have other values, and a swept key may be new. "
            "Leave these out, or start a new sweep without resume=."
        )
    return list(texts.values())


def difference(key: str, before: Override | None, now: Override) -> list[str]:
    """The one line about a fixed key that would change; none for what may."""
    swept = now.is_sweep_override() or (before is not None and before.is_sweep_override())
    if swept or key.startswith(("hydra.", "hydra/")) or (before is not None and before.value() == now.value()):
        return []
    recorded = "not given" if before is None else before.get_value_element_as_str()
    return [f"{key}: recorded {recorded}, given {now.get_value_element_as_str()}"]


def what_is_left(before: Result) -> Result | RunDir | None:
    """Of a point that an earlier start came to: its result where nothing is left to do, the folder to go on in, or None: it begins.

    The folder of the run decides: it may have gone on since by itself (`regimen train resume=`).
    """
    run_dir = before.run_dir
    if before.state == "finished":
        return before
    if run_dir is None or not run_dir.run_yaml.is_file():
        return None
    now = status.status_of(run_dir)
    if now.job is not None:
        [now] = batch_job.as_slurm_says([now])
        if now.state in status.ACTIVE:
            return Result(before.point, "running", run_dir=run_dir, cause=now.message)
    if now.state == "finished" or now.exit_code in SAME_AGAIN:
        return result_from(before.point, now, before.cause, before.seconds)
    return run_dir


def judge_again(
    point: Point,
    run_dir: RunDir,
    resources: Resources | Cluster,
    trust: Trust,
    given: Sequence[str] = (),
    decide: Callable[[Judged], Judged] = as_estimated,
) -> Permitted | Result:
    """The point ready to go on in its folder, or why it may not. `given`: what this start has with another value than the recorded one.
    `decide`: what has the last word on the verdict.
    """
    try:
        refuse_foreign(run_dir, trust)
        lock.refuse_live_owner(run_dir, trust.take_over)
        judged = decide(judge_recorded(on_its_share_again(with_run_folder(resumed_run(run_dir, given)), resources)))
    except RegimenError as error:
        return refused(point, error, run_dir)
    found = permitted_or_refused(point, judged, run_dir)
    return sharing(replace(found, take_over=trust.take_over), resources) if isinstance(found, Permitted) else found


def on_its_share_again(run: Composed, resources: Resources | Cluster) -> Composed:
    """A node that is looked up is looked up again; a stated one was recorded with the point's share of it.

    Raises:
        ConfigError: for what one machine with these resources cannot run.
    """
    if run.node.auto or isinstance(resources, Cluster):
        return on_its_share(run, resources)
    refuse_wider(gpus_wanted(run, 0), resources)
    return run
