"""Kahneman-Tversky optimisation (arXiv:2402.01306) through TRL: single answers labelled good or bad, no pairs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, Trainer, set_seed
from trl import KTOConfig, KTOTrainer
from trl.trainer.kto_trainer import DataCollatorForUnpairedPreference

from conf.run_dir import RunDir
from conf.schema import Kto, Run
from trainers.errors import DataError
from trainers.regimes import PreparedModel
from trainers.stages.shared.evaluation import Evaluating, Fraction, each, means_of
from trainers.stages.shared.material import Material
from trainers.stages.shared.preferences import (
    AsPrepared,
    as_before_training,
    completion_logps,
    load_reference,
    pad_multiple,
    settled,
    trl_arguments,
    with_float_logits,
)

MODEL_CLASS = AutoModelForCausalLM
OTHER = "KL_completion_ids"  # TRL's name


class WithOthersAnswers(DataCollatorForUnpairedPreference):
    """Each prompt also meets the answer of its neighbour in the batch: how far the policy has moved on such pairs is the estimate of KL.

    TRL pairs them once, before training, and must then read the rows in their order; here they are drawn at random like those of every stage.
    Rows of an evaluation have met an answer already.
    """

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        if OTHER in examples[0]:
            return super().torch_call(examples)
        others = [row["completion_ids"] for row in (examples[-1], *examples[:-1])]
        batch: dict[str, Any] = super().torch_call([{**row, OTHER: other} for row, other in zip(examples, others, strict=True)])
        return batch


@dataclass(frozen=True)
class InTheirOrder:
    """Each prompt also meets the answer of the row before it, and the first that of the last: the same pairs in every evaluation, in any batch."""

    rows: Sequence[dict[str, Any]]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {**self.rows[index], OTHER: self.rows[(index - 1) % len(self)]["completion_ids"]}


class ReferenceFirst(AsPrepared, Evaluating, KTOTrainer):
    """As in stages/dpo.py: the reference leaves two numbers a row, and no logits of its own beside the policy's."""

    def compute_ref_log_probs(self, model: nn.Module, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        with as_before_training(self.accelerator.unwrap_model(model)), self.accelerator.autocast():
            own = completion_logps(model, inputs["input_ids"], inputs["attention_mask"], inputs["completion_mask"])
            others = completion_logps(model, inputs["KL_input_ids"], inputs["KL_attention_mask"], inputs["KL_completion_mask"])
        return own, others

    def _compute_loss(self, model: nn.Module, inputs: dict[str, Tensor], return_outputs: bool) -> Any:
        own, others = self.compute_ref_log_probs(self.model if self.ref_model is None else self.ref_model, inputs)
        return super()._compute_loss(model, {**inputs, "ref_logps": own.float(), "ref_KL_logps": others.float()}, return_outputs)

    def rows_to_evaluate(self, rows: Any) -> InTheirOrder:
        return InTheirOrder(rows)

    def measure(self, model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Fraction]:
        own, others = self.compute_ref_log_probs(self.model if self.ref_model is None else self.ref_model, batch)
        logps = completion_logps(model, batch["input_ids"], batch["attention_mask"], batch["completion_mask"])
        moved = completion_logps(model, batch["KL_input_ids"], batch["KL_attention_mask"], batch["KL_completion_mask"]) - others
        good = batch["label"].bool()
        return {
            "kl": each(moved),
            "reward_chosen": each(self.beta * (logps - own), good),
            "reward_rejected": each(self.beta * (logps - own), ~good),
            "logp_chosen": each(logps, good),
            "logp_rejected": each(logps, ~good),
        }

    def conclude(self, parts: dict[str, Fraction]) -> dict[str, float]:
        """Eq. 7 of the paper: the KL that every answer is measured against is that of all rows of the evaluation, of every rank."""
        means = means_of(parts)
        means["kl"] = max(means["kl"], 0.0)
        good, bad = parts["reward_chosen"], parts["reward_rejected"]
        gained = self.desirable_weight * (1 - torch.sigmoid(good.totals - self.beta * means["kl"]))
        lost = self.undesirable_weight * (1 - torch.sigmoid(self.beta * means["kl"] - bad.totals))
        losses = Fraction(gained * good.counts + lost * bad.counts, good.counts + bad.counts)
        if "reward_chosen" in means and "reward_rejected" in means:
            means["reward_margin"] = means["reward_chosen"] - means["reward_rejected"]
        return {**means, **means_of({"loss": losses})}


def build_arguments(run: Run, run_dir: RunDir, has_evaluation: bool) -> KTOConfig:
    assert isinstance(run.stage, Kto)
    return KTOConfig(
        **trl_arguments(run, run_dir, has_evaluation),
        beta=run.stage.beta,
        desirable_weight=run.stage.desirable_weight,
        undesirable_weight=run.stage.undesirable_weight,
        router_aux_loss_coef=0.0,  # as in stage=sft
    )


def build_trainer(run: Run, arguments: KTOConfig, prepared: PreparedModel, material: Material) -> Trainer:
    if material.evaluation is not None and len(material.evaluation) < 2:
        raise DataError(
            "stage=kto evaluates each prompt with the answer of another row too, and 1 labelled answer is held out. "
            "Hold out at least 2 (data.validation_share, data.evaluation_sets), or none."
        )
    reference = load_reference(run, MODEL_CLASS, prepared)
    set_seed(run.training.seed)  # TRL draws the adapter
    trainer = ReferenceFirst(
        model=with_float_logits(prepared.model),
        ref_model=reference,
        args=arguments,
        # a prompt with another's answer may be longer than any row
        data_collator=WithOthersAnswers(
            pad_token_id=material.tokenizer.pad_token_id, max_length=run.data.cutoff, pad_to_multiple_of=pad_multiple(run)
        ),
        **material.keywords,
        peft_config=prepared.peft_config,
    )
    trainer.args.train_sampling_strategy = "random"  # TRL's constructor insists on its own, sequential
    trainer.precompute_ref_logps = True  # what a batch lacks, _compute_loss adds
    return settled(trainer, run)
