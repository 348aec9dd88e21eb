"""Which of the weights that learn are matrices between embedding and head."""

from torch import nn
from transformers import PreTrainedModel


def hidden_matrices(model: PreTrainedModel) -> list[nn.Parameter]:
    """Stacked experts do not count as matrices."""
    ends = end_weights(model)
    return [weight for weight in model.parameters() if weight.requires_grad and weight.ndim == 2 and id(weight) not in ends]


def other_weights(model: PreTrainedModel) -> list[nn.Parameter]:
    """All that learn but the hidden matrices."""
    hidden = {id(weight) for weight in hidden_matrices(model)}
    return [weight for weight in model.parameters() if weight.requires_grad and id(weight) not in hidden]


def end_weights(model: PreTrainedModel) -> set[int]:
    """Identities of the embeddings and the output head: their rows are tokens, not directions."""
    embeddings = [module for module in model.modules() if isinstance(module, nn.Embedding)]
    head = model.get_output_embeddings()  # a model of scores has none
    return {id(weight) for module in (*embeddings, *([] if head is None else [head])) for weight in module.parameters(recurse=False)}
