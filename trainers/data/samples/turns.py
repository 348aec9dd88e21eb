"""Conversations whose roles do not alternate, made to (data.turns=repair): nothing is changed that is not counted."""

from trainers.data.samples.chat import PARALLEL, Message, Role, Sample

MERGED = "messages of one role were merged"
OPENS = "conversations begin with an answer"
UNANSWERED = "a question without an answer was left out at the end"

# What may follow what once turns are merged: an answer may begin, and the results of several tools are in a row.
REPAIRED: dict[str, tuple[Role, ...]] = {**PARALLEL, "start": ("system", "user", "assistant"), "system": ("user", "assistant")}


def repair(sample: Sample, answered: bool) -> tuple[Sample, list[str]]:
    """The sample with its turns in order, and what was done to it; of an answered conversation what follows the last answer is left out."""
    done: set[str] = set()
    repaired: Sample = {**sample, "messages": merged(sample["messages"], done)}
    if "chosen" in sample:
        repaired["chosen"], repaired["rejected"] = merged(sample["chosen"], done), merged(sample["rejected"], done)
    messages = repaired["messages"]
    if answered:
        end = max((number for number, message in enumerate(messages, start=1) if message["role"] == "assistant"), default=len(messages))
        if end < len(messages):
            done.add(UNANSWERED)
        repaired["messages"] = messages = messages[:end]
    if next((message["role"] for message in messages if message["role"] != "system"), "") == "assistant":
        done.add(OPENS)
    return repaired, sorted(done)


def merged(messages: list[Message], done: set[str]) -> list[Message]:
    made: list[Message] = []
    for message in messages:
        if made and message["role"] != "tool" and can_merge(made[-1], message):
            made[-1] = one_of(made[-1], message)
            done.add(MERGED)
        else:
            made.append(message)
    return made


def can_merge(first: Message, second: Message) -> bool:
    """Of one role, learned alike, and without fields that contradict each other."""
    ours, theirs = first.get("further", {}), second.get("further", {})
    return (
        first["role"] == second["role"] and first["learn"] == second["learn"] and all(theirs[key] == ours[key] for key in ours.keys() & theirs.keys())
    )


def one_of(first: Message, second: Message) -> Message:
    whole: Message = {**first, "content": "\n\n".join(text for text in (first["content"], second["content"]) if text)}
    calls, further = [*first.get("calls", []), *second.get("calls", [])], {**first.get("further", {}), **second.get("further", {})}
    if calls:
        whole["calls"] = calls
    if further:
        whole["further"] = further
    return whole
