"""Fields of messages that a chat template does not show: they are named in the report and do not vanish silently."""

import json
import re
from collections.abc import Sequence
from dataclasses import replace

from trainers.data.rows.template import Conversation, Rendered, Template
from trainers.data.samples.chat import THOUGHTS, RowError, Sample

SHOWN = ("role", "content", "tool_calls")  # the rendering itself refuses a template that leaves these out


def with_unread(every: Sequence[Rendered], conversations: Sequence[Conversation], template: Template, prompt: bool = False) -> list[Rendered]:
    """What was rendered, with the fields of its messages that are not in it."""
    names = sorted({name for messages in conversations for message in messages for name in message if name not in SHOWN})
    if not names:
        return list(every)
    deaf = {name: without_effect(name, every, conversations, template, prompt) for name in names}
    return [
        replace(
            rendered, unread=tuple(f"field {name} of a message" for name in names if deaf[name][number] or is_left_out(name, messages, rendered.text))
        )
        for number, (rendered, messages) in enumerate(zip(every, conversations, strict=True))
    ]


CALL_IDS = "field id of a call"


def with_unread_ids(
    every: Sequence[Rendered], samples: Sequence[Sample], conversations: Sequence[Conversation], template: Template, prompt: bool = False
) -> list[Rendered]:
    """What was rendered, with the ids of calls where the template does not show them."""
    held = [any("id" in call for message in sample["messages"] for call in message.get("calls", [])) for sample in samples]
    if not any(held):
        return list(every)
    shown = [False] * len(held)
    if re.search(r"\bid\b", template.text):
        try:
            others = template.render([[without_ids(message) for message in messages] for messages in conversations], prompt)
            shown = [other.text != rendered.text for other, rendered in zip(others, every, strict=True)]
        except RowError:  # it cannot be rendered without
            shown = [True] * len(held)
    return [
        replace(rendered, unread=(*rendered.unread, CALL_IDS)) if has and not visible else rendered
        for rendered, has, visible in zip(every, held, shown, strict=True)
    ]


def without_ids(message: dict[str, object]) -> dict[str, object]:
    calls = message.get("tool_calls")
    if not isinstance(calls, list):
        return message
    return {**message, "tool_calls": [{key: value for key, value in call.items() if key != "id"} for call in calls]}


def without_effect(name: str, every: Sequence[Rendered], conversations: Sequence[Conversation], template: Template, prompt: bool) -> list[bool]:
    """Of each conversation whether it has such a field and would be rendered the same without it."""
    held = [any(name in message for message in messages) for messages in conversations]
    if not mentions(template.text, name):
        return held
    stripped = [[{key: value for key, value in message.items() if key != name} for message in messages] for messages in conversations]
    try:
        others = template.render(stripped, prompt)
    except RowError:  # it cannot be rendered without
        return [False] * len(held)
    return [has and other.text == rendered.text for has, other, rendered in zip(held, others, every, strict=True)]


def mentions(template: str, name: str) -> bool:
    return any(re.search(rf"\b{re.escape(word)}\b", template) for word in (THOUGHTS if name in THOUGHTS else (name,)))


def is_left_out(name: str, messages: Conversation, text: str) -> bool:
    """Whether the text of such a field is not there, as templates of reasoning models leave out earlier thoughts."""
    texts = [value.strip() for message in messages if isinstance(value := message.get(name), str)]
    return any(value not in text and json.dumps(value)[1:-1] not in text for value in texts)
