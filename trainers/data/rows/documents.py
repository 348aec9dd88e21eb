"""Rows of pre-training: documents, each ended by the end token, one after the other in chunks of data.cutoff tokens."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TypedDict

import numpy
from transformers import PreTrainedTokenizerBase

from trainers.data.rows.drops import EMPTY
from trainers.data.rows.packing import positions
from trainers.data.rows.rendering import Shown
from trainers.data.rows.template import Rendered
from trainers.data.rows.tokens import MASKED
from trainers.data.samples.chat import RowError, Sample

Block = tuple[numpy.ndarray, numpy.ndarray]  # the tokens of documents, one after the other, and the length of each
Columns = dict[str, numpy.ndarray]  # flat: one chunk after the other


class DocumentTokens(TypedDict):
    input_ids: list[int]
    length: int
    tokens: int
    learned: int
    drop: str


def end_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """Raises ValueError where the tokenizer has none."""
    end = tokenizer.eos_token_id
    if end is None:
        raise ValueError(
            "model.tokenizer has no end token, and pre-training needs one between documents. Set eos_token in its tokenizer_config.json."
        )
    return int(end)


def as_written(samples: Sequence[Sample], tokenizer: PreTrainedTokenizerBase) -> list[Rendered | RowError]:
    """The text of each document, which no template changes."""
    return [Rendered(sample["messages"][0]["content"], []) for sample in samples]


def document_row(sample: Sample, shown: Sequence[Shown], end: int) -> DocumentTokens:
    """The text with the tokens that the tokenizer itself puts around one, and the end token."""
    [(rendered, encoding)] = shown
    ids = encoding.ids
    ids = ids if ids[-1:] == [end] else [*ids, end]
    return {"input_ids": ids, "length": len(ids), "tokens": len(ids), "learned": len(ids), "drop": "" if rendered.text.strip() else EMPTY}


def chunked(blocks: Iterable[Block], capacity: int) -> Iterator[tuple[numpy.ndarray, numpy.ndarray]]:
    """The tokens of one or several chunks, and whether a document begins at each.

    Every chunk but the last holds `capacity` tokens; a last token alone teaches nothing and is left out.
    """
    rest, begins = numpy.empty(0, numpy.int32), numpy.empty(0, bool)
    for tokens, lengths in blocks:
        rest, begins = numpy.concatenate([rest, tokens]), numpy.concatenate([begins, positions(lengths) == 0])
        whole = len(rest) // capacity * capacity
        if whole:
            yield rest[:whole], begins[:whole]
        rest, begins = rest[whole:], begins[whole:]
    if len(rest) > 1:
        yield rest, begins


def chunk_columns(tokens: numpy.ndarray, begins: numpy.ndarray, capacity: int) -> Columns:
    """Chunks whose attention crosses documents, as pre-training usually has it: every token but the first is learned."""
    labels = tokens.copy()
    labels[::capacity] = MASKED
    return {"input_ids": tokens, "labels": labels}


def packed_chunk_columns(tokens: numpy.ndarray, begins: numpy.ndarray, capacity: int) -> Columns:
    """Chunks whose documents do not see each other."""
    starts = begins.copy()
    starts[::capacity] = True
    pieces = numpy.diff(numpy.flatnonzero(starts), append=len(tokens))
    return {"input_ids": tokens, "labels": numpy.where(starts, MASKED, tokens), "position_ids": positions(pieces)}
