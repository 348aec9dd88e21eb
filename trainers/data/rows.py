"""The columns of each kind of row, and how one sample is tokenised into them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from datasets import Features, List, Value
from transformers import PreTrainedTokenizerBase

from conf.schema import Data
from trainers.data.chat import Sample
from trainers.data.completions import labelled_steps, pair_steps, prompt_steps
from trainers.data.documents import document_steps
from trainers.data.encoding import Steps
from trainers.data.kinds import Kind
from trainers.data.tokens import answer_steps

MakeRow = Callable[[Sample, PreTrainedTokenizerBase, Data], Steps[Mapping[str, object]]]

IDS = List(Value("int32"))
COUNTS = {"length": Value("int32"), "tokens": Value("int32"), "learned": Value("int32"), "drop": Value("string")}


@dataclass(frozen=True)
class RowKind:
    columns: dict[str, List | Value]  # of a tokenised sample, beside the counts
    steps: MakeRow
    cuts: bool = True  # whether what is longer than the cutoff is truncated

    @property
    def features(self) -> Features:
        return Features({**self.columns, **COUNTS})


ROWS: dict[Kind, RowKind] = {
    "text": RowKind({"input_ids": IDS}, lambda sample, tokenizer, data: document_steps(sample, tokenizer), cuts=False),
    "answers": RowKind(
        {"input_ids": IDS, "labels": IDS}, lambda sample, tokenizer, data: answer_steps(sample, tokenizer, data.cutoff, data.mask_prompt)
    ),
    "pairs": RowKind(
        {"prompt_ids": IDS, "chosen_ids": IDS, "rejected_ids": IDS}, lambda sample, tokenizer, data: pair_steps(sample, tokenizer, data.cutoff)
    ),
    "labelled": RowKind(
        {"prompt_ids": IDS, "completion_ids": IDS, "label": Value("bool")},
        lambda sample, tokenizer, data: labelled_steps(sample, tokenizer, data.cutoff),
    ),
    "prompts": RowKind(
        {"prompt_ids": IDS, "prompt": Value("string"), "answer": Value("string")},
        lambda sample, tokenizer, data: prompt_steps(sample, tokenizer, data.cutoff),
        cuts=False,
    ),
}
