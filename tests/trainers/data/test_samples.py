"""Records of each layout as messages."""

import pytest

from trainers.data.chat import Message
from trainers.data.layout import ALPACA, OPENAI, SHAREGPT, Layout
from trainers.data.records import Records
from trainers.data.samples import read_samples
from trainers.errors import DataError


def read(record: object, layout: Layout) -> list[Message]:
    return read_samples(Records("f.json", "record", [(1, record)]), layout, "answers")[0]["messages"]


def said(messages: list[Message]) -> list[tuple[str, str, bool]]:
    return [(message["role"], message["content"], message["learn"]) for message in messages]


def human(text: object) -> dict[str, object]:
    return {"from": "human", "value": text}


def gpt(text: object) -> dict[str, object]:
    return {"from": "gpt", "value": text}


def test_alpaca_joins_instruction_and_input_after_system_and_history():
    record = {"instruction": "Add.", "input": "1 2", "output": "3", "system": "Be brief.", "history": [["Hi", "Hello"]]}
    assert said(read(record, ALPACA)) == [
        ("system", "Be brief.", False),
        ("user", "Hi", False),
        ("assistant", "Hello", True),
        ("user", "Add.\n1 2", False),
        ("assistant", "3", True),
    ]


def test_alpaca_without_input_is_the_instruction_alone():
    assert said(read({"instruction": "Add.", "input": "", "output": "3"}, ALPACA)) == [("user", "Add.", False), ("assistant", "3", True)]


def test_sharegpt_function_calls_and_observations_become_calls_and_tool_messages():
    call = {"from": "function_call", "value": '{"name": "add", "arguments": {"a": 1}}'}
    messages = read({"conversations": [human("1?"), call, {"from": "observation", "value": "2"}, gpt("Two.")]}, SHAREGPT)
    assert said(messages) == [("user", "1?", False), ("assistant", "", True), ("tool", "2", False), ("assistant", "Two.", True)]
    assert messages[1]["calls"] == [{"name": "add", "arguments": {"a": 1}}]


def test_openai_calls_tools_in_parallel_and_leaves_messages_of_weight_0_unlearned():
    call = {"id": "1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    turns = [
        {"role": "system", "content": "S"},
        {"role": "user", "content": "U"},
        {"role": "assistant", "content": None, "tool_calls": [call, call]},
        {"role": "tool", "content": "1"},
        {"role": "tool", "content": "2"},
        {"role": "assistant", "content": "A", "weight": 0},
    ]
    messages = read({"messages": turns}, OPENAI)
    assert messages[2]["calls"] == [{"name": "add", "arguments": {"a": 1}}] * 2
    assert [message["learn"] for message in messages] == [False, False, True, False, False, False]


def test_tools_may_be_a_list_or_its_json_text_and_get_the_form_of_chat_templates():
    conversation = {"conversations": [human("a"), gpt("b")]}
    wrapped = [{"type": "function", "function": {"name": "add"}}]
    for tools, expected in [('[{"name": "add"}]', wrapped), ([{"name": "add"}], wrapped), (wrapped, wrapped), ("", []), ("[]", []), (None, [])]:
        samples = read_samples(Records("f", "record", [(1, {**conversation, "tools": tools})]), SHAREGPT, "answers")
        assert samples[0]["tools"] == expected


@pytest.mark.parametrize(
    ("record", "layout", "message"),
    [
        ("text", ALPACA, r"record 1: is a text; it must be an object"),
        ({"instruction": "a", "input": ""}, ALPACA, r"record 1: column output is missing; there are instruction, input"),
        ({"instruction": "a", "output": 5}, ALPACA, r"record 1: column output: is a number; it must be text"),
        ({"instruction": "a", "output": None}, ALPACA, r"column output: is a null"),
        ({"instruction": "a", "output": "b", "history": [["q"]]}, ALPACA, r"column history: turn 1 must be \[question, answer\]"),
        ({"instruction": "a", "output": "b", "history": "q"}, ALPACA, r"column history: is a text"),
        ({"x": 1}, SHAREGPT, r"column conversations is missing; there are x"),
        ({"conversations": []}, SHAREGPT, r"column conversations: is an empty list"),
        ({"conversations": ["hi"]}, SHAREGPT, r"column conversations, message 1: is a text; it must be an object with from and value"),
        ({"conversations": [{"from": "bot", "value": "x"}]}, SHAREGPT, r"message 1: from='bot' is not a role; it is one of: system, human, gpt"),
        ({"conversations": [human(1), gpt("x")]}, SHAREGPT, r"message 1: value is a number; it must be text"),
        ({"conversations": [human("a"), human("b")]}, SHAREGPT, r"message 2 is of role user; after user comes assistant"),
        ({"conversations": [gpt("a")]}, SHAREGPT, r"message 1 is of role assistant; at the start comes system or user"),
        ({"conversations": [human("a")]}, SHAREGPT, r"the last message is of role user; it must be the assistant's answer"),
        (
            {"conversations": [human("a"), {"from": "function_call", "value": "{"}]},
            SHAREGPT,
            r"message 2: the function call is broken JSON at line 1",
        ),
        ({"conversations": [human("a"), {"from": "function_call", "value": '{"name": 1}'}]}, SHAREGPT, r"must be an object with name"),
        ({"conversations": [human("a"), gpt("b")], "tools": "[1]"}, SHAREGPT, r"column tools: must be a list of tools"),
    ],
)
def test_a_record_that_does_not_fit_is_named_with_its_column(record: object, layout: Layout, message: str):
    with pytest.raises(DataError, match=message):
        read(record, layout)


def test_sharegpt_alternates_strictly_where_openai_may_hold_two_tool_results():
    call = {"from": "function_call", "value": '{"name": "add", "arguments": {}}'}
    result = {"from": "observation", "value": "1"}
    with pytest.raises(DataError, match=r"message 4 is of role tool; after tool comes assistant"):
        read({"conversations": [human("a"), call, result, result, gpt("b")]}, SHAREGPT)


def test_all_bad_records_are_counted_in_one_error():
    rows: list[tuple[int, object]] = [(1, {"instruction": "a", "output": "b"}), (2, {"instruction": "a"}), (5, 7)]
    with pytest.raises(DataError, match=r"(?s)f.jsonl: 2 of 3 rows cannot be used:.*line 2: column output.*line 5: is a number"):
        read_samples(Records("f.jsonl", "line", rows), ALPACA, "answers")
