"""`resume=`: go on in a run's own folder with its recorded configuration; whatever else is given is compared with it."""

import re
import sys
from collections.abc import Collection, Sequence
from copy import deepcopy
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException

from conf.environment import as_written
from conf.hosts import expanded
from conf.new_keys import new_keys
from conf.run_dir import RunDir, load_run, recorded_values
from conf.run_values import composed_from_dict, run_as_dict
from conf.schema import GROUPS, Composed, Run
from conf.signs import PHASES
from launcher.composition.compose import parsed, refuse_additions, refuse_secrets
from launcher.composition.given import written
from launcher.composition.mistakes import first_line, meant
from launcher.composition.reshaping import RESHAPING, SHARDING, moves, refuse_reshaping, with_portions, with_sharding
from launcher.composition.values import value_message
from launcher.errors import ConfigError

if TYPE_CHECKING:
    from conf.journal import Changed

PREFIX = "resume="

# Keys that change neither the model, nor the data, nor the numbers: they may differ on a resume.
FREE = frozenset(
    {
        *("checkpoint.interval", "checkpoint.keep", "checkpoint.resume", "checkpoint.background", "backend.port", "backend.max_restarts"),
        "training.on_oom",
        *(
            "tracking.also",
            "tracking.project",
            "tracking.entity",
            "cluster.partition",
            "cluster.account",
            "cluster.qos",
            "cluster.time",
            "cluster.memory",
        ),
        *("cluster.constraint", "cluster.reservation", "cluster.exclude", "cluster.signal_seconds", "cluster.gpu_types"),
        *(f"cluster.{key}" for key in ("exclusive", "licenses", "mail_user", "mail_type", "comment", "dependency", "after", "directives")),
        *(f"cluster.{key}" for key in ("setup", "export", "container", "container_runtime", "container_mounts", "container_python")),
        *(f"cluster.{key}" for key in ("hosts", "address", "start", "python", "connect_seconds")),
        *(f"hang.{phase}" for phase in PHASES),
    }
)

LENGTH = ("training.epochs", "training.max_steps")  # may differ too: the run is made longer or shorter (launcher/launch/lengthen.py)
MAY_DIFFER = FREE | {*LENGTH, *RESHAPING, SHARDING}

NEWEST = {"checkpoint.resume": "newest"}  # a named checkpoint belongs to one start


def split_resume(overrides: Sequence[str]) -> tuple[str | None, list[str]]:
    """The run that `resume=` names, and the other overrides."""
    named = [text.removeprefix(PREFIX) for text in overrides if text.startswith(PREFIX)]
    if len(named) > 1:
        raise ConfigError(f"resume= is given {len(named)} times. Give it once, with a run folder, the name of a run, or last.")
    if named and named[0] in ("", "null"):
        raise ConfigError(f"resume={named[0]} names no run. Give a run folder, the name of a run, or last.")
    at_step = re.fullmatch(r"(?P<run>.+)@(step-)?(?P<step>\d+|newest|last|latest|final)", named[0]) if named else None
    if at_step is not None and not Path(named[0]).exists():  # a run's name may hold @
        wanted = f" checkpoint.resume=step-{at_step['step']}" if at_step["step"].isdigit() else ", which goes on from the newest checkpoint"
        raise ConfigError(f"resume={named[0]} names a checkpoint. Write: resume={at_step['run']}{wanted}")
    return (unquoted(named[0]) if named else None), [text for text in overrides if not text.startswith(PREFIX)]


def unquoted(text: str) -> str:
    """resume= takes a path as it stands; quotes as Hydra's grammar has them are left out."""
    return text[1:-1] if len(text) > 2 and text[0] == text[-1] and text[0] in "'\"" else text


