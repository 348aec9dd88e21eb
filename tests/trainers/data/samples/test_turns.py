"""Conversations whose roles do not alternate: refused by name, or repaired and counted."""

import json
from pathlib import Path

import pytest

from launcher.composition.compose import compose
from tests.described import described
from trainers.data.prepare.folder import PreparedData, build_datasets
from trainers.data.samples.turns import MERGED, OPENS, UNANSWERED
from trainers.errors import DataError
from trainers.model.tokenizer import load_tokenizer


def built(folder: Path, turns: str, *conversations: str, layout: str = "openai") -> PreparedData:
    """Each conversation as words such as `u:q a:x`."""
    names = {"s": "system", "u": "user", "a": "assistant"} if layout == "openai" else {"s": "system", "u": "human", "a": "gpt"}
    column, role, content = ("messages", "role", "content") if layout == "openai" else ("conversations", "from", "value")
    rows = [[{role: names[word[0]], content: word[2:]} for word in conversation.split()] for conversation in conversations]
    (folder / "a.jsonl").write_text("".join(json.dumps({column: row}) + "\n" for row in rows))
    run = described(
        "model=demo",
        "data=files",
        "data.sets=[a.jsonl]",
        f"data.folder={folder}",
        "data.workers=1",
        f"data.turns={turns}",
        "node=cpu",
        "cluster.ranks_per_node=1",
    )
    return build_datasets(run, load_tokenizer(run))


def shown(prepared: PreparedData) -> list[tuple[str, str]]:
    """Of each row the text without ChatML's marks, and what is learned."""
    tokenizer = load_tokenizer(compose(["model=demo", "data=demo"]))
    rows = [(tokenizer.decode(row["input_ids"]), tokenizer.decode([label for label in row["labels"] if label >= 0])) for row in prepared.train]
    return [(text.replace("<|im_start|>", "").replace("<|im_end|>", ""), learned.replace("<|im_end|>", "|")) for text, learned in rows]


@pytest.mark.parametrize("layout", ["openai", "sharegpt"])
@pytest.mark.parametrize(
    ("conversation", "text", "learned", "done"),
    [
        ("u:q u:r a:x", "user\nq\n\nr\nassistant\nx\n", "x|", [MERGED]),
        ("u:q a:x a:y", "user\nq\nassistant\nx\n\ny\n", "x\n\ny|", [MERGED]),
        ("a:hi u:q a:x", "assistant\nhi\nuser\nq\nassistant\nx\n", "hi|x|", [OPENS]),
        ("s:be a:hi u:q a:x", "system\nbe\nassistant\nhi\nuser\nq\nassistant\nx\n", "hi|x|", [OPENS]),
        ("u:q a:x u:r", "user\nq\nassistant\nx\n", "x|", [UNANSWERED]),
        ("u:q u:r a:x u:s", "user\nq\n\nr\nassistant\nx\n", "x|", [UNANSWERED, MERGED]),
        ("u:q a:x", "user\nq\nassistant\nx\n", "x|", []),
    ],
)
def test_odd_turns_are_repaired_and_counted_or_refused(
    tmp_path: Path, layout: str, conversation: str, text: str, learned: str, done: list[str]
) -> None:
    prepared = built(tmp_path, "repair", conversation, conversation, "u:q a:x", layout=layout)
    assert shown(prepared) == [(text, learned)] * 2 + [("user\nq\nassistant\nx\n", "x|")]
    assert prepared.report is not None
    assert prepared.report.repairs == dict.fromkeys(done, 2)
    assert all(f"{what} (2 samples)" in prepared.report.sentence() for what in done)
    if done:
        with pytest.raises(DataError, match=r"or set data.turns=repair"):
            built(tmp_path, "strict", conversation, layout=layout)


@pytest.mark.parametrize(
    ("first", "second", "differ"),
    [
        ({"weight": 0}, {"weight": 1}, "weight"),
        ({"weight": 0}, {}, "weight"),
        ({"name": "x", "mood": "m"}, {"name": "y", "mood": "n"}, "mood and name"),
    ],
)
def test_neighbours_that_contradict_each_other_are_refused_by_what_differs(
    tmp_path: Path, first: dict[str, object], second: dict[str, object], differ: str
) -> None:
    answers = [{"role": "assistant", "content": "x", **more} for more in (first, second)]
    (tmp_path / "b.jsonl").write_text(json.dumps({"messages": [{"role": "user", "content": "q"}, *answers]}) + "\n")
    run = described("model=demo", "data=files", "data.sets=[b.jsonl]", f"data.folder={tmp_path}", "data.turns=repair", "data.workers=1", "node=cpu")
    with pytest.raises(DataError, match=rf"message 3 follows another one of the role assistant and differs from it in {differ}, so") as refused:
        build_datasets(run, load_tokenizer(run))
    assert "or set data.turns=repair" not in str(refused.value)


@pytest.mark.parametrize("conversation", ["u:q", "s:be", "u:q s:be a:x"])
def test_what_no_repair_makes_a_conversation_of_is_refused(tmp_path: Path, conversation: str) -> None:
    with pytest.raises(DataError, match=r"line 1") as refused:
        built(tmp_path, "repair", conversation)
    if conversation == "u:q":  # nothing in it could be learned, and the advice is not what is set already
        assert "data.turns=repair" not in str(refused.value)
