"""Supervised fine-tuning: next-token loss on the answers, through transformers' own Trainer.

TRL's SFTTrainer would add entropy and accuracy over whole logits to every step; the data comes tokenised and masked already.
"""

from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

from conf.run_dir import RunDir
from conf.schema import Run, Zero
from trainers.arguments import training_arguments
from trainers.regimes import PreparedModel, with_adapter
from trainers.stages.shared.chunked_loss import compute_loss_in_chunks
from trainers.stages.shared.material import Material

MODEL_CLASS = AutoModelForCausalLM


def build_arguments(run: Run, run_dir: RunDir, has_evaluation: bool) -> TrainingArguments:
    return TrainingArguments(**training_arguments(run, run_dir, has_evaluation))


def build_trainer(run: Run, arguments: TrainingArguments, prepared: PreparedModel, material: Material) -> Trainer:
    if run.training.loss == "chunked":
        gathered = isinstance(run.sharding, Zero) and run.sharding.stage == 3
        compute_loss_in_chunks(prepared.model, longest=run.data.cutoff if gathered else None)
    return Trainer(
        model=with_adapter(prepared, run),
        args=arguments,
        data_collator=material.collate,
        **material.keywords,
    )
