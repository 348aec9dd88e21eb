"""The kinds of rows that can be made of what a set holds: an answered question gives a prompt, a pair gives answers."""

from collections.abc import Callable

from conf.stages import Kind
from trainers.data.samples.chat import Message, Sample


def as_it_is(sample: Sample) -> list[Sample]:
    return [sample]


def unanswered(sample: Sample) -> list[Sample]:
    return [prompt_of(sample, sample["messages"], "")]


def question(sample: Sample) -> list[Sample]:
    """The prompt before the last answer; a conversation that ends with a question is one already."""
    *before, last = sample["messages"]
    if last["role"] != "assistant":
        return unanswered(sample)
    if not sample.get("label", True):
        return [with_unread(prompt_of(sample, before, ""), "answers that are labelled bad, as prompts alone are used")]
    return [referring(sample, before, [last])]


def question_of_pair(sample: Sample) -> list[Sample]:
    return [with_unread(referring(sample, sample["messages"], sample["chosen"]), "rejected answers, as prompts alone are used")]


def chosen_answer(sample: Sample) -> list[Sample]:
    return [with_unread(answered(sample, sample["chosen"]), "rejected answers, as chosen ones alone are learned")]


def good_and_bad(sample: Sample) -> list[Sample]:
    """As TRL unpairs a preference set for KTO."""
    return [{**answered(sample, sample["chosen"]), "label": True}, {**answered(sample, sample["rejected"]), "label": False}]


def referring(sample: Sample, messages: list[Message], answer: list[Message]) -> Sample:
    """The prompt with the text of its answer, which reward functions may read."""
    made = prompt_of(sample, messages, answer[-1]["content"])
    alone = len(answer) == 1 and not {"calls", "further", "weight"} & answer[0].keys()
    return made if alone else with_unread(made, "calls and fields of answers, as prompts alone are used")


def with_unread(sample: Sample, name: str) -> Sample:
    """What this kind of row leaves out of every such record stands in the report."""
    return {**sample, "unread": [*sample.get("unread", []), name]}


def prompt_of(sample: Sample, messages: list[Message], answer: str) -> Sample:
    return {**alike(sample, messages), "answer": answer}


def answered(sample: Sample, answer: list[Message]) -> Sample:
    return alike(sample, [*sample["messages"], *answer])


def alike(sample: Sample, messages: list[Message]) -> Sample:
    """The same record's tools and place with other messages."""
    made: Sample = {"place": sample["place"], "messages": messages, "tools": sample["tools"]}
    if "unread" in sample:
        made["unread"] = sample["unread"]
    if "repairs" in sample:
        made["repairs"] = sample["repairs"]
    return made


# What a set holds -> the kind of rows that a stage wants -> how they are made; the pairs are those of GIVES in conf/data_kinds.py.
MAKE: dict[Kind, dict[Kind, Callable[[Sample], list[Sample]]]] = {
    "text": {"text": as_it_is, "prompts": unanswered},
    "answers": {"answers": as_it_is, "prompts": question},
    "pairs": {"pairs": as_it_is, "answers": chosen_answer, "labelled": good_and_bad, "prompts": question_of_pair},
    "labelled": {"labelled": as_it_is, "prompts": question},
    "prompts": {"prompts": unanswered},
}


def last_answer_alone(sample: Sample) -> Sample:
    """For data.train_history=false: earlier answers are context."""
    *before, last = sample["messages"]
    return {**sample, "messages": [*({**message, "learn": False} for message in before), last]}
