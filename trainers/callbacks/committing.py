"""Commits each checkpoint that the trainer wrote aside."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, SaveStrategy

from conf.run_dir import RunDir
from conf.signs import SAVING
from trainers.checkpoints.background import Background
from trainers.checkpoints.commit import commit
from trainers.checkpoints.keeping import prune
from trainers.checkpoints.room import refuse_full_disk
from trainers.errors import Left
from trainers.model.conversation import save_ends
from trainers.ranks.agreement import on_rank_zero
from trainers.ranks.life import LIFE
from trainers.ranks.stop import leave_if_asked


class Committing(TrainerCallback):
    """`before` is called before each commit; where it raises nothing is committed. `need` gives the bytes of the next one. Both are collective.

    With a `background` its thread commits, while the next steps are made.
    """

    def __init__(
        self,
        run_dir: RunDir,
        keep: int,
        world: int,
        before: Callable[[int], None] = lambda step: None,
        need: Callable[[], int] = int,
        background: Background | None = None,
    ) -> None:
        self.run_dir, self.keep, self.world, self.before, self.need, self.background = run_dir, keep, world, before, need, background

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """The recorded path of the best checkpoint is where it was made, not where it is."""
        if state.best_global_step:
            state.best_model_checkpoint = str(self.run_dir.checkpoint(state.best_global_step))

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """A failure of what is in flight ends rank 0 at the next step, and the agent ends the others."""
        if self.background is not None and args.should_save:
            self.background.check()
            if args.save_strategy != SaveStrategy.NO and not control.should_save and self.background.unprepared:
                self.background.prepare(self.need())
        if control.should_save:
            self.look_for_room()

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.finish()

    def finish(self) -> None:
        """Wait until the checkpoint in flight is committed. A collective act."""
        if self.background is not None:
            LIFE.enter(SAVING)
            on_rank_zero(self.background.wait, "writing a checkpoint")

    def look_for_room(self) -> None:
        """Raises NoRoom on rank 0, where the disk is too full for the next checkpoint."""
        self.finish()
        need = self.need()
        on_rank_zero(lambda: refuse_full_disk(self.run_dir, need, "a checkpoint"), "looking for room on the disk")

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any) -> None:
        step, staged = state.global_step, Path(str(args.output_dir)) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
        self.before(step)
        if state.best_global_step:
            state.best_model_checkpoint = str(self.run_dir.checkpoint(state.best_global_step))
        best = best_of(state)

        def complete() -> None:
            commit(staged, self.run_dir, step, self.world)
            prune(self.run_dir, self.keep, best)

        def act() -> None:
            save_ends(model, staged)
            (staged / "training_args.bin").unlink(missing_ok=True)  # a pickle that nothing loads; run.yaml says it all
            if self.background is None:
                complete()
            else:
                self.background.commit(complete)

        on_rank_zero(act, f"committing step {step}")
        ends = control.should_training_stop or step >= state.max_steps
        if ends:
            self.finish()
        else:  # after the last step only the model is missing
            self.leave_if_asked()

    def leave_if_asked(self) -> None:
        try:
            leave_if_asked()
        except Left:
            self.finish()
            raise


def best_of(state: TrainerState) -> Path | None:
    return Path(state.best_model_checkpoint) if state.best_model_checkpoint else None
