"""Kahneman-Tversky optimisation (arXiv:2402.01306) through TRL: single answers labelled good or bad, no pairs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, Trainer, set_seed
from trl import KTOConfig, KTOTrainer
from trl.trainer.kto_trainer import DataCollatorForUnpairedPreference

from conf.run_dir import RunDir
from conf.schema import Kto, Run
from trainers.errors import DataError
from trainers.kernels.parts import fused
from trainers.regimes import PreparedModel
from trainers.stages.shared.comparing import Comparing, mean
from trainers.stages.shared.evaluation import Fraction, each, means_of
from trainers.stages.shared.material import Material
from trainers.stages.shared.preferences import (
    AsPrepared,
    as_before_training,
    completion_logps,
    load_reference,
    pad_multiple,
    ready,
    settled,
    trl_arguments,
)
from trainers.stages.shared.texts import TEXTS, joined_texts

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


OTHERS = "others"


def joined_answers(rows: list[dict[str, Any]], run: Run) -> dict[str, Any]:
    """Each prompt with its own answer (shared/texts.py), and under OTHERS with its neighbour's, which is cut where a text would be too long."""
    given = [row.get(OTHER, before["completion_ids"]) for before, row in zip((rows[-1], *rows[:-1]), rows, strict=True)]
    others = [(row["prompt_ids"], other[: max(0, run.data.cutoff - len(row["prompt_ids"]))]) for row, other in zip(rows, given, strict=True)]
    own = joined_texts(run, [(row["prompt_ids"], row["completion_ids"]) for row in rows])
    return {**own, OTHERS: joined_texts(run, others), "label": torch.tensor([row["label"] for row in rows])}


@dataclass(frozen=True)
class InTheirOrder:
    """Each prompt also meets the answer of the row before it, and the first that of the last: the same pairs in every evaluation, in any batch."""

    rows: Sequence[dict[str, Any]]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {**self.rows[index], OTHER: self.rows[(index - 1) % len(self)]["completion_ids"]}


class ReferenceFirst(AsPrepared, Comparing, KTOTrainer):
    """As in stages/dpo.py: the reference leaves two numbers a row, and no logits of its own beside the policy's."""

    def compute_ref_log_probs(self, model: nn.Module, inputs: dict[str, Any]) -> tuple[Tensor, Tensor]:
        with as_before_training(self.accelerator.unwrap_model(model)), self.accelerator.autocast():
            return completion_logps(model, inputs), logps_of_others(model, inputs)

    def _compute_loss(self, model: nn.Module, inputs: dict[str, Tensor], return_outputs: bool) -> Any:
        own, others = self.compute_ref_log_probs(self.model if self.ref_model is None else self.ref_model, inputs)
        return super()._compute_loss(model, {**inputs, "ref_logps": own.float(), "ref_KL_logps": others.float()}, return_outputs)

    def rows_to_evaluate(self, rows: Any) -> InTheirOrder:
        return InTheirOrder(rows)

    def measure(self, model: nn.Module, batch: dict[str, Any]) -> dict[str, Fraction]:
        own, others = self.compute_ref_log_probs(self.model if self.ref_model is None else self.ref_model, batch)
        with torch.no_grad():
            moved = logps_of_others(model, batch) - others
        logps = completion_logps(model, batch)
        good = batch["label"].bool()
        return {
            "kl": each(moved),
            "reward_chosen": each(self.beta * (logps - own), good),
            "reward_rejected": each(self.beta * (logps - own), ~good),
            "logp_chosen": each(logps, good),
            "logp_rejected": each(logps, ~good),
        }

    def loss_of(self, parts: dict[str, Fraction], weight: float = 1.0) -> Tensor:
        """The KL is that of the micro-batches of all ranks."""
        kl = self.accelerator.gather(parts["kl"].totals.mean()).mean().clamp(min=0)
        self.note({"positive_kl": each(kl)})
        losses = self.losses(parts, kl)
        return mean(losses) * weight

    def losses(self, parts: dict[str, Fraction], kl: Tensor | float) -> Fraction:
        """Eq. 7 of the paper, of each answer, whose reward is 0 where the other label is meant."""
        good, bad = parts["reward_chosen"], parts["reward_rejected"]
        gained = self.desirable_weight * (1 - torch.sigmoid(good.totals - self.beta * kl))
        lost = self.undesirable_weight * (1 - torch.sigmoid(self.beta * kl - bad.totals))
        return Fraction(gained * good.counts + lost * bad.counts, good.counts + bad.counts)

    def conclude(self, parts: dict[str, Fraction]) -> dict[str, float]:
        """The KL that every answer is measured against is that of all rows of the evaluation, of every rank."""
        means = means_of(parts)
        means["kl"] = max(means["kl"], 0.0)
        losses = self.losses(parts, means["kl"])
        if "reward_chosen" in means and "reward_rejected" in means:
            means["reward_margin"] = means["reward_chosen"] - means["reward_rejected"]
        return {**means, **means_of({"loss": losses})}


def logps_of_others(model: nn.Module, batch: dict[str, Any]) -> Tensor:
    """Of the answers of other prompts."""
    return completion_logps(model, batch[OTHERS] if TEXTS in batch else batch, "KL_")


def build_arguments(run: Run, run_dir: RunDir, has_evaluation: bool) -> KTOConfig:
    assert isinstance(run.stage, Kto)
    return KTOConfig(
        **trl_arguments(run, run_dir, has_evaluation),
        beta=run.stage.beta,
        desirable_weight=run.stage.desirable_weight,
        undesirable_weight=run.stage.undesirable_weight,
        router_aux_loss_coef=0.0,  # as in stage=sft
    )


def collator(run: Run, padding: int) -> Callable[[list[dict[str, Any]]], dict[str, Any]]:
    """A prompt with another's answer may be longer than any row."""
    if fused(run):
        return partial(joined_answers, run=run)
    return WithOthersAnswers(pad_token_id=padding, max_length=run.data.cutoff, pad_to_multiple_of=pad_multiple(run))


def build_trainer(run: Run, arguments: KTOConfig, prepared: PreparedModel, material: Material) -> Trainer:
    if material.evaluation is not None and len(material.evaluation) < 2:
        raise DataError(
            "stage=kto evaluates each prompt with the answer of another row too, and 1 labelled answer is held out. "
            "Hold out at least 2 (data.validation_share, data.evaluation_sets), or none."
        )
    reference = load_reference(run, MODEL_CLASS, prepared)
    set_seed(run.training.seed)  # TRL draws the adapter
    trainer = ReferenceFirst(
        model=ready(prepared.model, run),
        ref_model=reference,
        args=arguments,
        data_collator=collator(run, material.tokenizer.pad_token_id),
        **material.keywords,
        peft_config=prepared.peft_config,
    )
    trainer.args.train_sampling_strategy = "random"  # TRL's constructor insists on its own, sequential
    trainer.precompute_ref_logps = True  # what a batch lacks, _compute_loss adds
    return settled(trainer, run)
