"""The columns of each kind of row, and how one sample is tokenised into them."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from datasets import Features, List, Value
from transformers import PreTrainedTokenizerBase

from conf.schema import Data
from trainers.data.chat import RowError, Sample
from trainers.data.completions import tokenise_labelled, tokenise_pair, tokenise_prompt
from trainers.data.documents import tokenise_document
from trainers.data.kinds import Kind
from trainers.data.tokens import tokenise

Tokenise = Callable[[Sample, PreTrainedTokenizerBase, Data], Mapping[str, object]]

IDS = List(Value("int32"))
COUNTS = {"length": Value("int32"), "tokens": Value("int32"), "learned": Value("int32"), "drop": Value("string"), "problem": Value("string")}


@dataclass(frozen=True)
class RowKind:
    columns: dict[str, List | Value]  # of a tokenised sample, beside the counts
    tokenise: Tokenise
    cuts: bool = True  # whether what is longer than the cutoff is truncated

    @property
    def features(self) -> Features:
        return Features({**self.columns, **COUNTS})


ROWS: dict[Kind, RowKind] = {
    "text": RowKind({"input_ids": IDS}, lambda sample, tokenizer, data: tokenise_document(sample, tokenizer), cuts=False),
    "answers": RowKind({"input_ids": IDS, "labels": IDS}, lambda sample, tokenizer, data: tokenise(sample, tokenizer, data.cutoff, data.mask_prompt)),
    "pairs": RowKind(
        {"prompt_ids": IDS, "chosen_ids": IDS, "rejected_ids": IDS}, lambda sample, tokenizer, data: tokenise_pair(sample, tokenizer, data.cutoff)
    ),
    "labelled": RowKind(
        {"prompt_ids": IDS, "completion_ids": IDS, "label": Value("bool")},
        lambda sample, tokenizer, data: tokenise_labelled(sample, tokenizer, data.cutoff),
    ),
    "prompts": RowKind(
        {"prompt_ids": IDS, "prompt": Value("string"), "answer": Value("string")},
        lambda sample, tokenizer, data: tokenise_prompt(sample, tokenizer, data.cutoff),
        cuts=False,
    ),
}


def tokenise_row(row: dict[str, str], tokenizer: PreTrainedTokenizerBase, data: Data, kind: Kind) -> Mapping[str, object]:
    """For datasets.map: a problem is returned, so that one error can list them all."""
    sample: Sample = json.loads(row["sample"])
    try:
        return ROWS[kind].tokenise(sample, tokenizer, data)
    except RowError as error:
        return {**empty_row(kind), "problem": f"{sample['place']}: {error}"}


def empty_row(kind: Kind) -> dict[str, object]:
    empty = {"int32": 0, "string": "", "bool": False}
    return {name: [] if isinstance(feature, List) else empty[feature.dtype] for name, feature in ROWS[kind].features.items()}
