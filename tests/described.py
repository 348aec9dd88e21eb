"""Runs as tests describe them: composed or settled, and the facts of their models. Equal overrides are composed once."""

from collections.abc import Sequence
from copy import deepcopy
from functools import cache
from pathlib import Path

from conf.schema import Composed, Run
from launcher.composition.compose import compose
from launcher.facts.model import ModelFacts, model_facts
from launcher.facts.node import settled_node
from launcher.gate.settle import settled


@cache
def composed_once(overrides: tuple[str, ...]) -> Composed:
    return compose(overrides)


def composed(*overrides: str) -> Composed:
    """The composed run of `overrides`, for the caller alone: composing takes a tenth of a second, and copying a thousandth."""
    return deepcopy(composed_once(overrides))


def described(*overrides: str, config_dirs: Sequence[Path] = ()) -> Run:
    """The settled run of `overrides`. Its node is as stated; where its GPUs are left open it has none."""
    run = compose(overrides, config_dirs) if config_dirs else composed(*overrides)
    return settled(run, settled_node(run.node, run.node.gpus or 0))


def with_facts(*overrides: str) -> tuple[Run, ModelFacts]:
    """The settled run of `overrides` and what is known of its model."""
    run = described(*overrides)
    return run, model_facts(run.model.architecture, "test")
