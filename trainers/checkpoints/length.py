"""Where a checkpoint stands in a run's steps: at its end nothing is left to train."""

from pathlib import Path
from typing import Any

from transformers import Trainer

from conf.committed import step_of


def end_at_last_step(trainer: Trainer, checkpoint: Path) -> None:
    """Have `trainer` make no step where the checkpoint is that of the last one: a run that was killed while it saved its model, or after that.

    Within an epoch transformers 5.23 would make one more (it looks for the end after a step).
    """
    count = trainer.set_initial_training_values

    def without_epochs(*given: Any) -> tuple[Any, ...]:
        epochs, *others, total = count(*given)
        refuse_beyond(step_of(checkpoint), total)
        return (epochs if step_of(checkpoint) < total else 0, *others, total)

    trainer.set_initial_training_values = without_epochs


def refuse_beyond(step: int, total: int) -> None:
    """Raises ValueError for a run that was made shorter than it is; the launcher cannot know that before data is packed."""
    if step > total:
        raise ValueError(
            f"training.epochs gives {total} steps, and the run stands at step {step}. Give more training.epochs, or training.max_steps above {step}."
        )
