"""Kahneman-Tversky optimisation (arXiv:2402.01306) through TRL: single answers labelled good or bad, no pairs."""

from typing import Any

from torch import Tensor, nn
from transformers import AutoModelForCausalLM, Trainer, set_seed
from trl import KTOConfig, KTOTrainer
from trl.trainer.kto_trainer import DataCollatorForUnpairedPreference

from conf.run_dir import RunDir
from conf.schema import Kto, Run
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


class WithOthersAnswers(DataCollatorForUnpairedPreference):
    """Each prompt also meets the answer of its neighbour in the batch: how far the policy has moved on such pairs is the estimate of KL.

    TRL pairs them once, before training, and must then read the rows in their order; here they are drawn at random like those of every stage.
    """

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        others = [row["completion_ids"] for row in (examples[-1], *examples[:-1])]
        batch: dict[str, Any] = super().torch_call([{**row, "KL_completion_ids": other} for row, other in zip(examples, others, strict=True)])
        return batch


class ReferenceFirst(AsPrepared, KTOTrainer):
    """As in stages/dpo.py: the reference leaves two numbers a row, and no logits of its own beside the policy's."""

    def compute_ref_log_probs(self, model: nn.Module, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        with as_before_training(self.accelerator.unwrap_model(model)), self.accelerator.autocast():
            own = completion_logps(model, inputs["input_ids"], inputs["attention_mask"], inputs["completion_mask"])
            others = completion_logps(model, inputs["KL_input_ids"], inputs["KL_attention_mask"], inputs["KL_completion_mask"])
        return own, others

    def _compute_loss(self, model: nn.Module, inputs: dict[str, Tensor], return_outputs: bool) -> Any:
        own, others = self.compute_ref_log_probs(self.model if self.ref_model is None else self.ref_model, inputs)
        return super()._compute_loss(model, {**inputs, "ref_logps": own, "ref_KL_logps": others}, return_outputs)


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