def recorded_run(run_dir: RunDir) -> Run:
    """The run of a folder.

    Raises:
        ConfigError: where run.yaml is damaged or of another version.
    """
    try:
        run = load_run(run_dir)
        tell_new_keys(run_dir)
        return run
    except InterpolationResolutionError as error:
        raise ConfigError(
            f"{error.full_key or 'A key'} of {run_dir.run_yaml} cannot be resolved: {first_line(error)}. Set the variable as at the first start."
        ) from error
    except (yaml.YAMLError, KeyError, TypeError, ValueError, OmegaConfBaseException) as error:
        first = next(iter(str(error).splitlines()), "")
        raise ConfigError(
            f"{run_dir.run_yaml} cannot be read ({first}). It is damaged, or a different version of regimen wrote it. Start a new run."
        ) from error


@cache
def tell_new_keys(run_dir: RunDir) -> None:
    """Once in a process: which keys the file lacks, and what they are taken to be."""
    for key, value in new_keys(recorded_values(run_dir)).items():
        print(f"note: {run_dir.run_yaml} is older than the key {key}. The run has {key}={written(value)}.", file=sys.stderr, flush=True)


def resumed_run(run_dir: RunDir, overrides: Sequence[str]) -> Composed:
    """The recorded run, with the free keys, the length, the sharding and the portions of a step as given.

    Raises:
        ConfigError: listing every given key that differs from the record and may not; for training.epochs where training.max_steps decides; for
            portions that would change what is learned.
    """
    refuse_secrets(overrides)
    refuse_additions(overrides)
    before, given = recorded_run(run_dir), with_counted_hosts(given_keys(overrides))
    recorded = with_sharding(run_as_dict(before), given)
    for key in given:
        refuse_unknown(recorded, key)
    wanted = asdict(with_values(recorded, {key: value for key, value in given.items() if key not in GROUPS}))
    own = {key for key in given if key.startswith(f"{SHARDING}.")} if moves(run_as_dict(before), given) else set()
    differences = [text for key, value in given.items() for text in difference(asdict(before), wanted, key, value, MAY_DIFFER | own)]
    if differences:
        listed = "\n  ".join(differences)
        raise ConfigError(
            f"{run_dir.path} was started with a different configuration:\n  {listed}\nResume without these, or start a new run with them."
        )
    free = {key: value for key, value in given.items() if key in FREE or key in LENGTH or key in own}
    changed = [key for key, value in given.items() if difference(asdict(before), wanted, key, value, allowed=())]
    run = with_values(recorded, {**NEWEST, **free, **with_portions(given, changed)})
    refuse_without_effect(recorded, run)
    refuse_reshaping(before, run)
    return forget_machine(run)


def given_keys(overrides: Sequence[str]) -> dict[str, Any]:
    return {override.key_or_group: one_value(override) for override in parsed(overrides)}


def with_counted_hosts(given: dict[str, Any]) -> dict[str, Any]:
    """With cluster.nodes where other machines are given: each is one node."""
    if not given.get("cluster.hosts") or "cluster.nodes" in given:
        return given
    try:
        return {**given, "cluster.nodes": len(expanded(given["cluster.hosts"]))}
    except ValueError as error:
        raise ConfigError(str(error)) from error


def changed_in_vain(run_dir: RunDir, overrides: Sequence[str]) -> list[str]:
    """Of a run that does not go on: each given key whose value differs from the recorded one."""
    before, given = asdict(recorded_run(run_dir)), given_keys(overrides)
    wanted = asdict(with_values(with_sharding(before, given), {key: value for key, value in given.items() if key not in GROUPS}))
    return [text for key, value in given.items() for text in difference(before, wanted, key, value, allowed=("checkpoint.resume",))]


def refuse_without_effect(recorded: dict[str, Any], run: Composed) -> None:
    epochs, max_steps = run.training.epochs, run.training.max_steps
    if max_steps is not None and epochs != recorded["training"]["epochs"]:
        raise ConfigError(
            f"training.epochs={epochs:g} has no effect, because training.max_steps={max_steps} decides when this run ends. "
            "Set training.max_steps, or set training.max_steps=null too."
        )


