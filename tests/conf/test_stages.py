"""The rows of stages and regimes agree with the files of conf, and with the formulas of their losses."""

import pytest

from conf.regimes import REGIMES, RegimeRow, regime_row
from conf.rows import MissingRow
from conf.schema import Lora, Qlora
from conf.stages import STAGES, Loss, stage_row
from launcher.composition.compose import choices
from launcher.gate.hardware_table import table
from launcher.memory.step.stage_loss import OUTSIDE

RETURNED_BY_THE_MODEL = {Loss.NEXT_TOKEN, Loss.SCORE, Loss.PPO}


def test_every_file_has_a_row_and_every_row_a_file() -> None:
    assert sorted(STAGES) == choices("stage")
    assert sorted(REGIMES) == choices("regime")


def test_every_loss_is_that_of_a_stage_and_has_its_bytes() -> None:
    assert {row.loss for row in STAGES.values()} == set(Loss) == set(OUTSIDE) | RETURNED_BY_THE_MODEL


@pytest.mark.parametrize(("name", "row"), REGIMES.items(), ids=REGIMES)
def test_a_row_of_a_regime_says_what_its_keys_say(name: str, row: RegimeRow) -> None:
    assert row.learns == "an adapter" or not issubclass(row.settings, Lora)
    assert row.quantised or not issubclass(row.settings, Qlora)
    assert row.published in {known.method for known in table()}


def test_a_name_without_a_row_is_refused_with_the_place_of_its_row() -> None:
    with pytest.raises(MissingRow, match=r"^stage=recital has no row in STAGES in conf/stages\.py\. Add its row there"):
        stage_row("recital")
    with pytest.raises(MissingRow, match=r"^regime=norms has no row in REGIMES in conf/regimes\.py\. Add its row there"):
        regime_row("norms")
