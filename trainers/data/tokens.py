"""A sample as token ids and labels: what is learned and what is masked."""

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
    problem: str


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
    flags = answer_flags(offsets, learned_spans(sample, rendered.answers)) if mask_prompt else [True] * len(ids)
    labels = [token if flag and position > 0 else MASKED for position, (token, flag) in enumerate(zip(ids, flags, strict=True))]
    learned = sum(label != MASKED for label in labels)
    drop = EMPTY if says_nothing([message for message in sample["messages"] if message["learn"]]) else "" if learned else NOTHING_LEARNED
    counts = {"length": len(whole), "tokens": len(ids), "learned": learned}
    return {"input_ids": ids, "labels": labels, **counts, "drop": drop, "problem": ""}


def learned_spans(sample: Sample, answers: list[Span]) -> list[Span]:
    learn = [message["learn"] for message in sample["messages"] if message["role"] == "assistant"]
    return [span for span, wanted in zip(answers, learn, strict=True) if wanted]


def answer_flags(offsets: list[Span], spans: list[Span]) -> list[bool]:
    """Whether each token begins within one of the spans, both in ascending order."""
    flags: list[bool] = []
    index = previous_end = 0
    for begin, end in offsets:
        # A tokenizer that trims offsets gives a lone space no width, at the place where it ends.
        start = previous_end if begin == end else begin
        while index < len(spans) and start >= spans[index][1]:
            index += 1
        flags.append(index < len(spans) and start >= spans[index][0])
        previous_end = end
    return flags
