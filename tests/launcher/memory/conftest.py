"""Settled runs and their models for the tests of the memory estimate."""

from collections.abc import Callable

import pytest

from conf.schema import Run
from launcher.facts.model import ModelFacts
from tests.described import with_facts

Described = Callable[..., tuple[Run, ModelFacts]]


@pytest.fixture
def described() -> Described:
    """Overrides to a settled run on a stated node and the facts of its model."""

    def describe(*overrides: str) -> tuple[Run, ModelFacts]:
        return with_facts("model=demo", "data=demo", "node=h200_141", "node.host_memory=400000000000", *overrides)

    return describe
