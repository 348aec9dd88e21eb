"""Documents of pre-training in chunks."""

import numpy
import pytest
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerBase

from launcher.composition.compose import compose
from trainers.data.rows.documents import Block, Columns, chunk_columns, chunked, packed_chunk_columns
from trainers.data.rows.drops import EMPTY
from trainers.data.rows.row_kinds import Row, row_of
from trainers.data.rows.tokens import MASKED
from trainers.data.samples.chat import Sample, plain
from trainers.model.tokenizer import byte_tokenizer


def row(text: str, tokenizer: PreTrainedTokenizerBase) -> Row:
    document: Sample = {"place": "f.txt, line 1", "messages": [plain("user", text)], "tools": []}
    return row_of(document, "text", tokenizer, compose(["model=demo", "data=demo"]).data)


def test_a_document_is_its_bytes_and_the_end_token():
    tokenizer = byte_tokenizer()
    tokens = row("AB", tokenizer)
    assert tokens["input_ids"] == [*tokenizer("AB")["input_ids"], tokenizer.eos_token_id]
    assert (tokens["length"], tokens["tokens"], tokens["learned"], tokens["drop"]) == (3, 3, 3, "")


def test_a_begin_token_that_the_tokenizer_writes_stays_and_an_end_token_is_not_doubled():
    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens({"bos_token": "<s>"})
    around = TemplateProcessing(
        single="<s> $A <|im_end|>", special_tokens=[(name, tokenizer.convert_tokens_to_ids(name)) for name in ("<s>", "<|im_end|>")]
    )
    tokenizer.backend_tokenizer.post_processor = around
    tokens = row("A", tokenizer)
    assert tokenizer.convert_ids_to_tokens(tokens["input_ids"]) == ["<s>", "A", "<|im_end|>"]


def test_an_empty_document_is_dropped():
    assert row(" \n", byte_tokenizer())["drop"] == EMPTY


def test_a_tokenizer_without_an_end_token_is_refused():
    tokenizer = byte_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(ValueError, match=r"model.tokenizer has no end token, and pre-training needs one between documents"):
        row("A", tokenizer)


def block(*documents: list[int]) -> Block:
    return numpy.array([token for ids in documents for token in ids]), numpy.array([len(ids) for ids in documents])


def as_lists(columns: Columns) -> dict[str, list[int]]:
    return {name: column.tolist() for name, column in columns.items()}


def test_chunks_are_full_and_hold_every_token_once_with_the_places_where_documents_begin():
    chunks = chunked([block([1, 2, 3], [4, 5, 6, 7, 8, 9]), block([10])], capacity=4)
    assert [(tokens.tolist(), numpy.flatnonzero(begins).tolist()) for tokens, begins in chunks] == [
        ([1, 2, 3, 4, 5, 6, 7, 8], [0, 3]),
        ([9, 10], [1]),
    ]


def test_a_last_token_alone_is_left_out():
    assert [tokens.tolist() for tokens, _ in chunked([block([1, 2, 3, 4, 5])], capacity=4)] == [[1, 2, 3, 4]]
    assert list(chunked([block([1])], capacity=4)) == []


def test_every_token_but_the_first_of_a_chunk_is_learned():
    columns = chunk_columns(numpy.array([1, 2, 3, 4, 5]), numpy.array([True, False, False, True, False]), capacity=3)
    assert as_lists(columns) == {"input_ids": [1, 2, 3, 4, 5], "labels": [MASKED, 2, 3, MASKED, 5]}


def test_packed_documents_do_not_learn_their_first_token_from_the_document_before():
    # Two chunks of 4: documents of 3 and 4 tokens, of which the second begins with one token in the first chunk, and one of 1.
    columns = packed_chunk_columns(numpy.array([1, 2, 3, 4, 5, 6, 7, 8]), numpy.array([1, 0, 0, 1, 0, 0, 0, 1], bool), capacity=4)
    assert as_lists(columns) == {
        "input_ids": [1, 2, 3, 4, 5, 6, 7, 8],
        "labels": [MASKED, 2, 3, MASKED, MASKED, 6, 7, MASKED],
        "position_ids": [0, 1, 2, 0, 0, 1, 2, 0],
    }
