"""Long conversations under templates without marks: the same spans as by rendering all that is before each answer, without its quadratic time."""

from pathlib import Path

import pytest
import trl

from trainers.data.rows import exchanges
from trainers.data.rows.exchanges import exact_span, spans_by_exchange
from trainers.data.rows.template import Conversation, Rendered, Template

PUBLISHED = Path(trl.__file__).parent / "chat_templates"
CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
NUMBERED = (
    "{% for m in messages %}<{{ m.role }} {{ loop.index }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}"
    "<assistant {{ messages|length + 1 }}>{% endif %}"
)
COUNTS = "{{ messages|length }}{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
ALTERNATES = (
    "{% for m in messages %}{% if loop.index0 % 8 == 7 %}({{ m.role }}){% else %}[{{ m.role }}]{% endif %}{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}{% if messages|length % 8 == 7 %}(assistant){% else %}[assistant]{% endif %}{% endif %}"
)


def conversation(exchanges: int, system: bool = False, tools: bool = False) -> Conversation:
    """Questions and answers, of which some are equal."""
    messages: Conversation = [{"role": "system", "content": "S"}] if system else []
    for number in range(exchanges):
        messages.append({"role": "user", "content": f"q{number % 3}"})
        if tools and number % 2:
            messages += [{"role": "assistant", "content": "", "tool_calls": [CALL]}, {"role": "tool", "content": str(number)}]
        messages.append({"role": "assistant", "content": f"a{number % 4}"})
    return messages


class Counting(Template):
    """A template that counts the messages that it renders."""

    rendered = 0

    def render(self, conversations: list[Conversation], prompt: bool = False, mark: bool = False) -> list[Rendered]:  # type: ignore[override]
        Counting.rendered += sum(map(len, conversations))
        return super().render(conversations, prompt, mark)


def template_of(text: str, tools: bool = False) -> Counting:
    return Counting(text, {"bos_token": "<s>", "eos_token": "</s>"}, [{"type": "function", "function": {"name": "add"}}] if tools else None)


def published(name: str) -> str:
    return (PUBLISHED / f"{name}.jinja").read_text(encoding="utf-8")


def exact(template: Template, messages: Conversation, whole: str) -> dict[int, tuple[int, int] | None]:
    return {number: exact_span(template, messages, whole, number) for number, message in enumerate(messages) if message["role"] == "assistant"}


@pytest.mark.parametrize("system", [False, True])
@pytest.mark.parametrize(
    ("name", "tools"), [("qwen3", False), ("qwen3", True), ("qwen2_5", True), ("llama3", False), ("gemma", False), ("deepseekv3", False)]
)
def test_exchanges_alone_give_the_spans_of_the_whole(name: str, tools: bool, system: bool) -> None:
    template, messages = template_of(published(name), tools), conversation(12, system and name != "gemma", tools)
    [whole] = template.render([messages])
    found = spans_by_exchange(template, messages, whole.text)
    assert found is not None
    assert found == exact(template, messages, whole.text)
    assert all(str(messages[number]["content"]) in whole.text[begin:end] for number, (begin, end) in found.items())


@pytest.mark.parametrize("text", [NUMBERED, COUNTS, ALTERNATES])
def test_templates_that_count_messages_are_left_to_the_exact_way(text: str) -> None:
    template, messages = template_of(text), conversation(12)
    [whole] = template.render([messages])
    found = spans_by_exchange(template, messages, whole.text)
    assert found is None or found == exact(template, messages, whole.text)


def test_the_cost_grows_with_the_number_of_turns_and_not_with_its_square() -> None:
    """Messages rendered: every exchange twice, and all that is before the four answers that are checked."""
    cost = {}
    for turns in (100, 800):
        template, messages = template_of(published("qwen3")), conversation(turns // 2)
        [whole] = template.render([messages])
        Counting.rendered = 0
        assert spans_by_exchange(template, messages, whole.text) is not None
        cost[turns] = Counting.rendered
    assert cost[800] <= 9 * cost[100]  # 64 times as many by rendering all that is before each answer
    assert cost[800] <= 5 * 800


def test_short_conversations_are_rendered_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    template, messages = template_of(published("qwen3")), conversation(exchanges.FEW)
    [whole] = template.render([messages])
    assert spans_by_exchange(template, messages, whole.text) is None
