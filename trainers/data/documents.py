"""Rows of pre-training: documents, each ended by the end token, one after the other in chunks of data.cutoff tokens."""

from collections.abc import Iterable, Iterator
from typing import TypedDict

from transformers import PreTrainedTokenizerBase

from trainers.data.chat import Sample
from trainers.data.encoding import Encode, Steps, finish
from trainers.data.packing import PackedRow, packed_row
from trainers.data.report import EMPTY
from trainers.data.tokens import MASKED

Pieces = list[list[int]]  # of the documents that share a chunk


class DocumentTokens(TypedDict):
    input_ids: list[int]
    length: int
    tokens: int
    learned: int
    drop: str


class ChunkRow(TypedDict):
    input_ids: list[int]
    labels: list[int]


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


def chunked(documents: Iterable[list[int]], capacity: int) -> Iterator[Pieces]:
    """Every chunk but the last holds `capacity` tokens; a last token alone teaches nothing and is left out."""
    pieces: Pieces = []
    space = capacity
    for document in documents:
        start = 0
        while start < len(document):
            pieces.append(document[start : start + space])
            start += len(pieces[-1])
            space -= len(pieces[-1])
            if space == 0:
                yield pieces
                pieces, space = [], capacity
    if capacity - space > 1:
        yield pieces


def chunk_row(pieces: Pieces) -> ChunkRow:
    """A chunk whose attention crosses documents, as pre-training usually has it: every token but the first is learned."""
    ids = [token for piece in pieces for token in piece]
    return {"input_ids": ids, "labels": [MASKED, *ids[1:]]}


def packed_chunk_row(pieces: Pieces) -> PackedRow:
    """A chunk whose documents do not see each other."""
    return packed_row([(piece, [MASKED, *piece[1:]]) for piece in pieces])
