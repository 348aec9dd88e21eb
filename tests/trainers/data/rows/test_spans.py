"""What is learned under the templates of reasoning models, which write thoughts that the data do not hold and leave out those that they do."""

from pathlib import Path

import pytest
import trl
from transformers import PreTrainedTokenizerBase

from conf.chat_templates import named_template
from launcher.composition.compose import compose
from trainers.data.rows.row_kinds import row_of
from trainers.data.rows.tokens import MASKED
from trainers.data.samples.chat import Call, Message, RowError, Sample, plain
from trainers.model.tokenizer import byte_tokenizer

PUBLISHED = Path(trl.__file__).parent / "chat_templates"
TOOLS: list[dict[str, object]] = [{"type": "function", "function": {"name": "add"}}]
CALL: list[Call] = [{"name": "add", "arguments": {"a": 1}}]
WRITTEN_CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call><|im_end|>\n'
NO_THOUGHT = "<think>\n\n</think>\n\n"


def tokenizer_of(template: str) -> PreTrainedTokenizerBase:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = template
    return tokenizer


def learned(template: str, *messages: Message, tools: list[dict[str, object]] | None = None) -> list[str]:
    tokenizer = tokenizer_of(template)
    sample: Sample = {"place": "a", "messages": list(messages), "tools": tools or []}
    row = row_of(sample, "answers", tokenizer, compose(["model=demo", "data=demo", "data.cutoff=4096"]).data)
    runs: list[list[int]] = [[]]
    for label in row["labels"]:
        if label == MASKED:
            runs.append([])
        else:
            runs[-1].append(label)
    return [tokenizer.decode(run) for run in runs if run]


def published(name: str) -> str:
    return (PUBLISHED / f"{name}.jinja").read_text(encoding="utf-8")


U, TOOL = plain("user", "U"), plain("tool", "1")
CALLS: Message = {**plain("assistant", ""), "calls": CALL}


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([U, CALLS, TOOL, plain("assistant", "A")], [WRITTEN_CALL, f"{NO_THOUGHT}A<|im_end|>\n"]),
        ([U, {**CALLS, "content": "Let me see."}, TOOL, CALLS, TOOL, plain("assistant", "A")],
         [f"Let me see.\n{WRITTEN_CALL}", WRITTEN_CALL, f"{NO_THOUGHT}A<|im_end|>\n"]),
        ([U, plain("assistant", "A"), U, plain("assistant", "BB")], ["A<|im_end|>\n", f"{NO_THOUGHT}BB<|im_end|>\n"]),
        ([U, {**CALLS, "further": {"reasoning_content": "why"}}, TOOL, plain("assistant", "A")],
         [f"<think>\nwhy\n</think>\n\n{WRITTEN_CALL}", f"{NO_THOUGHT}A<|im_end|>\n"]),
    ],
)  # fmt: skip
def test_qwen3_learns_calls_and_answers_as_it_writes_them(messages: list[Message], expected: list[str]) -> None:
    assert learned(published("qwen3"), *messages, tools=TOOLS) == expected


def test_deepseek_r1_learns_an_answer_without_a_thought_and_its_end() -> None:
    assert learned(published("deepseek_r1_distill"), U, plain("assistant", "A")) == ["A<｜end▁of▁sentence｜>"]


@pytest.mark.parametrize(
    ("template", "messages"),
    [
        ("deepseek_r1_distill", [U, plain("assistant", "<think>\nwhy\n</think>\n\nA")]),
        ("qwen3", [U, plain("assistant", "<think>\nwhy\n</think>\n\nA"), U, plain("assistant", "B")]),
        ("qwen3", [U, {**plain("assistant", "A"), "further": {"reasoning_content": "why"}}, U, plain("assistant", "B")]),
    ],
)
def test_a_thought_that_the_template_takes_away_is_refused_with_a_setting_that_works(template: str, messages: list[Message]) -> None:
    way_out = "deepseek, which keeps thoughts" if template.startswith("deepseek") else "alpaca, which leaves answers as they are"
    with pytest.raises(RowError, match=rf"data.template={way_out}"):
        learned(published(template), *messages)
    assert learned(named_template("alpaca"), *messages)[-1].endswith("<|im_end|>")
    if len(messages) > 2:
        earlier = [{**message, "learn": False} for message in messages[:-1]]
        assert learned(published(template), *earlier, messages[-1]) == [f"{NO_THOUGHT}B<|im_end|>\n"]
