import pytest

from conf.choices import choice
from launcher.gate.changes import (
    as_override,
    carried,
    loss_moves,
    micro_batches,
    optimizer_moves,
    overrides_between,
    regime_moves,
    with_micro_batch,
)
from tests.described import described


def run_of(*overrides: str):
    return described("model=demo", "data=demo", "node=h100_80", *overrides)


def test_a_choice_is_read_as_composition_reads_it():
    run = run_of("regime=qlora", "sharding=zero3", "optim=adamw_8bit")

    assert choice("regime", "qlora") == run.regime
    assert choice("sharding", "zero3") == run.sharding
    assert choice("optim", "adamw_8bit") == run.optim


def test_a_regime_keeps_what_the_user_set_of_the_other():
    run = run_of("regime=lora", "regime.rank=64")

    assert carried("regime", "qlora", run.regime).rank == 64
    assert carried("regime", "qlora", run.regime).bits == 4


def test_equal_runs_need_no_overrides():
    run = run_of()

    assert overrides_between(run, run) == ()


def test_overrides_lead_from_one_run_to_the_other():
    before = ("regime=lora", "regime.rank=64", "regime.targets=[q_proj,v_proj]")
    after = run_of("regime=qlora", "regime.rank=64", "regime.targets=[q_proj,v_proj]", "regime.bits=2", "training.loss=fused", "evaluation.answers=0")

    overrides = overrides_between(run_of(*before), after)

    assert "regime=qlora" in overrides
    assert "regime.bits=2" in overrides
    assert run_of(*before, *overrides) == after


def test_a_dequantised_base_may_stay_packed_and_every_smaller_one_does():
    run = run_of("regime=qlora", "regime.dequantised=true")

    moved = [move.apply(run).regime for move in regime_moves(run)]
    assert [(regime.bits, regime.dequantised) for regime in moved] == [(4, False), (2, False)]


def test_a_packed_base_leaves_8_bit_products_behind():
    run = run_of("regime=lora", "training.fp8=true")

    moved = [move.apply(run) for move in regime_moves(run)]
    assert [(each.regime.name, each.training.fp8) for each in moved] == [("qlora", False)] * 3
    assert "training.fp8=false" in overrides_between(run, moved[0])


def test_micro_batches_keep_the_effective_batch_on_every_rank():
    run = run_of("node.gpus=2", "training.micro_batch=6", "training.accumulation=2")  # 24 samples a step: 12 a rank

    assert micro_batches(run) == [6, 4, 3, 2, 1]
    smaller = with_micro_batch(run, 4)
    assert (smaller.training.micro_batch, smaller.training.accumulation, smaller.training.effective_batch) == (4, 3, 24)


def test_values_are_written_as_hydra_reads_them():
    assert [as_override(value) for value in (None, True, 3, 0.5, ["a", "b"])] == ["null", "true", "3", "0.5", "[a,b]"]


def test_an_optimizer_leads_to_its_fused_kernel_and_to_its_own_states_in_eight_bits():
    expected = {"adamw_foreach": ["adamw", "adamw_8bit"], "adamw": ["adamw_8bit"], "lion": ["lion_8bit"], "lion_8bit": [], "muon": []}
    for name, others in expected.items():
        run = run_of(f"optim={name}", "optim.lr=0.5")
        moved = [move.apply(run).optim for move in optimizer_moves(run)]
        assert [optim.name for optim in moved] == others
        assert all(optim.lr == 0.5 for optim in moved)


@pytest.mark.parametrize(
    ("overrides", "loss"),
    [
        (("node=cpu",), "chunked"),
        (("node=h100_80",), "fused"),
        (("node=h100_80", "model.architecture.model_type=gpt_neox"), "chunked"),  # liger has none for it
    ],
)
def test_the_loss_is_fused_where_there_is_a_kernel_for_it_and_else_chunked(overrides, loss):
    (move,) = loss_moves(run_of(*overrides))

    assert move.apply(run_of()).training.loss == loss
    assert loss_moves(move.apply(run_of(*overrides))) == []
