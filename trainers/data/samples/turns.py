"""Conversations whose roles do not alternate, made to (data.turns=repair): nothing is changed that is not counted."""

from trainers.data.samples.chat import PARALLEL, Message, Role, RowError, Sample

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
    """
    Raises:
        RowError: for neighbours of one role that contradict each other.
    """
    made: list[Message] = []
    for number, message in enumerate(messages, start=1):
        if made and made[-1]["role"] == message["role"] != "tool":
            refuse_contradiction(made[-1], message, number)
            made[-1] = one_of(made[-1], message)
            done.add(MERGED)
        else:
            made.append(message)
    return made


def refuse_contradiction(first: Message, second: Message, number: int) -> None:
    """Two messages become one only if they are learned alike and no field has two values."""
    ours, theirs = fields(first), fields(second)
    differ = sorted(key for key in ours.keys() & theirs.keys() if theirs[key] != ours[key])
    if first["learn"] != second["learn"] and "weight" not in differ:
        differ.append("weight")
    if differ:
        raise RowError(
            f"message {number} follows another one of the role {second['role']} and differs from it in {' and '.join(differ)}, so data.turns=repair "
            "cannot merge them. Give both the same, or put the message between them that is missing"
        )


def fields(message: Message) -> dict[str, object]:
    return {**message.get("further", {}), **({"weight": message["weight"]} if "weight" in message else {})}


def one_of(first: Message, second: Message) -> Message:
    whole: Message = {**first, "content": "\n\n".join(text for text in (first["content"], second["content"]) if text)}
    calls, further = [*first.get("calls", []), *second.get("calls", [])], {**first.get("further", {}), **second.get("further", {})}
    if calls:
        whole["calls"] = calls
    if further:
        whole["further"] = further
    if "weight" in second:
        whole["weight"] = second["weight"]
    return whole
