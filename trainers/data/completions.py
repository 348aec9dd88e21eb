"""Rows of the preference and reinforcement stages: prompt and answers as separate token ids.

Truncation: a prompt is kept whole, since its beginning holds the system message and its end the question; what is too long is cut at the end of
the answers, as in fine-tuning. A prompt that leaves no room for an answer within data.cutoff, or fills it where answers are generated, is dropped.
"""

from typing import TypedDict

from transformers import PreTrainedTokenizerBase

from trainers.data.chat import Message, Sample, says_nothing
from trainers.data.encoding import Encode, Steps, finish
from trainers.data.rendering import render_prompt, render_sample
from trainers.data.report import EMPTY, EQUAL, NO_ROOM, PROMPT_TOO_LONG
from trainers.data.tokens import answer_flags


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


def tokenise_pair(sample: Sample, tokenizer: PreTrainedTokenizerBase, cutoff: int) -> PairTokens:
    """The row of one sample alone.

    Raises:
        RowError: when the template cannot show the sample.
    """
    return finish(pair_steps(sample, tokenizer, cutoff), tokenizer)


def pair_steps(sample: Sample, tokenizer: PreTrainedTokenizerBase, cutoff: int) -> Steps[PairTokens]:
    """Both answers after the longest beginning that they share with the prompt.

    A tokenizer may merge the prompt's last character with the answer's first; that token then belongs to the answers.

    Raises:
        RowError: when the template cannot show the sample.
    """
    chosen_prompt, chosen = yield from split_ids(sample, sample["chosen"], tokenizer)
    rejected_prompt, rejected = yield from split_ids(sample, sample["rejected"], tokenizer)
    common = shared_length(chosen_prompt, rejected_prompt)
    prompt, chosen, rejected = chosen_prompt[:common], chosen_prompt[common:] + chosen, rejected_prompt[common:] + rejected
    length = common + max(len(chosen), len(rejected))
    room = max(cutoff - common, 0)
    chosen, rejected = chosen[:room], rejected[:room]
    if says_nothing(sample["chosen"]) or says_nothing(sample["rejected"]):
        drop = EMPTY
    else:
        drop = NO_ROOM if room == 0 else EQUAL if chosen == rejected else ""
    learned = len(chosen) + len(rejected)
    ids = {"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected}
    return {**ids, "length": length, "tokens": 2 * common + learned, "learned": learned, "drop": drop}


def tokenise_labelled(sample: Sample, tokenizer: PreTrainedTokenizerBase, cutoff: int) -> LabelledTokens:
    """The row of one sample alone.

    Raises:
        RowError: when the template cannot show the sample.
    """
    return finish(labelled_steps(sample, tokenizer, cutoff), tokenizer)


def labelled_steps(sample: Sample, tokenizer: PreTrainedTokenizerBase, cutoff: int) -> Steps[LabelledTokens]:
    """The last answer, and the prompt before it.

    Raises:
        RowError: when the template cannot show the sample.
    """
    *before, last = sample["messages"]
    prompt, completion = yield from split_ids({**sample, "messages": before}, [last], tokenizer)
    room = max(cutoff - len(prompt), 0)
    length, completion = len(prompt) + len(completion), completion[:room]
    drop = EMPTY if says_nothing([last]) else NO_ROOM if room == 0 else ""
    ids = {"prompt_ids": prompt, "completion_ids": completion}
    counts = {"length": length, "tokens": len(prompt) + len(completion), "learned": len(completion)}
    return {**ids, "label": sample["label"], **counts, "drop": drop}


def tokenise_prompt(sample: Sample, tokenizer: PreTrainedTokenizerBase, cutoff: int) -> PromptTokens:
    """The row of one sample alone.

    Raises:
        RowError: when the template cannot show the sample.
    """
    return finish(prompt_steps(sample, tokenizer, cutoff), tokenizer)


def prompt_steps(sample: Sample, tokenizer: PreTrainedTokenizerBase, cutoff: int) -> Steps[PromptTokens]:
    """The prompt as the template shows it before an answer is generated.

    Raises:
        RowError: when the template cannot show the sample.
    """
    text = render_prompt(sample, tokenizer)
    encoding = yield Encode(text, offsets=False)
    ids = encoding.ids
    drop = EMPTY if says_nothing(sample["messages"][-1:]) else PROMPT_TOO_LONG if len(ids) > cutoff else ""
    kept = {"prompt_ids": ids, "prompt": text, "answer": sample["answer"]}
    return {**kept, "length": len(ids), "tokens": len(ids), "learned": 0, "drop": drop}


def split_ids(sample: Sample, answer: list[Message], tokenizer: PreTrainedTokenizerBase) -> Steps[tuple[list[int], list[int]]]:
    """Ids before `answer` and of it, tokenised together: alone, an answer would get the space that some tokenizers put before a text."""
    context = [{**message, "learn": False} for message in sample["messages"]]
    compared = [{**message, "learn": message["role"] == "assistant"} for message in answer]
    rendered = render_sample({**sample, "messages": [*context, *compared]}, tokenizer)
    spoken = sum(message["role"] == "assistant" for message in sample["messages"])
    span = (rendered.answers[spoken][0], rendered.answers[-1][1])
    encoding = yield Encode(rendered.text[: span[1]])
    ids, flags = encoding.ids, answer_flags(encoding.offsets, [span])
    begin = flags.index(True) if True in flags else len(flags)
    return ids[:begin], ids[begin:]


def shared_length(one: list[int], other: list[int]) -> int:
    limit = min(len(one), len(other))
    return next((index for index in range(limit) if one[index] != other[index]), limit)
