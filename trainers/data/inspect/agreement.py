"""Whether tokenizer, chat template and model agree: what training would not notice and generation would suffer from."""

from itertools import islice

import pyarrow.compute
from datasets import Dataset
from transformers import AutoConfig, PreTrainedTokenizerBase

from conf.regimes import regime_row
from conf.schema import Composed, Model
from conf.stages import Kind, stage_row
from trainers.data.rows.tokens import MASKED

SPECIAL = ("bos", "eos", "pad")
LOOKED_AT = 100  # rows: the first of them that is whole
MANY_UNKNOWN = 0.001  # of the tokens


def disagreements(run: Composed, tokenizer: PreTrainedTokenizerBase, rows: Dataset) -> list[str]:
    """Of rows as they are tokenised, or as a run trains on them."""
    kind = stage_row(run.stage.name).reads
    return [
        *special_tokens(run.model, tokenizer),
        *unknown_tokens(tokenizer, rows),
        *answers_without_end(tokenizer, rows, kind, run.data.cutoff, regime_row(run.regime.name).learns == "an adapter"),
    ]


def special_tokens(model: Model, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Special tokens with different ids in the model's configuration and the tokenizer. What one of them leaves out is not a difference."""
    configured = model_config(model)
    lines = []
    for name in SPECIAL:
        theirs, ours = configured.get(f"{name}_token_id"), getattr(tokenizer, f"{name}_token_id")
        accepted = theirs if isinstance(theirs, list) else [theirs]
        if theirs is not None and ours is not None and ours not in accepted:
            lines.append(f"{name}: the tokenizer has {ours} ({tokenizer.convert_ids_to_tokens(ours)!r}), the model's config.json {theirs}.")
    return lines


def model_config(model: Model) -> dict[str, object]:
    if model.architecture is not None:
        return model.architecture
    assert model.path is not None, "load_tokenizer has refused a model without both"
    return dict(AutoConfig.from_pretrained(model.path, revision=model.revision).get_text_config().to_dict())


def unknown_tokens(tokenizer: PreTrainedTokenizerBase, rows: Dataset) -> list[str]:
    unknown = tokenizer.unk_token_id
    if unknown is None or unknown == tokenizer.pad_token_id:
        return []
    columns = [name for name in rows.column_names if name.endswith("_ids") and name != "position_ids"]
    values = [pyarrow.compute.list_flatten(rows.data.column(name)) for name in columns]
    found = sum(pyarrow.compute.sum(pyarrow.compute.equal(column, unknown)).as_py() or 0 for column in values)
    total = sum(len(column) for column in values)
    if found <= MANY_UNKNOWN * total:
        return []
    return [f"{found:,} of {total:,} tokens are {tokenizer.unk_token!r}: the tokenizer does not know this text."]


def answers_without_end(tokenizer: PreTrainedTokenizerBase, rows: Dataset, kind: Kind, cutoff: int, adapter: bool = False) -> list[str]:
    """An answer whose end token is not learned does not end where a program knows only that token. Of a row that is cut nothing can be said."""
    if kind != "answers" or tokenizer.eos_token_id is None:
        return []
    answers = ([label for label in row["labels"] if label != MASKED] for row in islice(rows, LOOKED_AT) if len(row["input_ids"]) < cutoff)
    learned = next(filter(None, answers), [])
    if not learned or tokenizer.eos_token_id in learned:
        return []
    special = [token for token in learned if token in tokenizer.added_tokens_decoder and tokenizer.added_tokens_decoder[token].special]
    last = tokenizer.convert_ids_to_tokens((special or learned)[-1])  # a line break may follow the token that ends a turn
    differ = f"eos: answers end with {last!r}, but the tokenizer's end token is {tokenizer.eos_token!r}"
    if special:
        beside = " The base of an adapter keeps its own file: model.generation_config = GenerationConfig.from_pretrained('RUN/model')."
        return [
            f"{differ}. The generation_config.json of the trained model names both, and regimen stops at both.{beside if adapter else ''} "
            f"A program that reads the tokenizer alone does not stop at {last!r}: give it that token as a stop token, or set eos_token={last!r} "
            "in the base's tokenizer_config.json."
        ]
    return [
        f"{differ}, so generation would not stop there. Choose the data.template of this model, or a tokenizer whose eos_token the template writes."
    ]
