"""What the columns of a file without a registry entry tell."""

import pytest

from conf.data_layout import layout_of_record

CHAT = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
TURNS = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]


@pytest.mark.parametrize(
    ("record", "kind", "holds"),
    [
        ({"text": "t"}, "alpaca", "text"),
        ({"text": "t", "url": "u", "label": 3}, "alpaca", "text"),
        ({"instruction": "q", "output": "a"}, "alpaca", "answers"),
        ({"instruction": "q", "input": "", "output": "a", "text": "q a"}, "alpaca", "answers"),  # as Stanford's own file
        ({"instruction": "q", "chosen": "a", "rejected": "b"}, "alpaca", "pairs"),
        ({"instruction": "q", "output": "a", "kto_tag": True}, "alpaca", "labelled"),
        ({"conversations": TURNS}, "sharegpt", "answers"),
        ({"conversations": TURNS[:1], "chosen": TURNS[1], "rejected": TURNS[1]}, "sharegpt", "pairs"),
        ({"conversations": TURNS, "kto_tag": False}, "sharegpt", "labelled"),
        ({"messages": CHAT}, "openai", "answers"),
        ({"messages": CHAT, "label": True}, "openai", "labelled"),
        ({"messages": CHAT, "label": 3}, "openai", "answers"),
        ({"messages": CHAT[:1], "chosen": CHAT[1], "rejected": CHAT[1]}, "openai", "pairs"),
        ({"prompt": "q", "completion": "a"}, "trl", "answers"),
        ({"prompt": "q", "completion": "a", "label": True}, "trl", "labelled"),
        ({"prompt": "q", "response": "a"}, "trl", "answers"),
        ({"prompt": "q", "response": "a", "label": False}, "trl", "labelled"),
        ({"prompt": "q", "chosen": "a", "rejected": "b"}, "trl", "pairs"),
        ({"chosen": CHAT, "rejected": CHAT}, "trl", "pairs"),
        ({"chosen": "q a", "rejected": "q b", "score": 1.5}, "trl", "pairs"),
        ({"id": "7", "chosen": CHAT, "rejected": CHAT}, "trl", "pairs"),
        ({"prompt": "q", "chosen": CHAT, "rejected": CHAT, "messages": CHAT}, "trl", "pairs"),  # as ultrafeedback_binarized
        ({"prompt": CHAT[:1]}, "trl", "prompts"),
    ],
)
def test_the_columns_of_the_first_record_tell_layout_and_kind(record: dict[str, object], kind: str, holds: str):
    layout = layout_of_record(record)
    assert layout is not None
    assert (layout.kind, layout.holds) == (kind, holds)


ORCA = {"system": "s", "question": "q", "chosen": "The cat", "rejected": "The dog"}  # the prompt is not "The"


@pytest.mark.parametrize("record", [{}, {"words": "t"}, {"messages": "text"}, {"conversations": []}, {"instruction": "q"}, {"chosen": "a"}, ORCA])
def test_columns_that_fit_nothing_give_no_layout(record: dict[str, object]):
    assert layout_of_record(record) is None
