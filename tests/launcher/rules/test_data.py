"""Which keys of the data contradict each other, before any process starts."""

import pytest

from conf.data_sets import evaluates
from launcher.composition.compose import compose
from launcher.errors import ConfigError
from launcher.rules.ranges import check_values

TWO = ("model=demo", "data=files", "data.sets=[a.jsonl,b.jsonl]", "node=cpu")


@pytest.mark.parametrize(
    "overrides",
    [
        ("data.mixing=interleave_under",),
        ("data.mixing=interleave_over", "data.probabilities=[0.7,0.3]"),
        ("data.mixing=interleave_over", "data.probabilities=[0.1,0.9]"),
        ("data.evaluation_sets=[c.jsonl]",),
        ("data.streaming=true", "training.max_steps=5"),
        ("data.streaming=true", "training.max_steps=5", "data.evaluation_sets=[c.jsonl]"),
    ],
)
def test_keys_that_hold_together_pass(overrides: tuple[str, ...]) -> None:
    check_values(compose([*TWO, *overrides]))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("data.probabilities=[0.5,0.5]",), r"data.probabilities has no effect with data.mixing=concatenate"),
        (("data.mixing=interleave_under", "data.probabilities=[1.0]"), r"data.probabilities has 1 values for 2 sets"),
        (("data.mixing=interleave_under", "data.probabilities=[0.5,0.6]"), r"their sum must be 1"),
        (("data.mixing=interleave_under", "data.probabilities=[0.0,1.0]"), r"Every value must be above 0"),
        (("data.mixing=interleave_under", "data.probabilities=[-0.5,1.5]"), r"Every value must be above 0"),
        (("data.evaluation_sets=[c.jsonl]", "data.validation_share=0.1"), r"data.evaluation_sets and data.validation_share=0.1 both"),
        (("data.mask_prompt=false", "data.train_history=false"), r"Set one of them to true"),
        (("data.streaming=true",), r"data.streaming=true has no end.*Set training.max_steps"),
        (("data.streaming=true", "training.max_steps=5", "data.validation_share=0.1"), r"cannot hold out data.validation_share=0.1"),
    ],
)
def test_keys_that_contradict_each_other_are_named(overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_values(compose([*TWO, *overrides]))


def test_a_share_and_sets_of_their_own_both_give_evaluation_data() -> None:
    assert not evaluates(compose([*TWO]).data)
    assert evaluates(compose([*TWO, "data.validation_share=0.1"]).data)
    assert evaluates(compose([*TWO, "data.evaluation_sets=[c.jsonl]"]).data)
