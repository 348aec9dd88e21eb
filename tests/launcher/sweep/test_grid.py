import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf

from launcher.composition.compose import checked_overrides, compose_config
from launcher.errors import ConfigError
from launcher.sweep.grid import combinations, fixed_keys


def parsed(*overrides: str) -> list[Override]:
    return OverridesParser.create().parse_overrides([*overrides])


def test_two_keys_of_two_values_make_four_points_and_the_last_key_varies_fastest() -> None:
    assert combinations(parsed("regime=lora,full", "recipe=demo", "training.seed=1,2")) == [
        ["regime=lora", "recipe=demo", "training.seed=1"],
        ["regime=lora", "recipe=demo", "training.seed=2"],
        ["regime=full", "recipe=demo", "training.seed=1"],
        ["regime=full", "recipe=demo", "training.seed=2"],
    ]


def test_a_range_is_swept_and_a_list_is_one_value() -> None:
    assert combinations(parsed("regime.rank=range(8,25,8)", "data.sets=[a.jsonl,b.jsonl]")) == [
        ["regime.rank=8", "data.sets=[a.jsonl,b.jsonl]"],
        ["regime.rank=16", "data.sets=[a.jsonl,b.jsonl]"],
        ["regime.rank=24", "data.sets=[a.jsonl,b.jsonl]"],
    ]


def test_a_key_given_twice_counts_as_given_last() -> None:
    assert combinations(parsed("training.seed=1,2", "training.seed=3")) == [["training.seed=3"]]


def test_without_a_swept_key_there_is_one_point() -> None:
    assert combinations(parsed("recipe=demo")) == [["recipe=demo"]]


def test_an_interval_is_refused_with_the_sweeper_that_takes_it() -> None:
    with pytest.raises(ConfigError, match="hydra/sweeper=optuna"):
        combinations(parsed("optim.lr=interval(0.001,0.01)"))


def test_a_range_without_a_value_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"regime\.rank=range\(8,8,8\) holds no value, so the sweep has no point\. Give a range with values"):
        combinations(parsed("recipe=demo", "regime.rank=range(8,8,8)"))


def test_the_fixed_keys_are_those_with_one_value() -> None:
    assert fixed_keys(parsed("recipe=demo", "optim.lr=1,2", "regime.rank=8")) == {"recipe", "regime.rank"}


@pytest.mark.parametrize(
    ("given", "values"),
    [
        ("name=1.10,1.20", ["1.10", "1.20"]),
        ("name=a,true,1e5", ["a", "true", "1e5"]),
        ("name=choice(1.10,two)", ["1.10", "two"]),
        ("name='1.10',\"1.20\"", ["1.10", "1.20"]),
        ("model.revision=null,1_000", [None, "1_000"]),
        ("data.sets=[1.10,b],[2.0]", [["1.10", "b"], ["2.0"]]),
        ("data.sets=[1.10]", [["1.10"]]),
        ("name=range(1,4)", ["1", "2", "3"]),
        ("optim.lr=1e-4,3e-4", [1e-4, 3e-4]),
    ],
)
def test_a_text_keeps_its_digits_in_every_point(given: str, values: list[object]) -> None:
    """Hydra's grammar reads 1.10 as the number 1.1, and true as True."""
    key = given.split("=")[0]
    points = combinations(parsed(*checked_overrides([given], [])))
    composed = [compose_config(["model=demo", "data=demo", *point]) for point in points]
    assert [OmegaConf.to_object(OmegaConf.select(one, key)) if "sets" in key else OmegaConf.select(one, key) for one in composed] == values
