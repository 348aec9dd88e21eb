"""Every combination of the values that a command line sweeps over."""

import itertools
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override

from conf.schema import Composed
from launcher.composition.compose import config_loader, parsed
from launcher.composition.recorded import PREFIX
from launcher.errors import ConfigError, RegimenError
from launcher.launch.after import with_run_folder
from launcher.sweep.ledger import FOLDER
from launcher.sweep.points import composed_or_refusal, refuse_unshareable, refuse_unsubmittable

SET_HERE = re.compile(r"hydra\.(sweep|run|job|runtime|output_subdir)\b")  # where Hydra puts what, and what it calls it
SWEEPER, GRID = "hydra/sweeper", "grid"  # which sweeper is chosen where none is


def combinations(overrides: Sequence[Override]) -> list[list[str]]:
    """The overrides of every point; the last key varies fastest, and a key given twice counts as given last.

    Raises:
        ConfigError: for an interval, and for a range without a value.
    """
    values = {override.get_key_element(): choices(override) for override in overrides}
    for override in overrides:
        key = override.get_key_element()
        if not values[key]:
            raise ConfigError(f"{override.input_line} holds no value, so the sweep has no point. Give a range with values, as {key}=range(1,9,2).")
    return [list(point) for point in itertools.product(*values.values())]


def choices(override: Override) -> list[str]:
    key = override.get_key_element()
    if not override.is_sweep_override():
        return [f"{key}={override.get_value_element_as_str()}"]
    if not override.is_discrete_sweep():
        raise ConfigError(
            f"{override.input_line}: the grid sweeper needs a list or a range. Write {key}=a,b or {key}=range(1,9,2), "
            "or use hydra/sweeper=optuna, which samples intervals (pip install hydra-optuna-sweeper)."
        )
    return [f"{key}={value}" for value in override.sweep_string_iterator()]


def fixed_keys(overrides: Sequence[Override]) -> frozenset[str]:
    """The keys that hold one value in every point."""
    return frozenset(override.get_key_element() for override in overrides if not override.is_sweep_override())


def grid_points(given: Sequence[str], config_dirs: Sequence[Path]) -> list[list[str]] | None:
    """The overrides of every point; None where another sweeper chooses the points as it goes.

    Raises:
        ConfigError: as combinations.
    """
    overrides = OverridesParser.create(config_loader=config_loader(config_dirs)).parse_overrides([*given])
    if any(override.get_key_element() == SWEEPER and override.get_value_element_as_str() != GRID for override in overrides):
        return None
    return combinations([override for override in overrides if not override.get_key_element().startswith(("hydra.", "hydra/"))])


def refuse_without_effect(overrides: Sequence[str]) -> None:
    """Raises ConfigError for a setting of Hydra's that regimen decides itself, so that the one that was given would be lost."""
    for text in overrides:
        key = text.partition("=")[0]
        if not key.startswith(("hydra.", "hydra/")) or re.match(r"hydra[./](launcher|sweeper|callbacks)\b", key):
            continue
        instead = f"A sweep is kept in OUTPUT/{FOLDER}/TIME, and its runs in OUTPUT/NAME/TIME: set output= and name=. " if SET_HERE.match(key) else ""
        raise ConfigError(f"{text} has no effect on a sweep. {instead}Of hydra, the settings of launcher, sweeper and callbacks count. Leave it out.")


def refuse_given_twice(overrides: Sequence[str]) -> None:
    """Raises ConfigError for a swept key that is given again: neither value would be the one that is meant."""
    refuse_twice(parsed([text for text in overrides if not text.startswith(PREFIX)]))


def refuse_twice(overrides: Sequence[Override]) -> None:
    """Raises ConfigError for a swept key that is given again."""
    times = Counter(override.get_key_element() for override in overrides)
    for swept in (override for override in overrides if override.is_sweep_override()):
        key = swept.get_key_element()
        if times[key] > 1:
            said = " and ".join(str(override.input_line) for override in overrides if override.get_key_element() == key)
            raise ConfigError(f"{key} is swept and given again: {said}. Give {key} once.")


def refuse_hopeless(points: Sequence[Sequence[str]], config_dirs: Sequence[Path], submits: bool) -> None:
    """Raises the mistake of the first point where every point has one, as for a key that does not exist. Usually the first has none."""
    first = None
    for overrides in points:
        found = mistake_of(composed_or_refusal(overrides, config_dirs), submits)
        if found is None:
            return
        first = first or found
    if first is not None:
        raise first


def mistake_of(described: Composed | RegimenError, submits: bool) -> RegimenError | None:
    """What keeps a point from being composed, or from being one of a sweep."""
    if isinstance(described, RegimenError):
        return described
    try:
        refuse_unsubmittable(described) if submits else refuse_unshareable(described)
        with_run_folder(described)
    except ConfigError as error:
        return error
    return None
