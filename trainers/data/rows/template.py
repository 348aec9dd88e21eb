"""A chat template with everything that it needs beside the messages."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from jinja2.exceptions import TemplateError
from transformers.utils.chat_template_utils import render_jinja_template

from conf.chat_templates import template_names
from trainers.data.samples.chat import Call, Message, RowError

Span = tuple[int, int]
Conversation = list[dict[str, object]]  # messages as templates expect them


@dataclass(frozen=True)
class Rendered:
    text: str
    answers: list[Span]  # characters [begin, end) of each assistant message with what ends it
    unread: tuple[str, ...] = ()  # fields of messages that the template does not show


@dataclass(frozen=True)
class Template:
    """A chat template with everything it needs beside the messages."""

    text: str
    special_tokens: dict[str, str]
    tools: list[dict[str, object]] | None

    def render(self, conversations: Sequence[Conversation], prompt: bool = False, mark: bool = False) -> list[Rendered]:
        try:
            texts, spans = render_jinja_template(
                conversations=list(conversations),
                tools=self.tools,
                chat_template=self.text,
                return_assistant_tokens_mask=mark,
                add_generation_prompt=prompt,
                **self.special_tokens,
            )
        except (TemplateError, TypeError, ValueError, AttributeError) as error:  # the last three of a value that is not of the type that it expects
            raise RowError(f"the chat template refuses it: {error}. {name_a_template()}") from error
        except RecursionError as error:
            raise RowError("its tools or calls are nested too deeply") from error
        return [Rendered(text, marked) for text, marked in zip(texts, spans if mark else [[]] * len(texts), strict=True)]


def for_template(message: Message, template: str) -> dict[str, object]:
    """Calls as the structure that a template for tools expects, else as JSON text in the content."""
    calls, further = message.get("calls", []), message.get("further", {})
    plain: dict[str, object] = {**further, "role": message["role"], "content": message["content"]}
    if calls and "tool_calls" in template:
        plain["tool_calls"] = [call_for_template(call) for call in calls]
    elif calls:
        texts = [json.dumps(function_of(call), ensure_ascii=False) for call in calls]
        plain["content"] = "\n".join([message["content"], *texts] if message["content"] else texts)
    return plain


def call_for_template(call: Call) -> dict[str, object]:
    return {**({"id": call["id"]} if "id" in call else {}), "type": "function", "function": function_of(call)}


def function_of(call: Call) -> dict[str, object]:
    return {"name": call["name"], "arguments": call["arguments"]}


def name_a_template() -> str:
    return f"Choose a template that accepts it: data.template is one of {', '.join(template_names())}"
