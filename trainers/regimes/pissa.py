"""PiSSA (arXiv:2404.02948): an adapter that starts as the main directions of its base, and is saved as one for the whole base."""

from pathlib import Path

from peft import PeftModel
from transformers import Trainer

from conf.schema import Lora, Run
from trainers.ranks.agreement import on_rank_zero


def starts_from_base(run: Run) -> bool:
    return isinstance(run.regime, Lora) and run.regime.init != "default"


def keep_initial_adapter(trainer: Trainer, folder: Path) -> None:
    """Save the adapter as it is before training, once: the difference to it is what was learned."""

    def save() -> None:
        if not folder.exists():
            making = folder.with_name(f".making-{folder.name}")
            wrapped(trainer).save_pretrained(making)
            making.rename(folder)

    on_rank_zero(save, "saving the adapter before training")


def save_as_plain_adapter(trainer: Trainer, folder: Path, initial: Path) -> None:
    """Rewrite the saved adapter as a difference from the initial one, of twice the rank: it applies to the base as it was loaded."""
    on_rank_zero(lambda: wrapped(trainer).save_pretrained(folder, path_initial_model_for_weight_conversion=str(initial)), "converting the adapter")


def wrapped(trainer: Trainer) -> PeftModel:
    model = trainer.accelerator.unwrap_model(trainer.model)
    assert isinstance(model, PeftModel)
    return model
