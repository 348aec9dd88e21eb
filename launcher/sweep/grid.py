"""Every combination of the values that a command line sweeps over."""

import itertools
from collections.abc import Sequence

from hydra.core.override_parser.types import Override

from launcher.errors import ConfigError


def combinations(overrides: Sequence[Override]) -> list[list[str]]:
    """The overrides of every point; the last key varies fastest, and a key given twice counts as given last.

    Raises:
        ConfigError: for a range without steps.
    """
    values = {override.get_key_element(): choices(override) for override in overrides}
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
