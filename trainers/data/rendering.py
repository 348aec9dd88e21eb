"""A sample as the text that the chat template makes of it, and the spans of that text that are answers."""

import json
from dataclasses import dataclass

from jinja2.exceptions import TemplateError
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from trainers.data.chat import Message, RowError, Sample
from trainers.data.chat_template import marks_answers, template_names

Span = tuple[int, int]


@dataclass(frozen=True)
class Rendered:
    text: str
    answers: list[Span]  # characters [begin, end) of each assistant message with what ends it


@dataclass(frozen=True)
class Template:
    """A chat template with everything it needs beside the messages."""

    text: str
    special_tokens: dict[str, str]
    tools: list[dict[str, object]] | None

    def render(self, messages: list[dict[str, object]], prompt: bool = False, mark: bool = False) -> Rendered:
        try:
            texts, spans = render_jinja_template(
                conversations=[messages],
                tools=self.tools,
                chat_template=self.text,
                return_assistant_tokens_mask=mark,
                add_generation_prompt=prompt,
                **self.special_tokens,
            )
        except TemplateError as error:
            raise RowError(f"the chat template refuses it: {error}. {name_a_template()}") from error
        except RecursionError as error:
            raise RowError("its tools or calls are nested too deeply") from error
        return Rendered(texts[0], spans[0] if mark else [])


def render_sample(sample: Sample, tokenizer: PreTrainedTokenizerBase) -> Rendered:
    """The text of a sample and the spans of its answers in order; those that are not learned may be empty.

    Raises:
        RowError: when the template cannot show the sample, or the answers cannot be told from the rest.
    """
    template = template_for(sample, tokenizer)
    messages = [for_template(message, template.text) for message in sample["messages"]]
    rendered = template.render(messages, mark=True) if marks_answers(template.text) else render_turn_by_turn(template, messages, learned(sample))
    refuse_left_out(sample["messages"], rendered.text)
    refuse_unmarked(sample["messages"], rendered)
    return rendered


def render_prompt(sample: Sample, tokenizer: PreTrainedTokenizerBase) -> str:
    """The text after which the model is to answer.

    Raises:
        RowError: when the template cannot show the sample.
    """
    template = template_for(sample, tokenizer)
    text = template.render([for_template(message, template.text) for message in sample["messages"]], prompt=True).text
    refuse_left_out(sample["messages"], text)
    return text


def template_for(sample: Sample, tokenizer: PreTrainedTokenizerBase) -> Template:
    text = tokenizer.get_chat_template(tools=sample["tools"] or None)
    if sample["tools"] and "tools" not in text:
        raise RowError(f"the chat template does not show tools. {name_a_template()}")
    return Template(text, tokenizer.special_tokens_map, sample["tools"] or None)


def for_template(message: Message, template: str) -> dict[str, object]:
    """Calls as the structure that a template for tools expects, else as JSON text in the content."""
    calls = message.get("calls", [])
    plain: dict[str, object] = {"role": message["role"], "content": message["content"]}
    if not calls:
        return plain
    if "tool_calls" in template:
        return {**plain, "tool_calls": [{"type": "function", "function": call} for call in calls]}
    return {**plain, "content": "\n".join([*([message["content"]] if message["content"] else []), *(json.dumps(call) for call in calls)])}


def learned(sample: Sample) -> list[bool]:
    return [message["learn"] for message in sample["messages"]]


def render_turn_by_turn(template: Template, messages: list[dict[str, object]], wanted: list[bool]) -> Rendered:
    """An answer is what a message adds to the prompt before it; that holds only if each rendering begins the next.

    Templates of reasoning models write earlier answers without their thoughts: those can be context, not learned.
    """
    whole = template.render(messages).text
    answers: list[Span] = []
    for index, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        if not wanted[index]:
            answers.append((0, 0))
            continue
        before = template.render(messages[:index], prompt=True).text
        after = template.render(messages[: index + 1]).text
        if not (after.startswith(before) and whole.startswith(after)):
            other = f"Learn the last answer alone (data.train_history=false). {name_a_template()}"
            raise RowError(f"the chat template writes message {index + 1} differently once more follows. {other}")
        answers.append((len(before), len(after)))
    return Rendered(whole, answers)


def refuse_left_out(messages: list[Message], text: str) -> None:
    """Some templates skip roles that they do not know; training would then see less than the data holds."""
    for number, message in enumerate(messages, start=1):
        if message["role"] in ("system", "tool") and message["content"].strip() not in text:
            raise RowError(f"the chat template leaves out message {number} (role {message['role']}). {name_a_template()}")


def refuse_unmarked(messages: list[Message], rendered: Rendered) -> None:
    spoken = sum(message["role"] == "assistant" for message in messages)
    if len(rendered.answers) != spoken:
        raise RowError(f"the chat template marks {len(rendered.answers)} of {spoken} answers. {name_a_template()}")


def name_a_template() -> str:
    return f"Name a template that takes it: data.template is one of {', '.join(template_names())}"
