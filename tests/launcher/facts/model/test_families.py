"""What the table assumes for absent keys is what transformers' configuration classes assume."""

import pytest
from transformers import AutoConfig

from launcher.facts.model.families import FAMILIES


@pytest.mark.parametrize("name", FAMILIES)
def test_defaults_are_those_of_transformers(name: str) -> None:
    family = FAMILIES[name]
    # Qwen's classes forget the window unless it is used.
    windowed = {"use_sliding_window": True} if "use_sliding_window" in family.defaults else {}
    config = AutoConfig.for_model(name, **windowed)
    expected = {key: getattr(config, family.own_names.get(key, key)) for key in family.defaults}
    # An absent list is an empty one after construction.
    assert {key: value or None for key, value in expected.items()} == {key: value or None for key, value in (family.defaults | windowed).items()}
