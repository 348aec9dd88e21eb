"""Records of each layout as messages."""

from dataclasses import replace

import pytest

from conf.data_layout import ALPACA, OPENAI, SHAREGPT, TEXT, TRL, Layout, layout_of_record
from conf.stages import Kind
from trainers.data.samples.chat import Message, Sample
from trainers.data.samples.reading import read_samples
from trainers.data.sources.records import Records
from trainers.errors import DataError


def read(record: object, layout: Layout) -> list[Message]:
    return read_samples(Records("f.json", "record", [(1, record)]), layout, "answers", "strict")[0]["messages"]


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
    assert messages[2]["calls"] == [{"name": "add", "arguments": {"a": 1}, "id": "1"}] * 2
    assert [message["learn"] for message in messages] == [False, False, True, False, False, False]


def test_openai_content_in_parts_is_joined_and_other_parts_than_text_are_refused():
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": " b"}]
    answer = {"role": "assistant", "content": "c"}
    assert said(read({"messages": [{"role": "user", "content": parts}, answer]}, OPENAI))[0] == ("user", "a b", False)
    with pytest.raises(DataError, match=r"column messages, message 1, part 2 is of type 'image_url'; only parts of type text can be used"):
        read({"messages": [{"role": "user", "content": [parts[0], {"type": "image_url", "image_url": {}}]}, answer]}, OPENAI)


def test_tools_may_be_a_list_or_its_json_text_and_get_the_form_of_chat_templates():
    conversation = {"conversations": [human("a"), gpt("b")]}
    wrapped = [{"type": "function", "function": {"name": "add"}}]
    for tools, expected in [('[{"name": "add"}]', wrapped), ([{"name": "add"}], wrapped), (wrapped, wrapped), ("", []), ("[]", []), (None, [])]:
        samples = read_samples(Records("f", "record", [(1, {**conversation, "tools": tools})]), SHAREGPT, "answers", "strict")
        assert samples[0]["tools"] == expected


@pytest.mark.parametrize(
    ("record", "layout", "message"),
    [
        ("text", ALPACA, r"record 1: the record is the text 'text'; it must be an object"),
        ({"instruction": "a", "input": ""}, ALPACA, r"record 1: column output is missing; the record has instruction, input"),
        ({"instruction": "a", "output": 5}, ALPACA, r"record 1: column output is the number 5; it must be text"),
        ({"instruction": "a", "output": None}, ALPACA, r"column output is null"),
        ({"instruction": "a", "output": "b", "history": [["q"]]}, ALPACA, r"column history: turn 1 must be \[question, answer\]"),
        ({"instruction": "a", "output": "b", "history": "q"}, ALPACA, r"column history is the text 'q'"),
        ({"x": 1}, SHAREGPT, r"column conversations is missing; the record has x"),
        ({"conversations": []}, SHAREGPT, r"column conversations is an empty list"),
        ({"conversations": ["hi"]}, SHAREGPT, r"column conversations, message 1 is the text 'hi'; it must be an object with from and value"),
        ({"conversations": [{"from": "bot", "value": "x"}]}, SHAREGPT, r"message 1: from='bot' is not a role; it is one of: system, human, gpt"),
        ({"conversations": [human(1), gpt("x")]}, SHAREGPT, r"message 1: value is the number 1; it must be text"),
        ({"conversations": [human("a"), human("b")]}, SHAREGPT, r"message 2 has the role user; after user it must be assistant"),
        ({"conversations": [gpt("a")]}, SHAREGPT, r"message 1 has the role assistant; at the start it must be system or user"),
        ({"conversations": [human("a")]}, SHAREGPT, r"the last message has the role user; it must be the assistant's answer"),
        (
            {"conversations": [human("a"), {"from": "function_call", "value": "{"}]},
            SHAREGPT,
            r"message 2: the function call is broken JSON at line 1",
        ),
        ({"conversations": [human("a"), {"from": "function_call", "value": '{"name": 1}'}]}, SHAREGPT, r"must be an object with name"),
        ({"conversations": [human("a"), gpt("b")], "tools": "[" * 100_000}, SHAREGPT, r"column tools is JSON nested too deeply"),
        (
            {"conversations": [human("a"), gpt("b")], "tools": '[{"a":' * 490 + "1" + "}]" * 490},
            SHAREGPT,
            r"nested too deeply",
        ),
        ({"instruction": "a", "output": "cut \ud83d"}, ALPACA, r"record 1: the record holds half of a surrogate pair \('\\ud83d'\)"),
        ({"conversations": [human("a"), gpt("b")], "tools": [{"name": "\udc00"}]}, SHAREGPT, r"the record holds half of a surrogate pair"),
        ({"conversations": [human("a"), gpt("b")], "tools": "[1]"}, SHAREGPT, r"column tools: must be a list of tools"),
    ],
)
def test_a_record_that_does_not_fit_is_named_with_its_column(record: object, layout: Layout, message: str):
    with pytest.raises(DataError, match=message):
        read(record, layout)


