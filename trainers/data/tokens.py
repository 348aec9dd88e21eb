"""A sample as token ids and labels: what is learned and what is masked."""

from bisect import bisect_left
from operator import eq
from typing import TypedDict

from transformers import PreTrainedTokenizerBase

from trainers.data.chat import Sample, says_nothing
from trainers.data.encoding import Encode, Steps, finish
from trainers.data.rendering import Span, render_sample
from trainers.data.report import EMPTY, NOTHING_LEARNED

MASKED = -100  # the label that torch's cross-entropy ignores


class Tokens(TypedDict):
    input_ids: list[int]
    labels: list[int]
    length: int  # before truncation
    tokens: int  # after it
    learned: int
    drop: str  # why nothing can be learned of it, or ""


def tokenise(sample: Sample, tokenizer: PreTrainedTokenizerBase, cutoff: int, mask_prompt: bool) -> Tokens:
    """The row of one sample alone.

    Raises:
        RowError: when the template cannot show the sample.
    """
    return finish(answer_steps(sample, tokenizer, cutoff, mask_prompt), tokenizer)


def answer_steps(sample: Sample, tokenizer: PreTrainedTokenizerBase, cutoff: int, mask_prompt: bool) -> Steps[Tokens]:
    """Ids and labels of equal length, at most `cutoff`; the first label is masked, as nothing comes before it.

    Raises:
        RowError: when the template cannot show the sample.
    """
    rendered = render_sample(sample, tokenizer)
    encoding = yield Encode(rendered.text)
    whole = encoding.ids
    ids, offsets = whole[:cutoff], encoding.offsets[:cutoff]
    learned_ranges = answer_ranges(offsets, learned_spans(sample, rendered.answers)) if mask_prompt else [(0, len(ids))]
    labels = [MASKED] * len(ids)
    for first, after in learned_ranges:
        labels[max(first, 1) : after] = ids[max(first, 1) : after]
    learned = len(labels) - labels.count(MASKED)
    drop = EMPTY if says_nothing([message for message in sample["messages"] if message["learn"]]) else "" if learned else NOTHING_LEARNED
    counts = {"length": len(whole), "tokens": len(ids), "learned": learned}
    return {"input_ids": ids, "labels": labels, **counts, "drop": drop}


def learned_spans(sample: Sample, answers: list[Span]) -> list[Span]:
    learn = [message["learn"] for message in sample["messages"] if message["role"] == "assistant"]
    return [span for span, wanted in zip(answers, learn, strict=True) if wanted]


def answer_flags(offsets: list[Span], spans: list[Span]) -> list[bool]:
    """Whether each token begins within one of the spans, both in ascending order."""
    flags = [False] * len(offsets)
    for first, after in answer_ranges(offsets, spans):
        flags[first:after] = [True] * (after - first)
    return flags


def answer_ranges(offsets: list[Span], spans: list[Span]) -> list[tuple[int, int]]:
    """The tokens [first, after) that begin within each span."""
    begins = token_begins(offsets)
    return [(bisect_left(begins, begin), bisect_left(begins, end)) for begin, end in spans]


def token_begins(offsets: list[Span]) -> list[int]:
    begins = [begin for begin, _ in offsets]
    ends = [end for _, end in offsets]
    if any(map(eq, begins, ends)):  # a tokenizer that trims offsets gives a lone space no width, at the place where it ends
        begins = [previous if begin == end else begin for begin, end, previous in zip(begins, ends, [0, *ends[:-1]], strict=True)]
    return begins
