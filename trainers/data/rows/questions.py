"""Rows read as questions: the prompt, and the answer that the data gives to it."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Any

from transformers import PreTrainedTokenizerBase

from trainers.data.rows.tokens import MASKED


@dataclass(frozen=True)
class Question:
    prompt_ids: list[int]
    answer_ids: list[int]  # with what ends an answer; empty: the data has none
    reference: str  # the answer's text


def from_row(row: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase) -> Question:
    """A row of any kind (trainers/data/prepare/folder.py) but text."""
    if "input_ids" in row:
        begin, end = last_answer(row["labels"])
        prompt, answer = row["input_ids"][:begin], row["input_ids"][begin:end]
    elif "chosen_ids" in row:
        prompt, answer = row["prompt_ids"], row["chosen_ids"]
    elif "completion_ids" in row:
        prompt, answer = row["prompt_ids"], row["completion_ids"] if row["label"] else []
    else:
        return Question(row["prompt_ids"], [], row["answer"])
    return Question(prompt, answer, tokenizer.decode(answer, skip_special_tokens=True).strip())


def first_questions(rows: Iterable[Mapping[str, Any]], count: int, tokenizer: PreTrainedTokenizerBase) -> list[Question]:
    """The first `count` samples of the rows that have an answer, or as many as there are."""
    questions = (from_row(sample, tokenizer) for row in rows for sample in samples_of(row))
    return list(islice((question for question in questions if question.reference), count))


def samples_of(row: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The samples of a packed row that are learned from; another row is one sample."""
    if "position_ids" not in row:
        yield row
        return
    bounds = [*(index for index, position in enumerate(row["position_ids"]) if position == 0), len(row["position_ids"])]
    for begin, end in pairwise(bounds):
        labels = row["labels"][begin:end]
        if any(label != MASKED for label in labels):
            yield {"input_ids": row["input_ids"][begin:end], "labels": labels}


def last_answer(labels: list[int]) -> tuple[int, int]:
    """[begin, end) of the last run of labels that are learned."""
    end = next(index for index in range(len(labels), 0, -1) if labels[index - 1] != MASKED)
    begin = next((index for index in range(end, 0, -1) if labels[index - 1] == MASKED), 0)
    return begin, end
