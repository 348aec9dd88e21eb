"""Where an answer lies in a conversation that a template without marks has rendered.

Templates of reasoning models write an answer with an empty thought where it is the last and without where more follows, and end the prompt within a
thought that an answer without one does not have. The answer is found in spite of both; a thought that the data hold must not be lost with them.
"""

import re

from trainers.data.rows.template import Span
from trainers.data.samples.chat import THOUGHTS

OPENED_THOUGHT = re.compile(r"<think>\s*$")


def span_of_answer(whole: str, before: str, after: str, message: dict[str, object]) -> Span | None:
    """The characters of `whole` that the message adds to the prompt `before`; None where they are not known for sure.

    `after` is the conversation rendered up to the message.
    """
    if whole.startswith(before) and after.startswith(before) and whole.startswith(after):
        return len(before), len(after)
    if has_thought(message):
        return None
    opening = before if whole.startswith(before) else OPENED_THOUGHT.sub("", before)
    if not (whole.startswith(opening) and after.startswith(opening)):
        return None
    written = shared_end(after[len(opening) :], whole[len(opening) :])
    return (len(opening), len(opening) + len(written)) if holds(written, message) else None


def has_thought(message: dict[str, object]) -> bool:
    return "</think>" in str(message["content"]) or any(message.get(name) for name in THOUGHTS)


def shared_end(alone: str, following: str) -> str:
    """The longest end of `alone` with which `following` begins."""
    place = alone.find(following[:1])
    while 0 <= place < len(alone):
        if following.startswith(alone[place:]):
            return alone[place:]
        place = alone.find(following[:1], place + 1)
    return ""


def holds(written: str, message: dict[str, object]) -> bool:
    """Whether the text has all of the message, and so is not the end of it alone."""
    calls = message.get("tool_calls")
    names = [str(call["function"]["name"]) for call in calls] if isinstance(calls, list) else []
    return str(message["content"]).strip() in written and all(name in written for name in names) and written != ""


def written_differently(index: int, messages: int, template: str) -> str:
    keeps = (
        "deepseek, which keeps thoughts" if "<｜Assistant｜>" in template else "alpaca, which leaves answers as they are and works with any tokenizer"
    )
    last = index + 1 == messages
    what = f"does not continue its own prompt with message {index + 1}" if last else f"writes message {index + 1} differently once more follows"
    other = "" if last else "Learn the last answer alone (data.train_history=false), or set "
    return f"the chat template {what}. {other or 'Set '}data.template={keeps}"
