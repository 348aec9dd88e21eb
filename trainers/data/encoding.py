"""Texts to token ids, many at once: a tokenizer takes a batch several times faster than the same texts one by one.

What makes a row of a sample yields the texts that it wants encoded, and is sent their encodings; so many samples can be made in step.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from tokenizers import Encoding
from transformers import PreTrainedTokenizerBase

from trainers.data.chat import RowError


@dataclass(frozen=True)
class Encode:
    text: str
    special_tokens: bool = False  # those that the tokenizer itself puts around a text
    offsets: bool = True  # whether the place of each token in the text is asked for


Row = TypeVar("Row")
Steps = Generator[Encode, Encoding, Row]


def finish(steps: Steps[Row], tokenizer: PreTrainedTokenizerBase) -> Row:
    """One row, alone.

    Raises:
        RowError: as its steps.
    """
    [row] = finish_together([steps], tokenizer)
    if isinstance(row, RowError):
        raise row
    return row


def finish_together(all_steps: Sequence[Steps[Row]], tokenizer: PreTrainedTokenizerBase) -> list[Row | RowError]:
    """Every row, or what is wrong with its sample, in order."""
    results: dict[int, Row | RowError] = {}
    wanted: dict[int, Encode] = {}

    def go_on(index: int, encoding: Encoding | None) -> None:
        try:
            wanted[index] = next(all_steps[index]) if encoding is None else all_steps[index].send(encoding)
        except StopIteration as end:
            results[index] = end.value
        except RowError as error:
            results[index] = error

    for index in range(len(all_steps)):
        go_on(index, None)
    while wanted:
        indices, requests = list(wanted), list(wanted.values())
        wanted.clear()
        for index, encoding in zip(indices, encoded(requests, tokenizer), strict=True):
            go_on(index, encoding)
    return [results[index] for index in range(len(all_steps))]


def encoded(requests: Sequence[Encode], tokenizer: PreTrainedTokenizerBase) -> list[Encoding]:
    """The encodings of all texts; as by the tokenizer's own call, nothing is padded or truncated, whatever its file says."""
    backend = tokenizer.backend_tokenizer  # type: ignore[attr-defined]
    backend.no_padding()
    backend.no_truncation()
    first = requests[0]
    assert all((each.special_tokens, each.offsets) == (first.special_tokens, first.offsets) for each in requests), "rows of one kind ask alike"
    encode = backend.encode_batch if first.offsets else backend.encode_batch_fast
    return list(encode([each.text for each in requests], add_special_tokens=first.special_tokens))
