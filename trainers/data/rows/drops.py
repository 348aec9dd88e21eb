"""Why a sample is dropped."""

from collections.abc import Iterable

from trainers.data.samples.chat import THOUGHTS, Message, says_nothing

NOTHING_LEARNED = "nothing left to learn"  # most often because the cutoff took the whole answer
EMPTY = "empty"
EQUAL = "chosen and rejected are equal"
NO_ROOM = "no room for an answer"
PROMPT_TOO_LONG = "prompt too long"
UNWANTED = "with weight 0 on every answer"
TOO_LONG = "longer than data.cutoff"  # where data.on_long=drop


def emptiness(messages: Iterable[Message]) -> str:
    """EMPTY, with what there is instead of a text, where a message says nothing; else an empty text."""
    silent = next(filter(says_nothing, messages), None)
    if silent is None:
        return ""
    thoughts = [name for name in THOUGHTS if silent.get("further", {}).get(name)]
    return f"{EMPTY} but for {' and '.join(thoughts)}" if thoughts else EMPTY


def is_empty(reason: str) -> bool:
    return reason.startswith(EMPTY)
