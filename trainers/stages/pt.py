"""Pre-training that goes on: next-token loss on every token of plain text. Its rows differ from those of stage=sft, its trainer does not."""

from trainers.stages.sft import MODEL_CLASS, build_arguments, build_trainer

__all__ = ["MODEL_CLASS", "build_arguments", "build_trainer"]
