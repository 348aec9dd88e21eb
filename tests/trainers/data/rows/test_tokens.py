"""What is learned of a sample, with templates that mark their answers and templates that do not."""

import re
from dataclasses import replace

import pytest
from transformers import PreTrainedTokenizerBase

from conf.chat_templates import named_template
from launcher.composition.compose import compose
from trainers.data.rows.drops import EMPTY
from trainers.data.rows.row_kinds import Row, row_of, rows_of
from trainers.data.rows.tokens import MASKED, answer_ranges
from trainers.data.samples.chat import Call, Message, RowError, Sample
from trainers.model.tokenizer import byte_tokenizer

UNMARKED = re.sub(r"\{%- (end)?generation %\}", "", named_template("chatml"))


def message(role: str, content: str, learn: bool = True, calls: list[Call] | None = None) -> Message:
    return {"role": role, "content": content, "learn": role == "assistant" and learn, **({"calls": calls} if calls else {})}


def sample(*messages: Message, tools: list[dict[str, object]] | None = None) -> Sample:
    return {"place": "f.json, record 1", "messages": list(messages), "tools": tools or []}


TWO_TURNS = sample(message("system", "S"), message("user", "é 1"), message("assistant", "ä  A"), message("user", "U2"), message("assistant", "B"))


def tokenizer_with(template: str) -> PreTrainedTokenizerBase:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = template
    return tokenizer


def tokenise(given: Sample, tokenizer: PreTrainedTokenizerBase, cutoff: int = 4096, mask_prompt: bool = True) -> Row:
    data = compose(["model=demo", "data=demo"]).data
    return row_of(given, "answers", tokenizer, replace(data, cutoff=cutoff, mask_prompt=mask_prompt))


