"""Commits each checkpoint that the trainer wrote aside."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from conf.run_dir import RunDir
from trainers.checkpoints.commit import commit
from trainers.checkpoints.keeping import prune
from trainers.checkpoints.room import refuse_full_disk
from trainers.model.conversation import save_ends
from trainers.ranks.agreement import on_rank_zero
from trainers.ranks.stop import leave_if_asked


class Committing(TrainerCallback):
    """`before` is called before each commit; where it raises nothing is committed. `need` gives the bytes of the next one. Both are collective."""

    def __init__(
        self, run_dir: RunDir, keep: int, world: int, before: Callable[[int], None] = lambda step: None, need: Callable[[], int] = int
    ) -> None:
        self.run_dir, self.keep, self.world, self.before, self.need = run_dir, keep, world, before, need

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """The recorded path of the best checkpoint is where it was made, not where it is."""
        if state.best_global_step:
            state.best_model_checkpoint = str(self.run_dir.checkpoint(state.best_global_step))

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if control.should_save:
            self.look_for_room()

    def look_for_room(self) -> None:
        """Raises NoRoom on rank 0, where the disk is too full for the next checkpoint."""
        need = self.need()
        on_rank_zero(lambda: refuse_full_disk(self.run_dir, need, "a checkpoint"), "looking for room on the disk")

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any) -> None:
        staged = Path(str(args.output_dir)) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"

        self.before(state.global_step)

        def complete() -> None:
            save_ends(model, staged)
            (staged / "training_args.bin").unlink(missing_ok=True)  # a pickle that nothing loads; run.yaml says it all
            commit(staged, self.run_dir, state.global_step, self.world)

        on_rank_zero(complete, f"committing step {state.global_step}")
        if state.best_global_step:
            state.best_model_checkpoint = str(self.run_dir.checkpoint(state.best_global_step))
        on_rank_zero(lambda: prune(self.run_dir, self.keep, best_of(state)), "removing old checkpoints")
        if state.global_step < state.max_steps and not control.should_training_stop:  # after the last step only the model is missing
            leave_if_asked()


def best_of(state: TrainerState) -> Path | None:
    return Path(state.best_model_checkpoint) if state.best_model_checkpoint else None