def changes(run_dir: RunDir, run: Run) -> "list[Changed]":
    """What this attempt has with another value than the recorded one: the free keys that were given, and another machine."""
    before, after = (flat(run_as_dict(each)) for each in (recorded_run(run_dir), run))
    from conf.journal import Changed  # a plan composes without a journal

    return [Changed(key, str(before.get(key)), str(after.get(key))) for key in dict.fromkeys([*before, *after]) if before.get(key) != after.get(key)]


def flat(values: dict[str, Any]) -> dict[str, Any]:
    """group.key to value."""
    groups = {key: value if isinstance(value, dict) else {"": value} for key, value in values.items()}
    return {f"{group}.{key}" if key else group: value for group, keys in groups.items() for key, value in keys.items()}


def forget_machine(run: Composed) -> Composed:
    """node=auto is read again, because a run may go on on a different machine of the same kind."""
    if not run.node.auto:
        return run
    return replace(run, node=replace(run.node, gpus=None, gpu_name=None, gpu_memory=None, host_memory=None, tflops=None))


def one_value(override: Override) -> Any:
    if override.is_sweep_override():
        raise ConfigError(f"{override.input_line}: a run is resumed with one value for each key. Choose one.")
    return override.value()


def refuse_unknown(recorded: dict[str, Any], key: str) -> None:
    if key == "recipe":
        raise ConfigError("recipe= has no effect on a resume, which uses the recorded configuration. Remove it.")
    group, _, field = key.partition(".")
    there = recorded.get(group)
    if group not in recorded or (field and not (isinstance(there, dict) and field.split(".")[0] in there)):
        raise ConfigError(f"{key} is not a key of this run. {meant(key)}Give only keys of the recorded configuration.")


def difference(recorded: dict[str, Any], wanted: dict[str, Any], key: str, value: Any, allowed: Collection[str] = MAY_DIFFER) -> list[str]:
    """The one line about a key that differs; none for one that does not, or may."""
    if key in allowed:
        return []
    if key in GROUPS:
        name = recorded[key].get("name", "default")
        return [] if name == value else [f"{key}: recorded {name}, given {value}"]
    before, after = lookup(recorded, key), lookup(wanted, key)
    same = Path(before).absolute() == Path(after).absolute() if key == "output" else before == after
    return [] if same else [f"{key}: recorded {written(as_written(before))}, given {written(as_written(after))}"]


def lookup(values: dict[str, Any], key: str) -> Any:
    node: Any = values
    for part in key.split("."):
        node = node.get(part) if isinstance(node, dict) else None
    return node


def with_values(recorded: dict[str, Any], values: dict[str, Any]) -> Composed:
    """The recorded run with other values in place, typed as the schema types them.

    Raises:
        ConfigError: for a value of the wrong type.
    """
    changed = OmegaConf.create(deepcopy(recorded))
    for key, value in values.items():
        OmegaConf.update(changed, key, value, merge=False)
    try:
        return composed_from_dict(as_plain_dict(changed))
    except OmegaConfBaseException as error:
        raise ConfigError(value_message(error.full_key or "A value", first_line(error))) from error
    except ValueError as error:
        raise ConfigError(str(error)) from error


def as_plain_dict(node: DictConfig) -> dict[str, Any]:
    plain = OmegaConf.to_container(node, resolve=False)  # what it refers to is found where the whole run is made of it
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def output_of(overrides: Sequence[str]) -> Path | None:
    """The value of `output=`, as Hydra's grammar reads it; None where it is not given.

    Raises:
        ConfigError: for an override that cannot be read or resolved, or one with several values.
    """
    given = [one_value(override) for override in parsed([text for text in overrides if text.startswith("output=")])]
    if not given:
        return None
    try:
        return Path(str(OmegaConf.create({"output": given[-1]}).output))
    except OmegaConfBaseException as error:
        raise ConfigError(f"output={given[-1]} cannot be resolved: {first_line(error)}. Write the folder itself.") from error