def runs_of_learned_text(tokens: Row, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Each stretch of learned tokens, as text."""
    runs: list[list[int]] = [[]]
    for token, label in zip(tokens["input_ids"], tokens["labels"], strict=True):
        if label == MASKED:
            runs.append([])
        else:
            assert label == token
            runs[-1].append(token)
    return [tokenizer.decode(run) for run in runs if run]


def learned(given: Sample, template: str, mask_prompt: bool = True) -> list[str]:
    tokenizer = tokenizer_with(template)
    return runs_of_learned_text(tokenise(given, tokenizer, mask_prompt=mask_prompt), tokenizer)


@pytest.mark.parametrize("name", ["chatml", "qwen"])
def test_exactly_the_answers_and_their_ends_are_learned(name: str):
    assert learned(TWO_TURNS, named_template(name)) == ["ä  A<|im_end|>", "B<|im_end|>"]


def test_the_llama3_template_learns_its_end_of_turn():
    assert learned(TWO_TURNS, named_template("llama3")) == ["ä  A<|eot_id|>", "B<|eot_id|>"]


def test_the_alpaca_template_learns_the_tokenizers_end_token():
    assert learned(TWO_TURNS, named_template("alpaca")) == ["ä  A<|im_end|>", "B<|im_end|>"]


def test_without_marks_an_answer_is_what_follows_its_prompt():
    assert learned(TWO_TURNS, UNMARKED) == ["ä  A<|im_end|>\n", "B<|im_end|>\n"]


def test_marked_and_unmarked_templates_write_the_same_text():
    texts = [tokenise(TWO_TURNS, tokenizer_with(template))["input_ids"] for template in (named_template("chatml"), UNMARKED)]
    assert texts[0] == texts[1]


@pytest.mark.parametrize("template", [named_template("chatml"), UNMARKED], ids=["marked", "unmarked"])
def test_an_answer_that_is_not_to_be_learned_is_masked(template: str):
    given = sample(message("user", "U"), message("assistant", "A", learn=False), message("user", "U"), message("assistant", "B"))
    assert [text.strip() for text in learned(given, template)] == ["B<|im_end|>"]


@pytest.mark.parametrize("texts", [("", "B"), ("A", " \n")])
def test_a_conversation_with_an_empty_answer_is_dropped_unless_that_is_context(texts: tuple[str, str]):
    first, last = texts
    given = sample(message("user", "U"), message("assistant", first), message("user", "U"), message("assistant", last))
    assert tokenise(given, byte_tokenizer())["drop"] == EMPTY
    context = sample(*({**each, "learn": each["learn"] and bool(each["content"].strip())} for each in given["messages"]))
    assert tokenise(context, byte_tokenizer())["drop"] == ""


def test_without_masking_everything_but_the_first_token_is_learned():
    given = sample(message("user", "U"), message("assistant", "A"))
    assert learned(given, named_template("chatml"), mask_prompt=False) == ["user\nU<|im_end|>\n<|im_start|>assistant\nA<|im_end|>\n"]


def test_truncation_keeps_the_beginning_and_tells_the_whole_length():
    tokens = tokenise(sample(message("user", "U"), message("assistant", "A" * 100)), byte_tokenizer(), cutoff=30)
    # <|im_start|> user\n U <|im_end|> \n: 1 + 5 + 1 + 1 + 1 = 9; <|im_start|> assistant\n: 1 + 10; the answer 100, its end 1, a newline 1
    assert tokens["length"] == 9 + 11 + 102
    assert len(tokens["input_ids"]) == len(tokens["labels"]) == 30
    assert tokens["learned"] == 30 - 20


@pytest.mark.parametrize("name", ["alpaca", "chatml", "llama3", "qwen"])
def test_every_named_template_shows_tools_calls_and_results(name: str):
    calls: list[Call] = [{"name": "add", "arguments": {"a": "é"}}]
    given = sample(
        *[message("user", "U"), message("assistant", "", calls=calls), message("tool", "RESULT"), message("assistant", "B")],
        tools=[{"type": "function", "function": {"name": "add", "description": "TOOL"}}],
    )
    tokenizer = tokenizer_with(named_template(name))
    tokens = tokenise(given, tokenizer)
    text = tokenizer.decode(tokens["input_ids"])
    assert "TOOL" in text
    assert "RESULT" in text
    call, answer = runs_of_learned_text(tokens, tokenizer)
    assert '"name": "add"' in call
    assert '{"a": "é"}' in call
    assert answer.startswith("B")


def test_a_template_that_knows_no_calls_gets_them_as_json():
    template = UNMARKED.replace("message.tool_calls or []", "[]")
    given = sample(
        message("user", "U"), message("assistant", "", calls=[{"name": "add", "arguments": {}}]), message("tool", "1"), message("assistant", "B")
    )
    assert learned(given, template)[0] == '{"name": "add", "arguments": {}}<|im_end|>\n'


def test_a_template_that_rewrites_earlier_turns_is_refused():
    template = "{% for m in messages %}[{{ m.role }}:{{ m.content if loop.last or m.role != 'assistant' else '...' }}]{% endfor %}"
    message = r"writes message 3 differently once more follows. Learn the last answer alone .*, or set data.template=alpaca"
    with pytest.raises(RowError, match=message):
        tokenise(TWO_TURNS, tokenizer_with(template))


def test_earlier_answers_that_a_template_rewrites_may_be_context():
    template = "{% for m in messages %}[{{ m.role }}:{{ m.content if loop.last or m.role != 'assistant' else '...' }}]{% endfor %}"
    template += "{% if add_generation_prompt %}[assistant:{% endif %}"
    given: Sample = {**TWO_TURNS, "messages": [*({**each, "learn": False} for each in TWO_TURNS["messages"][:-1]), TWO_TURNS["messages"][-1]]}
    assert learned(given, template) == ["B]"]


def test_a_template_that_raises_is_quoted():
    template = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    with pytest.raises(RowError, match=r"the chat template refuses it: System role not supported"):
        tokenise(TWO_TURNS, tokenizer_with(template))


def test_a_template_that_leaves_out_a_role_or_the_tools_is_refused():
    plain = "{% for m in messages if m.role != 'system' %}<{{ m.content }}>{% endfor %}"
    with pytest.raises(RowError, match=r"leaves out message 1 \(role system\)"):
        tokenise(TWO_TURNS, tokenizer_with(plain))
    with pytest.raises(RowError, match=r"does not show tools"):
        tokenise(sample(message("user", "U"), message("assistant", "A"), tools=[{"name": "t"}]), tokenizer_with(plain))


def test_a_lone_space_without_width_belongs_to_where_it_began():
    # "a: b": a trimming tokenizer places the space between 2 and 3 at (3, 3); the answer begins at 3.
    places = [(0, 1), (1, 2), (3, 3), (3, 4)]
    assert answer_ranges(4, places.__getitem__, [(3, 4)]) == [(3, 4)]


def test_a_sample_that_the_template_refuses_leaves_those_beside_it_as_they_are_alone():
    template = "{% if messages[0].content == 'bad' %}{{ raise_exception('No') }}{% endif %}" + named_template("chatml")
    tools: list[dict[str, object]] = [{"type": "function", "function": {"name": "add"}}]
    texts = ["one", "bad", "three", "four", "bad"]
    given = [sample(message("user", text), message("assistant", "A"), tools=tools if text == "three" else None) for text in texts]
    tokenizer, data = tokenizer_with(template), replace(compose(["model=demo", "data=demo"]).data, cutoff=4096)
    rows = rows_of(given, "answers", tokenizer, data)
    assert [index for index, row in enumerate(rows) if isinstance(row, RowError)] == [1, 4]
    for index in (0, 2, 3):
        assert rows[index] == tokenise(given[index], tokenizer)
