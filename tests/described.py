"""Runs as tests describe them."""

from collections.abc import Sequence
from pathlib import Path

from conf.schema import Run
from launcher.composition.compose import compose
from launcher.facts.node import settled_node
from launcher.gate.settle import settled


def described(*overrides: str, config_dirs: Sequence[Path] = ()) -> Run:
    """The settled run of `overrides`. Its node is as stated; where its GPUs are left open it has none."""
    composed = compose(overrides, config_dirs)
    return settled(composed, settled_node(composed.node, 0 if composed.node.gpus is None else composed.node.gpus))