def test_sharegpt_alternates_strictly_where_openai_may_hold_two_tool_results():
    call = {"from": "function_call", "value": '{"name": "add", "arguments": {}}'}
    result = {"from": "observation", "value": "1"}
    with pytest.raises(DataError, match=r"message 4 has the role tool; after tool it must be assistant"):
        read({"conversations": [human("a"), call, result, result, gpt("b")]}, SHAREGPT)


def test_all_bad_records_are_counted_in_one_error():
    rows: list[tuple[int, object]] = [(1, {"instruction": "a", "output": "b"}), (2, {"instruction": "a"}), (5, 7)]
    with pytest.raises(DataError, match=r"(?s)f.jsonl: 2 of 3 rows cannot be used:.*line 2: column output.*line 5: the record is the number 7"):
        read_samples(Records("f.jsonl", "line", rows), ALPACA, "answers", "strict")


def read_as(record: object, layout: Layout, holds: Kind) -> Sample:
    return read_samples(Records("f.json", "record", [(1, record)]), replace(layout, holds=holds), holds, "strict")[0]


def pair_of(record: object, layout: Layout) -> tuple[list[tuple[str, str]], list[tuple[str, str]], list[tuple[str, str]]]:
    sample = read_as(record, layout, "pairs")
    prompt, chosen, rejected = (
        [(message["role"], message["content"]) for message in part] for part in (sample["messages"], sample["chosen"], sample["rejected"])
    )
    return prompt, chosen, rejected


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


SIMPLE = ([("user", "q")], [("assistant", "good")], [("assistant", "bad")])


@pytest.mark.parametrize(
    ("record", "layout"),
    [
        ({"instruction": "q", "chosen": "good", "rejected": "bad"}, ALPACA),
        ({"conversations": [human("q")], "chosen": gpt("good"), "rejected": gpt("bad")}, SHAREGPT),
        ({"messages": [user("q")], "chosen": assistant("good"), "rejected": assistant("bad")}, OPENAI),
        ({"prompt": "q", "chosen": "good", "rejected": "bad"}, TRL),
        ({"prompt": [user("q")], "chosen": [assistant("good")], "rejected": [assistant("bad")]}, TRL),
        ({"chosen": [user("q"), assistant("good")], "rejected": [user("q"), assistant("bad")]}, TRL),
        ({"prompt": "q", "chosen": [user("q"), assistant("good")], "rejected": [user("q"), assistant("bad")]}, TRL),
        ({"chosen": "q good", "rejected": "q bad"}, TRL),
    ],
)
def test_every_layout_of_pairs_gives_a_prompt_and_two_answers(record: dict[str, object], layout: Layout):
    expected = SIMPLE if record.get("chosen") != "q good" else ([("user", "q")], [("assistant", " good")], [("assistant", " bad")])
    assert pair_of(record, layout) == expected


