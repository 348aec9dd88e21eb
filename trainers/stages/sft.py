"""Supervised fine-tuning: next-token loss on the answers, through transformers' own Trainer. Its evaluation is the mean over all learned tokens.

TRL's SFTTrainer would add entropy and accuracy over whole logits to every step; the data comes tokenised and masked already.
"""

from typing import Any

from torch import nn
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

from conf.run_dir import RunDir
from conf.schema import Run, Zero
from trainers.arguments import training_arguments
from trainers.data.rows.tokens import MASKED
from trainers.kernels.parts import fused, with_fused_adapter, with_fused_base, with_fused_steps
from trainers.regimes import PreparedModel, with_adapter
from trainers.stages.shared.chunked_loss import compute_loss_in_chunks
from trainers.stages.shared.evaluation import Evaluating, Fraction
from trainers.stages.shared.material import Material

MODEL_CLASS = AutoModelForCausalLM


class NextToken(Evaluating):
    def measure(self, model: nn.Module, batch: dict[str, Any]) -> dict[str, Fraction]:
        learned = (batch["labels"][..., 1:] != MASKED).sum()
        alone = {"skip_logits": True} if self.args.use_liger_kernel else {}  # else liger's loss keeps whole logits outside of training
        if self.model_accepts_loss_kwargs:
            summed = model(**batch, **alone, num_items_in_batch=1).loss
        else:  # the mean of the batch; there is none where nothing is learned
            summed = model(**batch, **alone).loss * learned if learned else learned
        return {"loss": Fraction(summed, learned)}


def build_arguments(run: Run, run_dir: RunDir, has_evaluation: bool) -> TrainingArguments:
    return TrainingArguments(**training_arguments(run, run_dir, has_evaluation))


def build_trainer(run: Run, arguments: TrainingArguments, prepared: PreparedModel, material: Material) -> Trainer:
    if fused(run):
        with_fused_base(prepared.model, run)
    if run.training.loss == "chunked":
        gathered = isinstance(run.sharding, Zero) and run.sharding.stage == 3
        compute_loss_in_chunks(prepared.model, longest=run.data.cutoff if gathered else None)
    model = with_adapter(prepared, run)
    trainer = NextToken(
        model=with_fused_adapter(model, run) if fused(run) else model,
        args=arguments,
        data_collator=material.collate,
        **material.keywords,
    )
    return with_fused_steps(trainer, run, material.tokenizer) if fused(run) else trainer
