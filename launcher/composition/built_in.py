"""Composition of the built-in groups: Hydra's own, but a process reads each file once, and composes equal choices once."""

from collections.abc import Sequence
from copy import deepcopy
from functools import cache

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository
from hydra._internal.defaults_list import create_defaults_list
from hydra._internal.utils import create_config_search_path
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import ConfigCompositionException, HydraException
from hydra.plugins.config_source import ConfigResult
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

PACKAGE = "pkg://conf"
RUN = "run"  # the choice of every group; `sweep` is the same with Hydra's launcher and sweeper


class BuiltIn(ConfigRepository):
    """The files of one composition, which may change what it was given."""

    def __init__(self) -> None:
        super().__init__(create_config_search_path(PACKAGE))
        self.given: dict[str, ConfigResult | None] = {}

    def load_config(self, config_path: str) -> ConfigResult | None:
        if config_path not in self.given:
            self.given[config_path] = deepcopy(as_read(config_path))
        return self.given[config_path]


@cache
def as_read(config_path: str) -> ConfigResult | None:
    return ConfigRepository(create_config_search_path(PACKAGE)).load_config(config_path)


def compose_built_in(given: Sequence[Override]) -> DictConfig:
    """What Hydra composes of these overrides, without its own node: the choices first, and values last.

    Raises what Hydra raises.
    """
    groups = BuiltIn()
    values = [override for override in given if isinstance(override.value(), dict) or not groups.group_exists(override.key_or_group)]
    found = composed_choices(tuple(str(override.input_line) for override in given if override not in values))
    if isinstance(found, Exception):
        raise found.with_traceback(None)
    config = deepcopy(found)
    try:
        ConfigLoaderImpl._apply_overrides_to_config(values, config)
    except OmegaConfBaseException as error:
        raise ConfigCompositionException from error
    return config


@cache
def composed_choices(overrides: tuple[str, ...]) -> DictConfig | Exception:
    """What they compose, or what Hydra raises: choices that cannot work are asked about again and again while a form is changed."""
    try:
        return composed_anew(overrides)
    except (HydraException, OmegaConfBaseException, ValueError, TypeError, AttributeError, AssertionError) as error:
        return error


def composed_anew(overrides: tuple[str, ...]) -> DictConfig:
    choices, groups = OverridesParser.create().parse_overrides([*overrides]), BuiltIn()
    try:
        found = create_defaults_list(groups, RUN, choices, prepend_hydra=False, skip_missing=False)
        config = ConfigLoaderImpl(create_config_search_path(PACKAGE))._compose_config_from_defaults_list(found.defaults, groups)
    except OmegaConfBaseException as error:
        raise ConfigCompositionException from error
    OmegaConf.set_struct(config, True)
    return config
