"""Where a model has its decoder layers."""

from torch import nn
from transformers import PreTrainedModel


def decoder_layers(model: PreTrainedModel) -> tuple[str, nn.ModuleList]:
    """The stack of blocks has another name in every architecture; it is the longest list of modules that is in no other list, as experts are."""
    lists = {name: module for name, module in model.named_modules() if isinstance(module, nn.ModuleList)}
    outermost = [name for name in lists if not any(name.startswith(f"{other}.") for other in lists)]
    if not outermost:
        raise ValueError(f"regime=freeze: {type(model).__name__} has no list of layers. Use regime=full or regime=lora.")
    prefix = max(outermost, key=lambda name: len(lists[name]))
    return prefix, lists[prefix]
