"""Direct preference optimisation: every loss by hand, the reference, and answers that change places."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Trainer

from conf.schema import Run
from trainers.model.build import save_random_base
from trainers.regimes import prepare_model
from trainers.stages import dpo
from trainers.stages.shared.preferences import load_reference

BETA = 0.5


def log_sigmoid(value: float) -> float:
    return -math.log1p(math.exp(-value))


# Of x = the lead of the chosen log-ratio over the rejected one, and of the same lead per token.
LOSSES: dict[str, tuple[tuple[str, ...], Callable[[float, float], float]]] = {
    "sigmoid": ((), lambda lead, _: -log_sigmoid(BETA * lead)),
    "conservative": (("stage.label_smoothing=0.2",), lambda lead, _: -0.8 * log_sigmoid(BETA * lead) - 0.2 * log_sigmoid(-BETA * lead)),
    "hinge": (("stage.loss=hinge",), lambda lead, _: max(0.0, 1 - BETA * lead)),
    "ipo": (("stage.loss=ipo",), lambda _, mean_lead: (mean_lead - 1 / (2 * BETA)) ** 2),
    "robust": (
        ("stage.loss=robust", "stage.label_smoothing=0.2"),
        lambda lead, _: (-0.8 * log_sigmoid(BETA * lead) + 0.2 * log_sigmoid(-BETA * lead)) / 0.6,
    ),
}


@pytest.mark.parametrize("regime", ["regime=full", "regime=lora"])
@pytest.mark.parametrize("loss", LOSSES)
def test_the_loss_is_that_of_the_paper(
    loss: str,
    regime: str,
    tmp_path: Path,
    run_of: Callable[..., Run],
    rows_of: Callable[..., Any],
    trainer_of: Callable[..., Trainer],
    logps_of: Callable[..., torch.Tensor],
) -> None:
    overrides, by_hand = LOSSES[loss]
    rows = rows_of("dpo", 4)
    run = run_of("dpo", regime, f"stage.beta={BETA}", "training.max_steps=1", "optim.lr=0.05", "evaluation.micro_batch=4", *overrides)
    trainer = trainer_of(run, tmp_path, rows, rows)
    sides = [(row["prompt_ids"], row[side]) for row in rows for side in ("chosen_ids", "rejected_ids")]
    reference = [logps_of(trainer.model, *side) for side in sides]
    trainer.train()
    ratios = [logps_of(trainer.model, *side) - start for side, start in zip(sides, reference, strict=True)]
    leads = [(chosen.sum() - rejected.sum()).item() for chosen, rejected in zip(ratios[::2], ratios[1::2], strict=True)]
    mean_leads = [(chosen.mean() - rejected.mean()).item() for chosen, rejected in zip(ratios[::2], ratios[1::2], strict=True)]
    found = trainer.evaluate()
    assert max(abs(lead) for lead in leads) > 0.1
    assert found["eval_loss"] == pytest.approx(sum(map(by_hand, leads, mean_leads)) / 4, rel=1e-3)
    assert found["eval_reward_margin"] == pytest.approx(BETA * sum(leads) / 4, rel=1e-3)


def test_the_weighted_next_token_loss_on_chosen_answers_is_added(
    tmp_path: Path, run_of: Callable[..., Run], rows_of: Callable[..., Any], trainer_of: Callable[..., Trainer], logps_of: Callable[..., torch.Tensor]
) -> None:
    rows = rows_of("dpo", 4)
    trainer = trainer_of(run_of("dpo", "regime=full", "stage.sft_weight=0.5", "evaluation.micro_batch=4"), tmp_path, rows, rows)
    tokens = torch.cat([logps_of(trainer.model, row["prompt_ids"], row["chosen_ids"]) for row in rows])
    assert trainer.evaluate()["eval_loss"] == pytest.approx(math.log(2) - 0.5 * tokens.mean().item(), rel=1e-4)


@pytest.mark.parametrize(("regime", "precision"), [("full", "fp32"), ("full", "bf16_amp"), ("lora", "bf16_amp"), ("lora", "bf16")])
def test_a_reference_that_spoke_before_training_says_the_same(
    regime: str,
    precision: str,
    tmp_path: Path,
    run_of: Callable[..., Run],
    rows_of: Callable[..., Any],
    trainer_of: Callable[..., Trainer],
    logged: Callable[[Trainer, str], list[float]],
) -> None:
    losses = []
    for before in ("false", "true"):
        run = run_of("dpo", f"regime={regime}", f"training.precision={precision}", f"stage.precompute_reference={before}", "training.max_steps=3")
        trainer = trainer_of(run, tmp_path / before, rows_of("dpo"), rows_of("dpo", 4))
        trainer.train()
        losses.append([*logged(trainer, "loss"), trainer.evaluate()["eval_loss"]])
        assert (trainer.ref_model is None) == (before == "true" or regime == "lora")
    # rows share a batch with other rows before training, and in bf16 each width rounds in its own way
    assert losses[1] == pytest.approx(losses[0], rel=1e-5 if precision == "fp32" else 5e-3)


@pytest.mark.parametrize("precision", ["bf16_amp", "bf16", "fp32"])
def test_the_reference_is_frozen_and_held_in_the_dtype_that_is_computed_in(precision: str, tmp_path: Path, run_of: Callable[..., Run]) -> None:
    run = run_of("dpo", "regime=full", f"training.precision={precision}")
    prepared = prepare_model(run, dpo.MODEL_CLASS, tmp_path / "base")
    reference = load_reference(run, dpo.MODEL_CLASS, prepared)
    assert reference is not None
    expected = torch.float32 if precision == "fp32" else torch.bfloat16
    assert {parameter.dtype for parameter in reference.parameters()} == {expected}
    assert not any(parameter.requires_grad for parameter in reference.parameters())
    weights = zip(reference.parameters(), prepared.model.parameters(), strict=True)
    assert all(torch.equal(theirs, ours.to(expected)) for theirs, ours in weights)


@pytest.mark.parametrize("precision", ["bf16_amp", "fp32"])
def test_the_reference_of_a_pretrained_model_is_loaded_from_its_files(precision: str, tmp_path: Path, run_of: Callable[..., Run]) -> None:
    """With every weight learning: the regime has fp32 masters in its row, and the reference needs none."""
    save_random_base(run_of("dpo", "regime=full"), dpo.MODEL_CLASS, tmp_path / "base")
    run = run_of("dpo", "regime=full", f"training.precision={precision}", "model.init=pretrained", f"model.path={tmp_path / 'base'}")
    prepared = prepare_model(run, dpo.MODEL_CLASS, tmp_path / "none")
    reference = load_reference(run, dpo.MODEL_CLASS, prepared)
    assert reference is not None
    dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    assert all(torch.equal(theirs, ours.to(dtype)) for theirs, ours in zip(reference.parameters(), prepared.model.parameters(), strict=True))


@pytest.mark.parametrize("regime", [("regime=full",), ("regime=lora", "regime.rank=8")])
def test_chosen_answers_gain_on_rejected_ones_in_unseen_pairs(
    regime: tuple[str, ...], tmp_path: Path, run_of: Callable[..., Run], rows_of: Callable[..., Any], trainer_of: Callable[..., Trainer]
) -> None:
    rows = rows_of("dpo", 48)
    run = run_of("dpo", *regime, "training.max_steps=20", "evaluation.micro_batch=16")
    trainer = trainer_of(run, tmp_path, rows.select(range(32)), rows.select(range(32, 48)))
    before = trainer.evaluate()
    trainer.train()
    after = trainer.evaluate()
    assert before["eval_loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert before["eval_reward_margin"] == pytest.approx(0, abs=1e-5)
    assert after["eval_reward_margin"] > 0.5
    assert after["eval_reward_accuracy"] == 1.0


def test_checkpointed_activations_change_no_step_and_leave_no_hook(
    tmp_path: Path,
    run_of: Callable[..., Run],
    rows_of: Callable[..., Any],
    trainer_of: Callable[..., Trainer],
    logged: Callable[[Trainer, str], list[float]],
) -> None:
    losses = []
    for checkpointing in ("false", "true"):
        trainer = trainer_of(
            run_of("dpo", "regime=lora", f"training.gradient_checkpointing={checkpointing}", "training.max_steps=3"),
            tmp_path / checkpointing,
            rows_of("dpo"),
        )
        trainer.train()
        losses.append(logged(trainer, "loss"))
        assert len(trainer.model.get_input_embeddings()._forward_hooks) == (checkpointing == "true")
    assert losses[0] == losses[1]
