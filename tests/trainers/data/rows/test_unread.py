"""Every field of a message reaches the template, and what the template does not show is named."""

import json
from pathlib import Path

import pytest

from conf.chat_templates import named_template
from tests.described import described
from trainers.data.prepare.folder import PreparedData, build_datasets
from trainers.model.tokenizer import byte_tokenizer

THINKING = (
    "{% for m in messages %}<{{ m.role }}>{% if m.reasoning_content and loop.last %}({{ m.reasoning_content }}){% endif %}{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
NAMES = "{% for m in messages %}<{{ m.name or m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
CALLS = (
    "{% for m in messages %}<{{ m.role }}{{ m.tool_call_id }}>{{ m.content }}{% for c in m.tool_calls or [] %}{{ c.id }}:{{ c.function.name }}"
    "{% endfor %}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)


def built(folder: Path, template: str, *records: dict[str, object], evaluation: str = "") -> PreparedData:
    (folder / "a.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    run = described(
        "model=demo",
        "data=files",
        "data.sets=[a.jsonl]",
        f"data.evaluation_sets=[{evaluation}]",
        f"data.folder={folder}",
        "data.workers=1",
        "data.cutoff=512",
        "node=cpu",
        "cluster.ranks_per_node=1",
    )
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = template
    return build_datasets(run, tokenizer)


def text_of(prepared: PreparedData) -> str:
    return byte_tokenizer().decode(prepared.train[0]["input_ids"])


def chat(*messages: dict[str, object]) -> dict[str, object]:
    return {"messages": list(messages)}


USER: dict[str, object] = {"role": "user", "content": "q"}


@pytest.mark.parametrize("field", ["reasoning_content", "thinking", "reasoning"])
def test_a_thought_is_learned_under_whichever_name_it_is_given(tmp_path: Path, field: str) -> None:
    prepared = built(tmp_path, THINKING, chat(USER, {"role": "assistant", "content": "a", field: "why"}))
    assert text_of(prepared) == "<user>q<assistant>(why)a"
    assert prepared.report is not None
    assert prepared.report.unread == {}


def test_a_thought_of_a_sharegpt_message_reaches_the_template_too(tmp_path: Path) -> None:
    record = {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a", "reasoning_content": "why"}]}
    assert text_of(built(tmp_path, THINKING, record)) == "<user>q<assistant>(why)a"


def test_names_and_ids_of_calls_reach_a_template_that_shows_them(tmp_path: Path) -> None:
    calls = [{"id": "c1", "type": "function", "function": {"name": "add", "arguments": {}}}]
    tool = [{"role": "assistant", "tool_calls": calls}, {"role": "tool", "tool_call_id": "c1", "content": "2"}, {"role": "assistant", "content": "a"}]
    assert text_of(built(tmp_path, CALLS, chat(USER, *tool))) == "<user>q<assistant>c1:add<toolc1>2<assistant>a"
    named = built(tmp_path, NAMES, chat({**USER, "name": "Ada"}, {"role": "assistant", "content": "a"}))
    assert text_of(named) == "<Ada>q<assistant>a"


@pytest.mark.parametrize(
    ("template", "message", "unread"),
    [
        (named_template("chatml"), {"reasoning_content": "why", "mood": 3, "empty": None}, ["mood", "reasoning_content"]),
        (NAMES, {"name": "assistant", "mood": 3}, ["mood", "name"]),  # the same text with the name as without it
        (THINKING, {"name": "a"}, ["name"]),  # "a" is in the text, but not from there
    ],
)
def test_fields_that_the_template_does_not_show_are_named_and_counted(
    tmp_path: Path, template: str, message: dict[str, object], unread: list[str]
) -> None:
    record = chat(USER, {"role": "assistant", "content": "a", **message})
    report = built(tmp_path, template, record, record, chat(USER, {"role": "assistant", "content": "a"})).report
    assert report is not None
    assert report.unread == {f"field {name} of a message": 2 for name in unread}
    assert f"The model does not see field {unread[0]} of a message (2 samples)" in report.sentence()


def test_an_earlier_thought_that_the_template_leaves_out_is_named(tmp_path: Path) -> None:
    turns = [{"role": "assistant", "content": "a", "reasoning_content": "early", "weight": 0}, USER]
    report = built(tmp_path, THINKING, chat(USER, *turns, {"role": "assistant", "content": "b", "reasoning_content": "late"})).report
    assert report is not None
    assert report.unread == {"field reasoning_content of a message": 1}


def test_columns_that_no_layout_reads_are_named_and_counted(tmp_path: Path) -> None:
    record: dict[str, object] = {"instruction": "q", "input": "", "output": "a", "id": 7, "source": ""}
    report = built(tmp_path, named_template("chatml"), record, {**record, "source": "web"}).report
    assert report is not None
    assert report.unread == {"column id": 2, "column source": 1}
    assert "The model does not see column id (2 samples), column source (1 samples)." in report.sentence()


def test_what_evaluation_sets_leave_unread_is_named_apart(tmp_path: Path) -> None:
    record: dict[str, object] = {"instruction": "q", "output": "a"}
    (tmp_path / "b.jsonl").write_text(json.dumps({**record, "source": "web"}) + "\n" + json.dumps({**record, "output": ""}) + "\n")
    report = built(tmp_path, named_template("chatml"), record, evaluation="b.jsonl").report
    assert report is not None
    assert report.evaluation_sets is not None
    assert (report.unread, report.evaluation_sets.unread) == ({}, {"column source": 1})
    assert report.evaluation_sets.drops == {"empty": 1}
    assert "The evaluation sets have 2 samples: 1 dropped (empty), 0 truncated at data.cutoff=512." in report.sentence()
    assert report.sentence().endswith("There: The model does not see column source (1 samples).")
