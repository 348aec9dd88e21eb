"""The columns of each kind of row, and how samples are tokenised into them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any

from datasets import Features, List, Value
from tokenizers import Encoding
from transformers import PreTrainedTokenizerBase

from conf.schema import Data
from conf.stages import Kind
from trainers.data.rows.completions import both_answers, labelled_row, last_answer, learned_of_pair, pair_row, prompt_row, render_to_answer
from trainers.data.rows.controls import Controls, controls_in, controls_of, guarded
from trainers.data.rows.documents import as_written, document_row, end_token
from trainers.data.rows.encoding import encode_chats, encode_documents, encode_prompts
from trainers.data.rows.rendering import Shown, render_prompts, render_samples
from trainers.data.rows.template import Rendered
from trainers.data.rows.tokens import answer_row
from trainers.data.samples.chat import Message, RowError, Sample
from trainers.data.samples.conversion import as_it_is

Row = Mapping[str, Any]
MakeRow = Callable[[Sample, Sequence[Shown]], Row]

LEARNED_ANYWAY = "field weight of a message, as a message of weight 0 is learned all the same"
NOT_LEARNED = "field weight of a message, as a message of weight 1 is not learned"

IDS = List(Value("int32"))
COUNTS = {"length": Value("int32"), "tokens": Value("int32"), "learned": Value("int32"), "drop": Value("string")}


@dataclass(frozen=True)
class RowKind:
    columns: dict[str, List | Value]  # of a tokenised sample, beside the counts
    render: Callable[[Sequence[Sample], PreTrainedTokenizerBase], list[Rendered | RowError]]
    row: Callable[[PreTrainedTokenizerBase, Data], MakeRow]
    parts: Callable[[Sample], list[Sample]] = as_it_is  # what is rendered of one sample
    encode: Callable[[Sequence[str], PreTrainedTokenizerBase], list[Encoding]] = encode_chats
    alone: bool = False  # whether the tokenizer puts its own tokens around a text
    cuts: bool = True  # whether what is longer than the cutoff is truncated
    learned: Callable[[Sample, Data], list[Message]] = lambda sample, data: []  # the messages that are learned

    @property
    def features(self) -> Features:
        return Features({**self.columns, **COUNTS})


ROWS: dict[Kind, RowKind] = {
    "text": RowKind(
        columns={"input_ids": IDS},
        render=as_written,
        encode=encode_documents,
        alone=True,
        row=lambda tokenizer, data: partial(document_row, end=end_token(tokenizer)),
        cuts=False,
    ),
    "answers": RowKind(
        columns={"input_ids": IDS, "labels": IDS},
        render=render_samples,
        row=lambda tokenizer, data: partial(answer_row, cutoff=data.cutoff, mask_prompt=data.mask_prompt),
        learned=lambda sample, data: [message for message in sample["messages"] if message["learn"] or not data.mask_prompt],
    ),
    "pairs": RowKind(
        columns={"prompt_ids": IDS, "chosen_ids": IDS, "rejected_ids": IDS},
        render=render_to_answer,
        row=lambda tokenizer, data: partial(pair_row, cutoff=data.cutoff),
        parts=both_answers,
        learned=lambda sample, data: learned_of_pair(sample),
    ),
    "labelled": RowKind(
        columns={"prompt_ids": IDS, "completion_ids": IDS, "label": Value("bool")},
        render=render_to_answer,
        row=lambda tokenizer, data: partial(labelled_row, cutoff=data.cutoff),
        parts=last_answer,
        learned=lambda sample, data: sample["messages"][-1:],
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
    found = [controls_in(sample, tokenizer) for sample in samples]
    apart = [data.control_tokens == "text" and bool(tokens) for tokens in found]
    parts = [parts_of(sample, own, controls_of(tokenizer) if guard else None) for sample, guard in zip(samples, apart, strict=True)]
    rendering = iter(own.render([part for each in parts if not isinstance(each, RowError) for part in each], tokenizer))
    rendered = [each if isinstance(each, RowError) else shown_or_error(list(islice(rendering, len(each)))) for each in parts]
    shown = encoded(rendered, apart, own, tokenizer)
    return [
        each if isinstance(each, RowError) else {**make(sample, each), **notes(sample, each, own.learned(sample, data)), "controls": tokens}
        for sample, each, tokens in zip(samples, shown, found, strict=True)
    ]


def parts_of(sample: Sample, own: RowKind, controls: Controls | None) -> list[Sample] | RowError:
    """What is rendered of a sample; with `controls`, where its control tokens are to stay text."""
    try:
        return own.parts(sample if controls is None else guarded(sample, controls))
    except RowError as error:
        return error


def encoded(
    rendered: Sequence[list[Rendered] | RowError], apart: Sequence[bool], own: RowKind, tokenizer: PreTrainedTokenizerBase
) -> list[list[Shown] | RowError]:
    """The texts of all samples encoded together, but apart those whose control tokens stay text."""
    every = [(one, guard) for each, guard in zip(rendered, apart, strict=True) if not isinstance(each, RowError) for one in each]
    plain = iter(own.encode([one.text for one, guard in every if not guard], tokenizer))
    guarded_texts = [one.text for one, guard in every if guard]
    text = iter(controls_of(tokenizer).encode(guarded_texts, own.alone)) if guarded_texts else iter([])
    shown: Iterator[Shown] = iter(
        [(replace(one, text=controls_of(tokenizer).as_written(one.text)), next(text)) if guard else (one, next(plain)) for one, guard in every]
    )
    return [each if isinstance(each, RowError) else list(islice(shown, len(each))) for each in rendered]


def notes(sample: Sample, parts: Sequence[Shown], learned: Sequence[Message]) -> dict[str, list[str]]:
    """What was done to a sample, and what its record holds that the row does not: columns, and fields of messages."""
    unread = {*sample.get("unread", []), *(name for part, _ in parts for name in part.unread), *weights_unread(sample, learned)}
    return {"repairs": sample.get("repairs", []), "unread": sorted(unread)}


def weights_unread(sample: Sample, learned: Sequence[Message]) -> set[str]:
    """Where the weight of a message does not say what becomes of it."""
    every = [*sample["messages"], *sample.get("chosen", []), *sample.get("rejected", [])]
    taken = {id(message) for message in learned}
    wrong = {message["weight"] for message in every if "weight" in message and message["weight"] != (id(message) in taken)}
    return {LEARNED_ANYWAY if weight == 0 else NOT_LEARNED for weight in wrong}


def shown_or_error(parts: list[Rendered | RowError]) -> list[Rendered] | RowError:
    """All parts of a sample, or the first error among them."""
    errors = [part for part in parts if isinstance(part, RowError)]
    return errors[0] if errors else [part for part in parts if isinstance(part, Rendered)]
