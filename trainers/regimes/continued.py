"""An adapter that was trained before goes on learning."""

from pathlib import Path

from peft import PeftModel, get_peft_model_state_dict, load_peft_weights, set_peft_model_state_dict
from torch import Tensor
from transformers import Trainer

from conf.schema import Lora, Run


def load_adapter(trainer: Trainer, run: Run) -> None:
    """Give the trainer's fresh adapter the weights of the one that the run names; to be called before there is an optimizer.

    Raises:
        ValueError: when that one belongs to other layers or another width.
    """
    if not isinstance(run.regime, Lora) or run.regime.adapter is None:
        return
    model = trainer.model
    assert isinstance(model, PeftModel)
    folder = Path(run.regime.adapter)
    found: dict[str, Tensor] = load_peft_weights(str(folder), device="cpu")
    fresh: dict[str, Tensor] = get_peft_model_state_dict(model)
    refuse_other_shapes(fresh, found, folder)
    set_peft_model_state_dict(model, {**fresh, **found})


def refuse_other_shapes(wanted: dict[str, Tensor], found: dict[str, Tensor], folder: Path) -> None:
    """What learns beside the adapter's matrices, as a head of scores, may be missing: it begins as it is."""
    for name in sorted(wanted.keys() | found.keys()):
        if name not in found and ".lora_" not in name:
            continue
        if name not in found:
            raise ValueError(f"regime.adapter={folder} has no {name}. Set regime.targets to the layers that it was trained on.")
        if name not in wanted:
            raise ValueError(
                f"regime.adapter={folder} has {name}, which this run does not train. Set regime.targets to the layers that it was trained on."
            )
        if wanted[name].shape != found[name].shape:
            sizes = f"{tuple(found[name].shape)} instead of {tuple(wanted[name].shape)}"
            raise ValueError(f"regime.adapter={folder}: {name} is {sizes}, so it was trained on another model. Set model.path to that model.")
