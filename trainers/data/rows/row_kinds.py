"""The columns of each kind of row, and how samples are tokenised into them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

from datasets import Features, List, Value
from tokenizers import Encoding
from transformers import PreTrainedTokenizerBase

from conf.schema import Data
from conf.stages import Kind
from trainers.data.rows.completions import both_answers, labelled_row, last_answer, pair_row, prompt_row, render_to_answer
from trainers.data.rows.documents import as_written, document_row, end_token
from trainers.data.rows.encoding import encode_chats, encode_documents, encode_prompts
from trainers.data.rows.rendering import Shown, render_prompts, render_samples
from trainers.data.rows.template import Rendered
from trainers.data.rows.tokens import answer_row
from trainers.data.samples.chat import RowError, Sample
from trainers.data.samples.conversion import as_it_is

Row = Mapping[str, Any]
MakeRow = Callable[[Sample, Sequence[Shown]], Row]

IDS = List(Value("int32"))
COUNTS = {"length": Value("int32"), "tokens": Value("int32"), "learned": Value("int32"), "drop": Value("string")}


@dataclass(frozen=True)
class RowKind:
    columns: dict[str, List | Value]  # of a tokenised sample, beside the counts
    render: Callable[[Sequence[Sample], PreTrainedTokenizerBase], list[Rendered | RowError]]
    row: Callable[[PreTrainedTokenizerBase, Data], MakeRow]
    parts: Callable[[Sample], list[Sample]] = as_it_is  # what is rendered of one sample
    encode: Callable[[Sequence[str], PreTrainedTokenizerBase], list[Encoding]] = encode_chats
    cuts: bool = True  # whether what is longer than the cutoff is truncated

    @property
    def features(self) -> Features:
        return Features({**self.columns, **COUNTS})


ROWS: dict[Kind, RowKind] = {
    "text": RowKind(
        columns={"input_ids": IDS},
        render=as_written,
        encode=encode_documents,
        row=lambda tokenizer, data: partial(document_row, end=end_token(tokenizer)),
        cuts=False,
    ),
    "answers": RowKind(
        columns={"input_ids": IDS, "labels": IDS},
        render=render_samples,
        row=lambda tokenizer, data: partial(answer_row, cutoff=data.cutoff, mask_prompt=data.mask_prompt),
    ),
    "pairs": RowKind(
        columns={"prompt_ids": IDS, "chosen_ids": IDS, "rejected_ids": IDS},
        render=render_to_answer,
        row=lambda tokenizer, data: partial(pair_row, cutoff=data.cutoff),
        parts=both_answers,
    ),
    "labelled": RowKind(
        columns={"prompt_ids": IDS, "completion_ids": IDS, "label": Value("bool")},
        render=render_to_answer,
        row=lambda tokenizer, data: partial(labelled_row, cutoff=data.cutoff),
        parts=last_answer,
    ),
    "prompts": RowKind(
        columns={"prompt_ids": IDS, "prompt": Value("string"), "answer": Value("string")},
        render=render_prompts,
        encode=encode_prompts,
        row=lambda tokenizer, data: partial(prompt_row, cutoff=data.cutoff),
        cuts=False,
    ),
}


def row_of(sample: Sample, kind: Kind, tokenizer: PreTrainedTokenizerBase, data: Data) -> Row:
    """The row of one sample alone.

    Raises:
        RowError: when the template cannot show the sample.
    """
    [row] = rows_of([sample], kind, tokenizer, data)
    if isinstance(row, RowError):
        raise row
    return row


def rows_of(samples: Sequence[Sample], kind: Kind, tokenizer: PreTrainedTokenizerBase, data: Data) -> list[Row | RowError]:
    """The row of each sample and what it leaves unread, or why the template cannot show it; all are rendered together, then encoded together.

    Raises:
        ValueError: for text, where the tokenizer has no end token.
    """
    own, make = ROWS[kind], ROWS[kind].row(tokenizer, data)
    parts = [own.parts(sample) for sample in samples]
    rendering = iter(own.render([part for each in parts for part in each], tokenizer))
    rendered = [shown_or_error(list(islice(rendering, len(each)))) for each in parts]
    texts = [one.text for each in rendered if not isinstance(each, RowError) for one in each]
    encodings = iter(own.encode(texts, tokenizer))
    return [
        each if isinstance(each, RowError) else {**make(sample, list(zip(each, islice(encodings, len(each)), strict=True))), **notes(sample, each)}
        for sample, each in zip(samples, rendered, strict=True)
    ]


def notes(sample: Sample, parts: Sequence[Rendered]) -> dict[str, list[str]]:
    """What was done to a sample, and what its record holds that the row does not: columns, and fields of messages."""
    unread = {*sample.get("unread", []), *(name for part in parts for name in part.unread)}
    return {"repairs": sample.get("repairs", []), "unread": sorted(unread)}


def shown_or_error(parts: list[Rendered | RowError]) -> list[Rendered] | RowError:
    """All parts of a sample, or the first error among them."""
    errors = [part for part in parts if isinstance(part, RowError)]
    return errors[0] if errors else [part for part in parts if isinstance(part, Rendered)]
