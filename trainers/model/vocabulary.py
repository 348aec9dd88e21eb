"""Tokens that a run adds: the tokenizer knows them, the model has rows for them, and beside an adapter those rows learn too."""

from dataclasses import replace

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from conf.schema import Model, Run
from conf.vocabulary import vocabulary_rows
from trainers.model.prepared import PreparedModel


def with_rows(model: PreTrainedModel, run: Run, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """The model with as many rows as the run asks for; new ones, and those of added tokens, begin at the mean of the others."""
    loaded = model.get_input_embeddings().weight.shape[0]
    rows = vocabulary_rows(run.model, loaded)
    if rows != loaded:
        model.resize_token_embeddings(rows, mean_resizing=False)
    new = sorted({*added_ids(run.model, tokenizer), *range(loaded, rows)})
    if new:
        for weight in {id(weight): weight for weight in (layer.weight for layer in end_layers(model))}.values():
            start_at_mean(weight, new)
    return model


def end_layers(model: PreTrainedModel) -> list[torch.nn.Module]:
    """The embedding, and the head where it has a row for every token: that of a reward model has one in all."""
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    return [embedding] if head is None else [embedding, head]


def start_at_mean(weight: torch.Tensor, new: list[int]) -> None:
    others = torch.ones(len(weight), dtype=torch.bool, device=weight.device)
    others[new] = False
    with torch.no_grad():
        weight[new] = weight[others].float().mean(dim=0).to(weight.dtype)


def added_ids(model: Model, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    return [tokenizer.convert_tokens_to_ids(token) for token in model.added_tokens]


def grown(prepared: PreparedModel, run: Run, tokenizer: PreTrainedTokenizerBase) -> PreparedModel:
    """The prepared model with its rows; an adapter learns those of added tokens beside its own weights, where the base is frozen."""
    model = with_rows(prepared.model, run, tokenizer)
    if prepared.peft_config is None or not run.model.added_tokens:
        return replace(prepared, model=model)
    ids = added_ids(run.model, tokenizer)
    names = {id(module): name for name, module in model.named_modules()}
    tied = model.config.get_text_config().tie_word_embeddings
    learning = end_layers(model)[:1] if tied else end_layers(model)
    rows = {names[id(module)].rsplit(".", 1)[-1]: ids for module in learning}
    return PreparedModel(model, replace(prepared.peft_config, trainable_token_indices=rows))
