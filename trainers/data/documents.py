"""Rows of pre-training: documents, each ended by the end token, one after the other in chunks of data.cutoff tokens."""

from collections.abc import Iterable, Iterator
from typing import TypedDict

import numpy
from transformers import PreTrainedTokenizerBase

from trainers.data.chat import Sample
from trainers.data.encoding import Encode, Steps, finish
from trainers.data.packing import positions
from trainers.data.report import EMPTY
from trainers.data.tokens import MASKED

Block = tuple[numpy.ndarray, numpy.ndarray]  # the tokens of documents, one after the other, and the length of each
Columns = dict[str, numpy.ndarray]  # flat: one chunk after the other


class DocumentTokens(TypedDict):
    input_ids: list[int]
    length: int
    tokens: int
    learned: int
    drop: str


def tokenise_document(sample: Sample, tokenizer: PreTrainedTokenizerBase) -> DocumentTokens:
    """The row of one document alone.

    Raises:
        ValueError: where the tokenizer has no end token.
    """
    return finish(document_steps(sample, tokenizer), tokenizer)


def document_steps(sample: Sample, tokenizer: PreTrainedTokenizerBase) -> Steps[DocumentTokens]:
    """The text with the tokens that the tokenizer itself puts around one, and the end token.

    Raises:
        ValueError: where the tokenizer has no end token.
    """
    end = tokenizer.eos_token_id
    if end is None:
        raise ValueError("model.tokenizer has no end token, which parts documents in pre-training: set eos_token in its tokenizer_config.json.")
    text = sample["messages"][0]["content"]
    encoding = yield Encode(text, special_tokens=True, offsets=False)
    ids = encoding.ids
    ids = ids if ids[-1:] == [end] else [*ids, end]
    return {"input_ids": ids, "length": len(ids), "tokens": len(ids), "learned": len(ids), "drop": "" if text.strip() else EMPTY}


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
