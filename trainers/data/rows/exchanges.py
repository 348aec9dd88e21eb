"""Where the answers of a long conversation lie: each exchange is rendered alone.

To render all that is before each answer takes quadratic time. An exchange is a question with all that follows before the next one, and most templates
write it the same whatever came before. That is checked: the text of each exchange must be found in the whole conversation at its place, and
the first, the last and two more answers must lie where rendering all that is before them puts them.
"""

from trainers.data.rows.spans import span_of_answer
from trainers.data.rows.template import Conversation, Span, Template
from trainers.data.samples.chat import RowError

FEW = 8  # answers: up to here rendering all that is before each costs little


def spans_by_exchange(template: Template, messages: Conversation, whole: str) -> dict[int, Span] | None:
    """The span of each answer by its number among the messages; None where exchanges alone do not tell it for sure."""
    answers = [number for number, message in enumerate(messages) if message["role"] == "assistant"]
    head = messages[:1] if messages[0]["role"] == "system" else []
    begins = exchange_begins(messages, len(head))
    second = next((answer for answer in answers if begins[answer] > len(head)), None)
    if len(answers) <= FEW or second is None:
        return None
    try:
        befores = template.render([[*head, *messages[begins[answer] : answer]] for answer in answers], prompt=True)
        afters = template.render([[*head, *messages[begins[answer] : answer + 1]] for answer in answers])
    except RowError:  # of a template that accepts no part of a conversation
        return None
    checked = {answer: exact_span(template, messages, whole, answer) for answer in (answers[0], begins[second] - 1, second, answers[-1])}
    last_of_first = checked[begins[second] - 1]
    if last_of_first is None:
        return None
    [before] = template.render([messages[:second]], prompt=True)
    opening = len(befores[answers.index(second)].text) - (len(before.text) - last_of_first[1])  # characters before the first question
    spans: dict[int, Span] = {}
    for answer, alone, ended in zip(answers, befores, afters, strict=True):
        place = opening if begins[answer] == len(head) else spans[begins[answer] - 1][1]
        if opening < 0 or alone.text[:opening] != whole[:opening] or ended.text[:opening] != whole[:opening]:
            return None
        own = whole[place : place + len(ended.text)]
        found = span_of_answer(own, alone.text[opening:], ended.text[opening:], messages[answer])
        if found is None:
            return None
        spans[answer] = place + found[0], place + found[1]
    return spans if all(spans[answer] == span for answer, span in checked.items()) else None


def exchange_begins(messages: Conversation, first: int) -> list[int]:
    """For each message the number of the first one of its exchange."""
    begins: list[int] = []
    begin = first
    for number, message in enumerate(messages):
        if number > first and message["role"] == "user" and messages[number - 1]["role"] == "assistant":
            begin = number
        begins.append(begin)
    return begins


def exact_span(template: Template, messages: Conversation, whole: str, answer: int) -> Span | None:
    """What the message adds to the prompt of all that is before it."""
    [before] = template.render([messages[:answer]], prompt=True)
    after = whole if answer + 1 == len(messages) else template.render([messages[: answer + 1]])[0].text
    return span_of_answer(whole, before.text, after, messages[answer])
