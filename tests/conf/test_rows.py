"""The rows of optimizers and shardings agree with themselves, with the YAML files, and with the names of transformers."""

import pytest
from transformers.training_args import OptimizerNames

from conf.optimizers import OPTIMIZERS, OptimizerRow, optimizer_row
from conf.rows import MissingRow
from conf.schema import Badam, Galore, Zero
from conf.shardings import SHARDINGS, ShardingRow, sharding_row
from launcher.composition.compose import choices, compose


def test_every_file_has_a_row_and_every_row_a_file() -> None:
    assert sorted(OPTIMIZERS) == choices("optim")
    assert sorted(SHARDINGS) == choices("sharding")


@pytest.mark.parametrize(("name", "row"), OPTIMIZERS.items(), ids=OPTIMIZERS)
def test_a_row_of_an_optimizer_says_one_thing(name: str, row: OptimizerRow) -> None:
    for known in (row.transformers, row.on_cpu):
        assert known is None or known in list(OptimizerNames)
    for other in (row.fused, row.in_eight_bits):
        assert other is None or OPTIMIZERS[other].moments == row.moments
    assert row.in_eight_bits is None or OPTIMIZERS[row.in_eight_bits].bits == 8
    assert not row.paged or row.bits is not None
    assert (row.keeps == "projected moments") == (row.step == "projected") == issubclass(row.settings, Galore)
    assert (row.keeps == "moments of one layer") == (row.step == "one layer") == issubclass(row.settings, Badam)


@pytest.mark.parametrize(("name", "row"), SHARDINGS.items(), ids=SHARDINGS)
def test_a_row_of_a_sharding_says_what_its_file_says(name: str, row: ShardingRow) -> None:
    sharding = compose(["model=demo", "data=demo", f"sharding={name}"]).sharding
    if isinstance(sharding, Zero):
        assert (len(row.splits), row.offloads) == (sharding.stage, sharding.offload_optimizer)
    assert row.splits == ("states", "gradients", "weights")[: len(row.splits)]
    assert (row.cost is None) == (row.note == "")


def test_a_name_without_a_row_is_refused_with_the_place_of_its_row() -> None:
    with pytest.raises(MissingRow, match=r"^optim=adagrad has no row in OPTIMIZERS in conf/optimizers.py. .* or use adamw, "):
        optimizer_row("adagrad")
    with pytest.raises(MissingRow, match=r"^sharding=zero4 has no row in SHARDINGS in conf/shardings.py. "):
        sharding_row("zero4")
