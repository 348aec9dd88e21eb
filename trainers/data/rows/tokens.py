"""A sample as token ids and labels: what is learned and what is masked."""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import TypedDict

from trainers.data.rows.drops import NOTHING_LEARNED, UNWANTED, emptiness
from trainers.data.rows.rendering import Shown
from trainers.data.rows.template import Span
from trainers.data.samples.chat import Sample

MASKED = -100  # the label that torch's cross-entropy ignores


class Tokens(TypedDict):
    input_ids: list[int]
    labels: list[int]
    length: int  # before truncation
    tokens: int  # after it
    learned: int
    drop: str  # why nothing can be learned of it, or ""


def answer_row(sample: Sample, shown: Sequence[Shown], cutoff: int, mask_prompt: bool) -> Tokens:
    """Ids and labels of equal length, at most `cutoff`; the first label is masked, as nothing comes before it."""
    [(rendered, encoding)] = shown
    whole = encoding.ids
    ids = whole[:cutoff]
    learned_ranges = answer_ranges(len(ids), encoding.token_to_chars, learned_spans(sample, rendered.answers)) if mask_prompt else [(0, len(ids))]
    labels = [MASKED] * len(ids)
    for first, after in learned_ranges:
        labels[max(first, 1) : after] = ids[max(first, 1) : after]
    learned = len(labels) - labels.count(MASKED)
    answers = [message for message in sample["messages"] if message["learn"]]
    unwanted = UNWANTED if mask_prompt and not answers else ""
    drop = unwanted or emptiness(answers) or ("" if learned else NOTHING_LEARNED)
    return {"input_ids": ids, "labels": labels, "length": len(whole), "tokens": len(ids), "learned": learned, "drop": drop}


def learned_spans(sample: Sample, answers: list[Span]) -> list[Span]:
    learn = [message["learn"] for message in sample["messages"] if message["role"] == "assistant"]
    return [span for span, wanted in zip(answers, learn, strict=True) if wanted]


def answer_ranges(tokens: int, place_of: Callable[[int], Span], spans: list[Span]) -> list[tuple[int, int]]:
    """The tokens [first, after) that begin within each span; a search reads the places of a few tokens, because a list of all places costs more."""

    def begin_of(token: int) -> int:
        begin, end = place_of(token)
        if begin < end:
            return begin
        return place_of(token - 1)[1] if token else 0  # a tokenizer that trims offsets gives a lone space no width, at the place where it ends

    every = range(tokens)
    return [(bisect_left(every, begin, key=begin_of), bisect_left(every, end, key=begin_of)) for begin, end in spans]
