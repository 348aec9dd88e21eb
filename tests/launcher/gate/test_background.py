"""checkpoint.background=null: checkpoints are written while training goes on where that pays and host memory has room."""

from dataclasses import replace

import pytest

from launcher.gate.background import with_background
from launcher.memory.estimate import estimate
from tests.described import with_facts

FULL_1B = ("model=llama3.2_1b", "data=demo", "regime=full", "node=h200_141", "sharding=ddp", "checkpoint.background=null")
ROOMY = "node.host_memory=200000000000"


def chosen(*overrides: str) -> bool | None:
    return with_background(*with_facts(*FULL_1B, *overrides)).checkpoint.background


def test_it_is_chosen_for_a_large_state_on_a_gpu() -> None:
    assert chosen(ROOMY) is True


@pytest.mark.parametrize(
    "why_not",
    [("regime=lora",), ("sharding=zero3",), ("sharding=fsdp2",), ("node=cpu",), ("checkpoint.interval=0",), ("node.host_memory=null",)],
)
def test_it_is_not_where_it_does_not_pay_or_cannot_be(why_not: tuple[str, ...]) -> None:
    assert chosen(ROOMY, *why_not) is False


def test_it_is_not_where_host_memory_has_no_room_for_the_copy() -> None:
    run, facts = with_facts(*FULL_1B, ROOMY)
    need = estimate(replace(run, checkpoint=replace(run.checkpoint, background=True)), facts).host
    assert chosen(f"node.host_memory={need}") is True
    assert chosen(f"node.host_memory={need - 1}") is False


@pytest.mark.parametrize("given", ["true", "false"])
def test_what_is_stated_stays(given: str) -> None:
    assert chosen("node.host_memory=1", f"checkpoint.background={given}") is (given == "true")
