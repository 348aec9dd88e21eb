"""Settled runs and their models for the tests of the memory estimate."""

from collections.abc import Callable

import pytest

from conf.schema import Run
from launcher.composition.compose import compose
from launcher.facts.model import ModelFacts, model_facts
from launcher.facts.node import settled_node
from launcher.gate.settle import settled

Described = Callable[..., tuple[Run, ModelFacts]]


@pytest.fixture
def described() -> Described:
    """Overrides to a settled run on a stated node and the facts of its model."""

    def describe(*overrides: str) -> tuple[Run, ModelFacts]:
        run = compose(["model=demo", "data=demo", "node=h200_141", "node.host_memory=400000000000", *overrides])
        run = settled(run, settled_node(run.node, run.node.gpus or 0))
        return run, model_facts(run.model.architecture, "test")

    return describe
