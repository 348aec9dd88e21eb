"""What is exchanged at once where the key is open."""

import pytest

from conf.exchanges import reshards, whole_layers
from conf.schema import Fsdp
from tests.described import described

GPUS = ("model=demo", "data=demo", "node=h200_141", "node.gpus=2", "node.host_memory=400000000000")


@pytest.mark.parametrize(
    ("choices", "whole"),
    [
        (("regime=full", "sharding=zero3"), True),  # measured on two H200s
        (("regime=full", "sharding=zero3", "sharding.whole_layers=false"), False),
        (("regime=lora", "sharding=zero3"), False),
        (("regime=lora", "sharding=zero3", "sharding.whole_layers=true"), True),
        (("regime=full", "sharding=zero3_offload"), False),
        (("regime=full", "sharding=zero2"), False),
        (("regime=full", "sharding=fsdp2"), False),
        (("regime=full", "sharding=zero3", "node=cpu", "node.gpus=0"), False),
    ],
)
def test_zero3_exchanges_whole_layers_where_that_was_measured_or_is_stated(choices: tuple[str, ...], whole: bool) -> None:
    assert whole_layers(described(*GPUS, *choices)) is whole


@pytest.mark.parametrize(("value", "frees"), [("null", True), ("true", True), ("false", False)])
def test_fsdp2_frees_what_it_gathered_unless_it_is_told_or_chosen_otherwise(value: str, frees: bool) -> None:
    run = described(*GPUS, "regime=full", "sharding=fsdp2", f"sharding.reshard_after_forward={value}")
    assert isinstance(run.sharding, Fsdp)
    assert reshards(run.sharding) is frees
