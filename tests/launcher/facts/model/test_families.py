"""What the table assumes for absent keys is what transformers' configuration classes assume."""

import pytest
from peft.utils import transformers_weight_conversion as conversion
from transformers import CONFIG_MAPPING, AutoConfig

from launcher.facts.model.facts import Traits
from launcher.facts.model.families import COUNTED, FAMILIES, traits_of


@pytest.mark.parametrize("name", FAMILIES)
def test_defaults_are_those_of_transformers(name: str) -> None:
    family = FAMILIES[name]
    # Qwen's classes forget the window unless it is used.
    windowed = {"use_sliding_window": True} if "use_sliding_window" in family.defaults else {}
    config = AutoConfig.for_model(name, **windowed)
    expected = {key: getattr(config, family.own_names.get(key, key)) for key in family.defaults}
    # An absent list is an empty one after construction.
    assert {key: value or None for key, value in expected.items()} == {key: value or None for key, value in (family.defaults | windowed).items()}


def test_a_family_is_in_one_table_alone_and_one_in_neither_has_no_traits() -> None:
    assert not FAMILIES.keys() & COUNTED.keys()
    assert traits_of("gemma2").capped_scores
    assert traits_of("olmo2").float_gain
    assert traits_of("nobody_knows") == traits_of(None) == Traits()


def test_peft_converts_the_experts_of_the_counted_families_that_say_so() -> None:
    converted = {name for name, pattern in conversion._MODEL_TO_CONVERSION_PATTERN.items() if pattern == "qwen2_moe" and name in CONFIG_MAPPING}
    parts = {"qwen3_omni_moe_thinker", "qwen3_omni_moe_text"}  # of a model that is no causal language model by itself

    assert {name for name, traits in COUNTED.items() if traits.expert_adapters} == converted - FAMILIES.keys() - parts
