"""Commits each checkpoint that the trainer wrote aside."""

from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from conf.run_dir import RunDir
from trainers.checkpoints.commit import commit, prune
from trainers.model.conversation import save_ends
from trainers.ranks.agreement import on_rank_zero


class Committing(TrainerCallback):
    def __init__(self, run_dir: RunDir, keep: int, world: int) -> None:
        self.run_dir, self.keep, self.world = run_dir, keep, world

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """The recorded path of the best checkpoint is where it was made, not where it is."""
        if state.best_global_step:
            state.best_model_checkpoint = str(self.run_dir.checkpoint(state.best_global_step))

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any) -> None:
        staged = Path(str(args.output_dir)) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"

        def complete() -> None:
            save_ends(model, staged)
            commit(staged, self.run_dir, state.global_step, self.world)

        on_rank_zero(complete, f"committing step {state.global_step}")
        if state.best_global_step:
            state.best_model_checkpoint = str(self.run_dir.checkpoint(state.best_global_step))
        best = Path(state.best_model_checkpoint) if state.best_model_checkpoint else None
        on_rank_zero(lambda: prune(self.run_dir, self.keep, best), "removing old checkpoints")
