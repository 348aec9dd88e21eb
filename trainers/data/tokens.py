"""A sample as token ids and labels: what is learned and what is masked."""

import json
from typing import TypedDict

from transformers import PreTrainedTokenizerBase

from trainers.data.rendering import Span, render_sample
from trainers.data.samples import RowError, Sample

MASKED = -100  # the label that torch's cross-entropy ignores


class Tokens(TypedDict):
    input_ids: list[int]
    labels: list[int]
    length: int  # before truncation
    learned: int
    problem: str


def tokenise_row(row: dict[str, str], tokenizer: PreTrainedTokenizerBase, cutoff: int, mask_prompt: bool) -> Tokens:
    """For datasets.map: a problem is returned, so that one error can list them all."""
    sample: Sample = json.loads(row["sample"])
    try:
        return tokenise(sample, tokenizer, cutoff, mask_prompt)
    except RowError as error:
        return {"input_ids": [], "labels": [], "length": 0, "learned": 0, "problem": f"{sample['place']}: {error}"}


def tokenise(sample: Sample, tokenizer: PreTrainedTokenizerBase, cutoff: int, mask_prompt: bool) -> Tokens:
    """Ids and labels of equal length, at most `cutoff`; the first label is masked, as nothing comes before it.

    Raises:
        RowError: when the template cannot show the sample.
    """
    rendered = render_sample(sample, tokenizer)
    encoded = tokenizer(rendered.text, add_special_tokens=False, return_offsets_mapping=True)
    ids, offsets = encoded["input_ids"][:cutoff], encoded["offset_mapping"][:cutoff]
    flags = answer_flags(offsets, learned_spans(sample, rendered.answers)) if mask_prompt else [True] * len(ids)
    labels = [token if flag and position > 0 else MASKED for position, (token, flag) in enumerate(zip(ids, flags, strict=True))]
    learned = sum(label != MASKED for label in labels)
    return {"input_ids": ids, "labels": labels, "length": len(encoded["input_ids"]), "learned": learned, "problem": ""}


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
