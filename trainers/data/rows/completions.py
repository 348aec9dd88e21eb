"""Rows of the preference and reinforcement stages: prompt and answers as separate token ids.

Truncation: a prompt is kept whole, since its beginning holds the system message and its end the question; what is too long is cut at the end of
the answers, as in fine-tuning. A prompt that leaves no room for an answer within data.cutoff, or fills it where answers are generated, is dropped.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import dropwhile
from typing import TypedDict

from transformers import PreTrainedTokenizerBase

from trainers.data.rows.drops import EQUAL, NO_ROOM, PROMPT_TOO_LONG, emptiness
from trainers.data.rows.rendering import Shown, render_samples
from trainers.data.rows.template import Rendered
from trainers.data.rows.tokens import answer_ranges, learned_spans
from trainers.data.samples.chat import Message, RowError, Sample


class PairTokens(TypedDict):
    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]
    length: int  # of the longer sequence, before truncation
    tokens: int  # of both sequences, after it
    learned: int
    drop: str


class LabelledTokens(TypedDict):
    prompt_ids: list[int]
    completion_ids: list[int]
    label: bool
    length: int
    tokens: int
    learned: int
    drop: str


class PromptTokens(TypedDict):
    prompt_ids: list[int]
    prompt: str
    answer: str
    length: int
    tokens: int
    learned: int
    drop: str


def both_answers(sample: Sample) -> list[Sample]:
    return [answered(sample, sample["messages"], sample["chosen"]), answered(sample, sample["messages"], sample["rejected"])]


def compared(sample: Sample) -> list[Message]:
    """The answers of a pair."""
    return [message for message in [*sample["chosen"], *sample["rejected"]] if message["role"] == "assistant"]


def learned_of_pair(sample: Sample) -> list[Message]:
    """Each side from its first answer to its last: what tools say in between is learned too."""
    return [message for side in (sample["chosen"], sample["rejected"]) for message in dropwhile(lambda one: one["role"] != "assistant", side)]


def last_answer(sample: Sample) -> list[Sample]:
    *before, last = sample["messages"]
    return [answered(sample, before, [last])]


def answered(sample: Sample, context: list[Message], answer: list[Message]) -> Sample:
    """The conversation of which the answer alone is learned."""
    before = [{**message, "learn": False} for message in context]
    return {**sample, "messages": [*before, *({**message, "learn": message["role"] == "assistant"} for message in answer)]}


def render_to_answer(samples: Sequence[Sample], tokenizer: PreTrainedTokenizerBase) -> list[Rendered | RowError]:
    """The text of each sample up to the end of its answer, and the span of that."""
    every = zip(samples, render_samples(samples, tokenizer), strict=True)
    return [rendered if isinstance(rendered, RowError) else up_to_answer(sample, rendered) for sample, rendered in every]


def up_to_answer(sample: Sample, rendered: Rendered) -> Rendered:
    spans = learned_spans(sample, rendered.answers)
    begin, end = spans[0][0], spans[-1][1]
    return replace(rendered, text=rendered.text[:end], answers=[(begin, end)])


def pair_row(sample: Sample, shown: Sequence[Shown], cutoff: int) -> PairTokens:
    """Both answers after the longest beginning that they share with the prompt.

    A tokenizer may merge the prompt's last character with the answer's first; that token then belongs to the answers.
    """
    (chosen_prompt, chosen), (rejected_prompt, rejected) = map(split_ids, shown)
    common = shared_length(chosen_prompt, rejected_prompt)
    prompt, chosen, rejected = chosen_prompt[:common], chosen_prompt[common:] + chosen, rejected_prompt[common:] + rejected
    length = common + max(len(chosen), len(rejected))
    room = max(cutoff - common, 0)
    chosen, rejected = chosen[:room], rejected[:room]
    drop = emptiness(compared(sample)) or (NO_ROOM if room == 0 else EQUAL if chosen == rejected else "")
    learned = len(chosen) + len(rejected)
    ids = {"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected}
    return {**ids, "length": length, "tokens": 2 * common + learned, "learned": learned, "drop": drop}


def labelled_row(sample: Sample, shown: Sequence[Shown], cutoff: int) -> LabelledTokens:
    """The last answer, and the prompt before it."""
    [(prompt, completion)] = map(split_ids, shown)
    room = max(cutoff - len(prompt), 0)
    length, completion = len(prompt) + len(completion), completion[:room]
    drop = emptiness(sample["messages"][-1:]) or (NO_ROOM if room == 0 else "")
    ids = {"prompt_ids": prompt, "completion_ids": completion}
    counts = {"length": length, "tokens": len(prompt) + len(completion), "learned": len(completion)}
    return {**ids, "label": sample["label"], **counts, "drop": drop}


def prompt_row(sample: Sample, shown: Sequence[Shown], cutoff: int) -> PromptTokens:
    """The prompt as the template shows it before an answer is generated."""
    [(rendered, encoding)] = shown
    ids = encoding.ids
    drop = emptiness(sample["messages"][-1:]) or (PROMPT_TOO_LONG if len(ids) > cutoff else "")
    kept = {"prompt_ids": ids, "prompt": rendered.text, "answer": sample["answer"]}
    return {**kept, "length": len(ids), "tokens": len(ids), "learned": 0, "drop": drop}


def split_ids(shown: Shown) -> tuple[list[int], list[int]]:
    """Ids before the answer and of it, tokenised together: alone, an answer would get the space that some tokenizers put before a text."""
    rendered, encoding = shown
    ids = encoding.ids
    [(begin, end)] = answer_ranges(len(ids), encoding.token_to_chars, rendered.answers)
    return (ids[:begin], ids[begin:]) if begin < end else (ids, [])


def shared_length(one: list[int], other: list[int]) -> int:
    limit = min(len(one), len(other))
    return next((index for index in range(limit) if one[index] != other[index]), limit)
