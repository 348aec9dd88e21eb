"""Blocks inserted into a model, evenly over its depth, that change nothing until they learn (LLaMA Pro, arXiv:2401.02415)."""

from copy import deepcopy

import torch
from torch import nn
from transformers import PreTrainedModel

from trainers.regimes.layers import decoder_layers

# The matrices that write into the residual stream, as the families name them; while these are zero, a block hands on what it was given.
CLOSING = frozenset({"o_proj", "down_proj", "c_proj", "dense", "dense_4h_to_h", "out_proj", "fc2"})


def insert_blocks(model: PreTrainedModel, count: int) -> list[str]:
    """Insert `count` blocks in place; their full names.

    Raises:
        ValueError: when they do not spread evenly over the layers, or the architecture names what writes into its residual stream otherwise.
    """
    prefix, layers = decoder_layers(model)
    if len(layers) % count:
        raise ValueError(f"regime.new_blocks={count} cannot be spread evenly over {len(layers)} layers. Choose a number that divides {len(layers)}.")
    stride = len(layers) // count
    sources = [number for start in range(0, len(layers), stride) for number in [*range(start, start + stride), start + stride - 1]]
    new = [place for place in range(len(sources)) if (place + 1) % (stride + 1) == 0]
    blocks = [silent_copy(layers[source]) if place in new else layers[source] for place, source in enumerate(sources)]
    for place, block in enumerate(blocks):
        number_block(block, place)
    model.set_submodule(prefix, nn.ModuleList(blocks))
    lengthen_config(model, sources)
    return [f"{prefix}.{place}" for place in new]


def silent_copy(layer: nn.Module) -> nn.Module:
    copy = deepcopy(layer)
    closing = [weight for name, weight in copy.named_parameters() if CLOSING & set(name.split("."))]
    if not closing:
        raise ValueError(f"regime.new_blocks: {type(layer).__name__} has none of {', '.join(sorted(CLOSING))}. Use regime=lora or regime.layers.")
    with torch.no_grad():
        for weight in closing:
            weight.zero_()
    return copy


def number_block(block: nn.Module, place: int) -> None:
    """Attention finds its part of the cache by the number of its layer."""
    for module in block.modules():
        if "layer_idx" in vars(module):
            module.layer_idx = place


def lengthen_config(model: PreTrainedModel, sources: list[int]) -> None:
    """The saved configuration holds the number of layers, and the kind of each where kinds differ."""
    config = model.config.get_text_config()
    kinds = config.to_dict().get("layer_types")
    config.num_hidden_layers = len(sources)
    if kinds is not None:
        config.layer_types = [kinds[source] for source in sources]