def test_a_pair_may_have_a_system_message_history_and_several_turns():
    record = {"instruction": "q", "input": "x", "system": "S", "history": [["h", "r"]], "chosen": "good", "rejected": "bad"}
    assert pair_of(record, ALPACA)[0] == [("system", "S"), ("user", "h"), ("assistant", "r"), ("user", "q\nx")]
    turns = [{"from": "system", "value": "S"}, human("h"), gpt("r"), human("q")]
    assert pair_of({"conversations": turns, "chosen": gpt("good"), "rejected": gpt("bad")}, SHAREGPT)[0] == [
        *[("system", "S"), ("user", "h")],
        *[("assistant", "r"), ("user", "q")],
    ]


def test_conversations_of_a_pair_part_where_they_differ():
    opening = [user("h"), assistant("r"), user("q")]
    prompt, chosen, rejected = pair_of({"chosen": [*opening, assistant("good")], "rejected": [*opening, assistant("bad")]}, TRL)
    assert prompt == [("user", "h"), ("assistant", "r"), ("user", "q")]
    assert (chosen, rejected) == ([("assistant", "good")], [("assistant", "bad")])


def test_an_implicit_prompt_ends_with_a_whole_word():
    opening = "Human: Who?\n\nAssistant:"
    prompt, chosen, rejected = pair_of({"chosen": f"{opening} Hello", "rejected": f"{opening} Hey"}, TRL)
    assert prompt == [("user", opening)]
    assert (chosen, rejected) == ([("assistant", " Hello")], [("assistant", " Hey")])


def test_equal_conversations_keep_an_answer_each_so_that_the_pair_is_counted():
    same = [user("q"), assistant("a")]
    assert pair_of({"chosen": same, "rejected": same}, TRL) == ([("user", "q")], [("assistant", "a")], [("assistant", "a")])


@pytest.mark.parametrize(("value", "label"), [(True, True), (False, False), ("true", True), (" False ", False)])
def test_a_label_is_true_or_false_and_text_in_a_csv_file(value: object, label: bool):
    assert read_as({"instruction": "q", "output": "a", "kto_tag": value}, ALPACA, "labelled")["label"] is label


def test_plain_text_is_one_message():
    assert said(read_as({"text": "t"}, TEXT, "text")["messages"]) == [("user", "t", False)]


def test_a_question_without_an_answer_is_a_prompt():
    records = Records("f.json", "record", [(1, {"conversations": [human("a"), gpt("b"), human("c")]})])
    assert said(read_samples(records, SHAREGPT, "prompts", "strict")[0]["messages"]) == [
        ("user", "a", False),
        ("assistant", "b", True),
        ("user", "c", False),
    ]


def test_empty_values_as_a_csv_file_has_them_are_none():
    assert said(read({"instruction": "q", "input": "", "history": "", "system": "", "output": "a"}, ALPACA)) == [
        ("user", "q", False),
        ("assistant", "a", True),
    ]


