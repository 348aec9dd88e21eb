"""A sample as the text that the chat template makes of it, and the spans of that text that are answers."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import groupby

from tokenizers import Encoding
from transformers import PreTrainedTokenizerBase

from trainers.data.rows.chat_template import marks_answers, shows_tools
from trainers.data.rows.controls import Encoded
from trainers.data.rows.exchanges import exact_span, spans_by_exchange
from trainers.data.rows.spans import written_differently
from trainers.data.rows.template import Conversation, Rendered, Span, Template, for_template, name_a_template
from trainers.data.rows.unread import with_unread, with_unread_ids
from trainers.data.samples.chat import Message, RowError, Sample

Shown = tuple[Rendered, Encoding | Encoded]
Render = Callable[[Sequence[Sample]], list[Rendered]]


def render_samples(samples: Sequence[Sample], tokenizer: PreTrainedTokenizerBase) -> list[Rendered | RowError]:
    """The text of each sample and the spans of its answers in order, or why the template cannot show it; spans that are not learned may be empty."""
    return in_groups(samples, partial(rendered_answers, tokenizer=tokenizer))


def render_prompts(samples: Sequence[Sample], tokenizer: PreTrainedTokenizerBase) -> list[Rendered | RowError]:
    """The text after which the model is to answer, of each sample, or why the template cannot show it."""
    return in_groups(samples, partial(rendered_prompts, tokenizer=tokenizer))


def in_groups(samples: Sequence[Sample], render: Render) -> list[Rendered | RowError]:
    """Samples without tools are rendered together, others alone, as each brings its own."""
    groups = groupby(samples, key=lambda sample: id(sample["tools"]) if sample["tools"] else None)
    return [rendered for _, group in groups for rendered in halved(list(group), render)]


def halved(samples: list[Sample], render: Render) -> list[Rendered | RowError]:
    """All at once, and where that fails each half, down to the samples at fault."""
    try:
        return [*render(samples)]
    except RowError as error:
        middle = len(samples) // 2
        return [*halved(samples[:middle], render), *halved(samples[middle:], render)] if middle else [error]


def rendered_answers(samples: Sequence[Sample], tokenizer: PreTrainedTokenizerBase) -> list[Rendered]:
    template, conversations = prepared(samples, tokenizer)
    if marks_answers(template.text):
        every = template.render(conversations, mark=True)
    else:
        every = [render_turn_by_turn(template, messages, learned(sample)) for messages, sample in zip(conversations, samples, strict=True)]
    for sample, rendered in zip(samples, every, strict=True):
        refuse_left_out(sample["messages"], rendered.text)
        refuse_unmarked(sample["messages"], rendered)
    return with_unread_ids(with_unread(every, conversations, template), samples, conversations, template)


def rendered_prompts(samples: Sequence[Sample], tokenizer: PreTrainedTokenizerBase) -> list[Rendered]:
    template, conversations = prepared(samples, tokenizer)
    every = template.render(conversations, prompt=True)
    for sample, rendered in zip(samples, every, strict=True):
        refuse_left_out(sample["messages"], rendered.text)
    return with_unread_ids(with_unread(every, conversations, template, prompt=True), samples, conversations, template, prompt=True)


def prepared(samples: Sequence[Sample], tokenizer: PreTrainedTokenizerBase) -> tuple[Template, list[Conversation]]:
    tools = samples[0]["tools"] or None  # those of all
    text = tokenizer.get_chat_template(tools=tools)
    if tools and not shows_tools(text):
        raise RowError(f"the chat template does not show tools. {name_a_template()}")
    return Template(text, tokenizer.special_tokens_map, tools), [
        [for_template(message, text) for message in sample["messages"]] for sample in samples
    ]


def learned(sample: Sample) -> list[bool]:
    return [message["learn"] for message in sample["messages"]]


def render_turn_by_turn(template: Template, messages: Conversation, wanted: list[bool]) -> Rendered:
    """An answer is what a message adds to the prompt before it."""
    [whole] = template.render([messages])
    found = spans_by_exchange(template, messages, whole.text)
    answers: list[Span] = []
    for index, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        if not wanted[index]:
            answers.append((0, 0))
            continue
        span = exact_span(template, messages, whole.text, index) if found is None else found[index]
        if span is None:
            raise RowError(written_differently(index, len(messages), template.text))
        answers.append(span)
    return Rendered(whole.text, answers)


def refuse_left_out(messages: list[Message], text: str) -> None:
    """Some templates skip roles that they do not know; training would then see less than the data holds."""
    for number, message in enumerate(messages, start=1):
        if message["role"] in ("system", "tool") and message["content"].strip() not in text:
            raise RowError(f"the chat template leaves out message {number} (role {message['role']}). {name_a_template()}")


def refuse_unmarked(messages: list[Message], rendered: Rendered) -> None:
    spoken = sum(message["role"] == "assistant" for message in messages)
    if len(rendered.answers) != spoken:
        raise RowError(f"the chat template marks {len(rendered.answers)} of {spoken} answers. {name_a_template()}")
