"""Direct preference optimisation (arXiv:2305.18290) through TRL: chosen answers gain on rejected ones, measured against the model before training."""

from typing import Any

from torch import Tensor, nn
from transformers import AutoModelForCausalLM, Trainer, set_seed
from trl import DPOConfig, DPOTrainer
from trl.trainer.dpo_trainer import DataCollatorForPreference

from conf.run_dir import RunDir
from conf.schema import Dpo, Run
from trainers.regimes import PreparedModel
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


class ReferenceFirst(AsPrepared, DPOTrainer):
    """TRL keeps the policy's logits while the reference computes its own, and at each step turns checkpointing off and on again, which adds a hook.

    Here the reference goes first and leaves two numbers a pair, as with stage.precompute_reference.
    """

    def compute_ref_log_probs(self, model: nn.Module, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        with as_before_training(self.accelerator.unwrap_model(model)), self.accelerator.autocast():
            logps = completion_logps(model, inputs["input_ids"], inputs["attention_mask"], inputs["completion_mask"])
        chosen, rejected = logps.chunk(2)
        return chosen, rejected

    def _compute_loss(self, model: nn.Module, inputs: dict[str, Tensor], return_outputs: bool) -> Any:
        if "ref_chosen_logps" not in inputs:
            chosen, rejected = self.compute_ref_log_probs(self.model if self.ref_model is None else self.ref_model, inputs)
            inputs = {**inputs, "ref_chosen_logps": chosen, "ref_rejected_logps": rejected}
        return super()._compute_loss(model, inputs, return_outputs)


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


def build_trainer(run: Run, arguments: DPOConfig, prepared: PreparedModel, material: Material) -> Trainer:
    reference = None if arguments.precompute_ref_log_probs else load_reference(run, MODEL_CLASS, prepared)
    set_seed(run.training.seed)  # TRL draws the adapter
    trainer = ReferenceFirst(
        model=with_float_logits(prepared.model),
        ref_model=reference,
        args=arguments,
        data_collator=DataCollatorForPreference(pad_token_id=material.tokenizer.pad_token_id, pad_to_multiple_of=pad_multiple(run)),
        **material.keywords,
        peft_config=prepared.peft_config,
    )
    trainer.precompute_ref_logps = True  # what a batch lacks, _compute_loss adds
    return settled(trainer, run)
