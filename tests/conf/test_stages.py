"""Every stage has a row, and a choice without one is told where it belongs."""

from dataclasses import replace

import pytest

from conf.rows import MissingRow
from conf.schema import SUBTYPES
from conf.stages import STAGES, Loss, stage_row
from launcher.composition.compose import compose
from launcher.memory.step.stage_loss import OUTSIDE

RETURNED_BY_THE_MODEL = {Loss.NEXT_TOKEN, Loss.SCORE, Loss.PPO}


def test_every_stage_has_a_row_and_no_other() -> None:
    assert STAGES.keys() == SUBTYPES["stage"].keys()


def test_every_loss_is_that_of_a_stage_and_has_its_bytes() -> None:
    assert {row.loss for row in STAGES.values()} == set(Loss) == set(OUTSIDE) | RETURNED_BY_THE_MODEL


def test_a_stage_without_a_row_is_told_where_to_add_one() -> None:
    run = compose(["model=demo", "data=demo"])
    message = r"^stage=made_up has no row in STAGES of conf/stages\.py\. Add its row there .* or use pt, sft, "
    with pytest.raises(MissingRow, match=message):
        stage_row(replace(run, stage=replace(run.stage, name="made_up")))
