"""Direct preference optimisation (arXiv:2305.18290) through TRL: chosen answers gain on rejected ones, measured against the model before training."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModelForCausalLM, Trainer, set_seed
from trl import DPOConfig, DPOTrainer
from trl.trainer.dpo_trainer import DataCollatorForPreference

from conf.run_dir import RunDir
from conf.schema import Dpo, Run
from trainers.kernels.parts import fused
from trainers.regimes import PreparedModel
from trainers.stages.shared.comparing import Comparing, mean
from trainers.stages.shared.evaluation import Fraction, each, means_of, of_pairs
from trainers.stages.shared.material import Material
from trainers.stages.shared.pairs import joined_pairs
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
from trainers.stages.shared.texts import TEXTS

MODEL_CLASS = AutoModelForCausalLM


# Of each pair, by TRL's name (trl/trainer/dpo_trainer.py, _compute_loss): beta times the lead of the chosen log-ratio, the lead per token, the stage.
PAIR_LOSSES: dict[str, Callable[[Tensor, Tensor, Dpo], Tensor]] = {
    "sigmoid": lambda lead, _, stage: -functional.logsigmoid(lead),
    "hinge": lambda lead, _, stage: torch.relu(1 - lead),
    "ipo": lambda _, per_token, stage: (per_token - 1 / (2 * stage.beta)) ** 2,
    "robust": lambda lead, _, stage: (
        ((stage.label_smoothing - 1) * functional.logsigmoid(lead) + stage.label_smoothing * functional.logsigmoid(-lead))
        / (1 - 2 * stage.label_smoothing)
    ),
}


class ReferenceFirst(AsPrepared, Comparing, DPOTrainer):
    """TRL keeps the policy's logits while the reference computes its own, and at each step turns checkpointing off and on again, which adds a hook.

    Here the reference goes first and leaves two numbers a pair, as with stage.precompute_reference.

    TRL takes the next-token loss of stage.sft_weight over the tokens of a micro-batch. Here it is that over the whole optimizer step on all ranks, as
    in orpo and simpo: what a token weighs does not depend on its micro-batch.
    """

    stage: Dpo
    token_share: Tensor | None = (
        None  # micro-batches of this step on all ranks, over the tokens of its chosen answers; None: the mean of a micro-batch
    )

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> Any:
        batches, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        if self.stage.sft_weight:
            counted = [torch.as_tensor(count, dtype=torch.float64).to(device) for count in (len(batches), sum(map(chosen_tokens, batches)))]
            passes, tokens = self.accelerator.gather(torch.stack(counted).unsqueeze(0)).sum(0)
            self.token_share = passes / tokens
        return batches, items

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
        """TRL's mean over the tokens of this micro-batch gets the weight by which it is its share of that over the step's."""
        if self.token_share is not None and TEXTS not in inputs:
            tokens = chosen_tokens(inputs) * self.token_share / self.weight_of(inputs)
            self.loss_weights = [*self.loss_weights[:-1], (self.stage.sft_weight * tokens).float()]
        return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)

    def compute_ref_log_probs(self, model: nn.Module, inputs: dict[str, Any]) -> tuple[Tensor, Tensor]:
        with as_before_training(self.accelerator.unwrap_model(model)), self.accelerator.autocast():
            logps = completion_logps(model, inputs)
        chosen, rejected = logps.chunk(2)
        return chosen, rejected

    def _compute_loss(self, model: nn.Module, inputs: dict[str, Tensor], return_outputs: bool) -> Any:
        if "ref_chosen_logps" not in inputs:
            chosen, rejected = self.compute_ref_log_probs(self.model if self.ref_model is None else self.ref_model, inputs)
            inputs = {**inputs, "ref_chosen_logps": chosen.float(), "ref_rejected_logps": rejected.float()}
        return super()._compute_loss(model, inputs, return_outputs)

    def measure(self, model: nn.Module, batch: dict[str, Any]) -> dict[str, Fraction]:
        reference = self.reference_of(batch)
        logps = completion_logps(model, batch)
        lengths = batch["lengths"] if TEXTS in batch else batch["completion_mask"].sum(1)
        chosen, rejected = (logps - reference).chunk(2)
        chosen_length, rejected_length = lengths.chunk(2)
        lead, per_token = self.stage.beta * (chosen - rejected), chosen / chosen_length - rejected / rejected_length
        losses = weighted_losses(self.stage)
        parts = {
            "loss": each(sum(losses[name] * PAIR_LOSSES[name](lead, per_token, self.stage) for name in losses if name != "sft")),
            **of_pairs(self.stage.beta * chosen, self.stage.beta * rejected),
            "logp_chosen": each(logps.chunk(2)[0]),
            "logp_rejected": each(logps.chunk(2)[1]),
        }
        return {**parts, "nll_loss": Fraction(-logps.chunk(2)[0], chosen_length)} if self.stage.sft_weight else parts

    def loss_of(self, parts: dict[str, Fraction], weight: float = 1.0) -> Tensor:
        pairs = mean(parts["loss"]) * weight
        if not self.stage.sft_weight:
            return pairs
        learned = parts["nll_loss"]
        tokens = mean(learned) * weight if self.token_share is None else learned.totals.sum() * self.token_share
        return pairs + self.stage.sft_weight * tokens

    def reference_of(self, batch: dict[str, Any]) -> Tensor:
        if "ref_chosen_logps" in batch:
            return torch.cat([batch["ref_chosen_logps"], batch["ref_rejected_logps"]])
        return torch.cat(self.compute_ref_log_probs(self.model if self.ref_model is None else self.ref_model, batch))

    def conclude(self, parts: dict[str, Fraction]) -> dict[str, float]:
        """The preference is a mean over pairs, the next-token loss one over the tokens of chosen answers."""
        means = means_of(parts)
        return {**means, "loss": means["loss"] + self.stage.sft_weight * means.get("nll_loss", 0.0)}


def chosen_tokens(batch: dict[str, Any]) -> Tensor:
    """Learned by the next-token loss, in a batch whose first half are the chosen answers."""
    lengths: Tensor = batch["lengths"] if TEXTS in batch else batch["completion_mask"][:, 1:].sum(1)
    return lengths.chunk(2)[0].sum()


def build_arguments(run: Run, run_dir: RunDir, has_evaluation: bool) -> DPOConfig:
    assert isinstance(run.stage, Dpo)
    losses = weighted_losses(run.stage)
    return DPOConfig(
        **trl_arguments(run, run_dir, has_evaluation),
        beta=run.stage.beta,
        loss_type=list(losses),
        loss_weights=list(losses.values()),
        label_smoothing=run.stage.label_smoothing,
        precompute_ref_log_probs=run.stage.precompute_reference,
        router_aux_loss_coef=0.0,  # as in stage=sft
    )


def weighted_losses(stage: Dpo) -> dict[str, float]:
    """TRL's losses and their weights.

    Its sigmoid loss S = -log s(x) leaves smoothing e out, and its robust one is R = (-(1-e) log s(x) + e log s(-x)) / (1-2e):
    conservative DPO, -(1-e) log s(x) - e log s(-x), is 2(1-e) S - (1-2e) R.
    """
    smoothing = stage.label_smoothing
    smoothed = stage.loss == "sigmoid" and smoothing > 0
    losses = {"sigmoid": 2 * (1 - smoothing), "robust": 2 * smoothing - 1} if smoothed else {stage.loss: 1.0}
    return {**losses, "sft": stage.sft_weight} if stage.sft_weight else losses


def collator(run: Run, padding: int) -> Callable[[list[dict[str, Any]]], dict[str, Any]]:
    if fused(run):
        return partial(joined_pairs, run=run)
    return DataCollatorForPreference(pad_token_id=padding, pad_to_multiple_of=pad_multiple(run))


def build_trainer(run: Run, arguments: DPOConfig, prepared: PreparedModel, material: Material) -> Trainer:
    reference = None if arguments.precompute_ref_log_probs else load_reference(run, MODEL_CLASS, prepared)
    set_seed(run.training.seed)  # TRL draws the adapter
    trainer = ReferenceFirst(
        model=ready(prepared.model, run),
        ref_model=reference,
        args=arguments,
        data_collator=collator(run, material.tokenizer.pad_token_id),
        **material.keywords,
        peft_config=prepared.peft_config,
    )
    trainer.precompute_ref_logps = True  # what a batch lacks, _compute_loss adds
    assert isinstance(run.stage, Dpo)
    trainer.stage = run.stage
    return settled(trainer, run)
