"""Where a model has its decoder layers, and which of them are computed again in the backward pass."""

from typing import Any

from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from conf.regimes import regime_row
from conf.schema import Run


def decoder_layers(model: PreTrainedModel) -> tuple[str, nn.ModuleList]:
    """The stack of blocks has another name in every architecture; it is the longest list of modules that is in no other list, as experts are."""
    lists = {name: module for name, module in model.named_modules() if isinstance(module, nn.ModuleList)}
    outermost = [name for name in lists if not any(name.startswith(f"{other}.") for other in lists)]
    if not outermost:
        raise ValueError(f"regime=freeze: {type(model).__name__} has no list of layers. Use regime=full or regime=lora.")
    prefix = max(outermost, key=lambda name: len(lists[name]))
    return prefix, lists[prefix]


def recompute_lowest(model: PreTrainedModel, run: Run) -> None:
    """With a number as training.gradient_checkpointing, have transformers' switch reach so many of the layers that the backward pass goes through.

    These are the lowest: the pass begins at the highest, which so need no room beside what they saved, and has freed that when others are next.

    transformers' own every_n_layers spreads them over the depth. To be called before the model is wrapped.

    Raises:
        ValueError: where the model does not checkpoint its layers one by one.
    """
    count = run.training.gradient_checkpointing
    if count is True or not count:
        return
    _, layers = decoder_layers(model)
    if not all(isinstance(layer, GradientCheckpointingLayer) for layer in layers):
        raise ValueError(
            f"training.gradient_checkpointing={count}: {type(model).__name__} cannot compute a part of its layers again. Set it to true or false."
        )
    adapter = regime_row(run.regime.name).learns == "an adapter"  # with checkpointing transformers gives the embeddings' output a gradient then
    switch_all = model._set_gradient_checkpointing

    def switch(enable: bool = True, *arguments: Any, **keywords: Any) -> None:
        switch_all(enable, *arguments, **keywords)
        lowest = 0 if adapter else lowest_backward(model, layers)
        for number, layer in enumerate(layers):
            layer.gradient_checkpointing = enable and lowest <= number < lowest + count

    model._set_gradient_checkpointing = switch


def lowest_backward(model: PreTrainedModel, layers: nn.ModuleList) -> int:
    """Number of the lowest layer that a gradient reaches: below it nothing learns."""
    if any(weight.requires_grad for weight in model.get_input_embeddings().parameters()):
        return 0
    return next((number for number, layer in enumerate(layers) if any(weight.requires_grad for weight in layer.parameters())), 0)