@pytest.mark.parametrize(
    ("record", "layout", "holds", "message"),
    [
        ({"instruction": "q", "chosen": "a"}, ALPACA, "pairs", r"column rejected is missing; the record has instruction, chosen"),
        ({"instruction": "q", "chosen": "a", "rejected": None}, ALPACA, "pairs", r"column rejected is null; it must be text, a message or a list"),
        (
            {"instruction": "q", "chosen": "a", "rejected": 3},
            ALPACA,
            "pairs",
            r"column rejected is the number 3; it must be text, a message or a list",
        ),
        ({"conversations": [human("q"), gpt("a")], "chosen": gpt("b"), "rejected": gpt("c")}, SHAREGPT, "pairs", r"prompt has the role assistant"),
        ({"conversations": [human("q")], "chosen": gpt("b"), "rejected": human("c")}, SHAREGPT, "pairs", r"message 2 has the role user; after user"),
        ({"conversations": [human("q")], "chosen": {"from": "gpt"}, "rejected": gpt("c")}, SHAREGPT, "pairs", r"column chosen: value is null"),
        ({"chosen": [user("q"), assistant("a")], "rejected": [user("p"), assistant("a")]}, TRL, "pairs", r"share no beginning"),
        ({"chosen": "good", "rejected": "bad"}, TRL, "pairs", r"share no beginning"),
        ({"chosen": "goodness", "rejected": "goodwill"}, TRL, "pairs", r"share no beginning"),
        ({"chosen": "good", "rejected": [assistant("bad")]}, TRL, "pairs", r"column rejected is a list; it must be text, as the other answer"),
        ({"instruction": "q", "output": "a"}, ALPACA, "labelled", r"column kto_tag is missing"),
        ({"instruction": "q", "output": "a", "kto_tag": 1}, ALPACA, "labelled", r"column kto_tag is the number 1; it must be true or false"),
        ({"instruction": "q", "output": "a", "kto_tag": "yes"}, ALPACA, "labelled", r"column kto_tag is the text 'yes'; it must be true or false"),
        ({"text": 3}, TEXT, "text", r"column text is the number 3; it must be text"),
        ({"prompt": [assistant("a")]}, TRL, "prompts", r"message 1 has the role assistant; at the start it must be system or user"),
        ({"prompt": [{"role": "system", "content": "s"}]}, TRL, "prompts", r"the last message of the prompt has the role system"),
    ],
)
def test_a_record_that_is_no_pair_label_text_or_prompt_says_why(record: object, layout: Layout, holds: Kind, message: str):
    with pytest.raises(DataError, match=message):
        read_as(record, layout, holds)


def test_a_developer_gives_the_system_message():
    turns = [{"role": "developer", "content": "S"}, {"role": "user", "content": "U"}, {"role": "assistant", "content": "A"}]
    assert said(read({"messages": turns}, OPENAI)) == [("system", "S", False), ("user", "U", False), ("assistant", "A", True)]


def test_calls_of_exports_from_before_2024_are_read():
    turns = [
        {"role": "user", "content": "U"},
        {"role": "assistant", "content": None, "function_call": {"name": "add", "arguments": '{"a": 1}'}},
        {"role": "function", "name": "add", "content": "1"},
        {"role": "assistant", "content": "A"},
    ]
    messages = read({"messages": turns}, OPENAI)
    assert messages[1]["calls"] == [{"name": "add", "arguments": {"a": 1}}]
    assert [message["role"] for message in messages] == ["user", "assistant", "tool", "assistant"]
    assert messages[2]["further"] == {"name": "add"}


def test_functions_of_exports_from_before_2024_are_tools():
    record = {"functions": [{"name": "add", "parameters": {}}], "messages": [{"role": "user", "content": "U"}, {"role": "assistant", "content": "A"}]}
    layout = layout_of_record(record)
    assert layout is not None
    [sample] = read_samples(Records("f.json", "record", [(1, record)]), layout, "answers", "strict")
    assert sample["tools"] == [{"type": "function", "function": {"name": "add", "parameters": {}}}]
    assert "unread" not in sample


CHAT = [{"role": "user", "content": "U"}, {"role": "assistant", "content": "A"}]
OWN = {"role": "system", "content": "own"}


@pytest.mark.parametrize(
    ("record", "system", "unread"),
    [
        ({"prompt": "U", "completion": "A", "system": "S"}, "S", False),
        ({"prompt": "U", "response": "A", "system": "S"}, "S", False),
        ({"prompt": CHAT[:1], "completion": CHAT[1:], "system": "S"}, "S", False),
        ({"prompt": [OWN, *CHAT[:1]], "completion": CHAT[1:], "system": "S"}, "own", True),
        ({"messages": [OWN, *CHAT], "system": "S"}, "own", True),
        ({"messages": [OWN, *CHAT], "system": "own"}, "own", False),
    ],
)
def test_a_system_column_is_read_and_gives_way_to_a_system_message(record: dict[str, object], system: str, unread: bool):
    layout = layout_of_record(record)
    assert layout is not None
    [sample] = read_samples(Records("f.json", "record", [(1, record)]), layout, "answers", "strict")
    assert [message["content"] for message in sample["messages"]] == [system, "U", "A"]
    assert sample.get("unread", []) == ["column system, as the conversation begins with a system message of its own"] * unread
