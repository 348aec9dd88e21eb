"""Answers before and after, by the built-in model with random weights, and by one that knows its answers by heart."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerBase,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from conf.run_dir import RunDir
from launcher.composition.compose import compose
from trainers.callbacks.generating import Generating, questions_to_ask
from trainers.data.rows.questions import Question, first_questions, samples_of
from trainers.model.conversation import prompt_ids
from trainers.model.tokenizer import load_tokenizer

PROMPT = "What is 3 + 4?"


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return load_tokenizer(compose([]))


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    architecture = compose([]).model.architecture
    assert architecture is not None
    return LlamaForCausalLM(LlamaConfig(**{key: value for key, value in architecture.items() if key != "model_type"}))


def samples(run_dir: RunDir) -> list[dict[str, Any]]:
    return json.loads(run_dir.samples.read_text(encoding="utf-8"))


def call(generating: Generating, hook: str, model: LlamaForCausalLM, step: int) -> None:
    arguments = TrainingArguments(output_dir=str(generating.run_dir.path))
    getattr(generating, hook)(arguments, TrainerState(global_step=step, max_steps=10), TrainerControl(), model=model)


def test_the_same_prompt_is_answered_before_and_after(tokenizer: PreTrainedTokenizerBase, model: LlamaForCausalLM, tmp_path: Path) -> None:
    generating = Generating(RunDir(tmp_path), PROMPT, [], 2, tokenizer, leads=True)
    call(generating, "on_train_begin", model, 0)
    call(generating, "on_train_end", model, 10)
    before, after = samples(RunDir(tmp_path))
    assert (before["when"], after["when"]) == ("before", "after")
    assert before["prompt"] == after["prompt"] == PROMPT
    assert before["answer"] == after["answer"]  # greedy, and nothing was learned in between


def test_answering_leaves_the_model_in_its_mode(tokenizer: PreTrainedTokenizerBase, model: LlamaForCausalLM, tmp_path: Path) -> None:
    generating = Generating(RunDir(tmp_path), PROMPT, [], 2, tokenizer, leads=True)
    for training in (True, False):
        model.train(training)
        generating.entries("before", model)
        assert model.training is training


def test_a_stopped_run_is_asked_only_at_its_end(tokenizer: PreTrainedTokenizerBase, model: LlamaForCausalLM, tmp_path: Path) -> None:
    generating = Generating(RunDir(tmp_path), PROMPT, [], 2, tokenizer, leads=True)
    call(generating, "on_train_begin", model, 0)
    call(generating, "on_train_end", model, 4)  # stopped
    call(generating, "on_train_begin", model, 4)  # resumed
    assert [sample["when"] for sample in samples(RunDir(tmp_path))] == ["before"]
    call(generating, "on_train_end", model, 10)
    assert [sample["when"] for sample in samples(RunDir(tmp_path))] == ["before", "after"]


def test_only_the_leading_rank_writes(tokenizer: PreTrainedTokenizerBase, model: LlamaForCausalLM, tmp_path: Path) -> None:
    call(Generating(RunDir(tmp_path), PROMPT, [], 2, tokenizer, leads=False), "on_train_begin", model, 0)
    assert not RunDir(tmp_path).samples.exists()


def test_only_the_leading_rank_reads(tokenizer: PreTrainedTokenizerBase, model: LlamaForCausalLM, tmp_path: Path) -> None:
    """The others come to it while that one writes."""
    RunDir(tmp_path).samples.write_text("")
    call(Generating(RunDir(tmp_path), PROMPT, [], 2, tokenizer, leads=False), "on_train_end", model, 10)
    assert RunDir(tmp_path).samples.read_text() == ""


def test_right_answers_are_those_that_are_the_sets_own(learned: RunDir, tmp_path: Path) -> None:
    tokenizer, model = AutoTokenizer.from_pretrained(learned.model), AutoModelForCausalLM.from_pretrained(learned.model)
    wanted = {"What is the sky?": "Blue.", "What is grass?": "Green", "What is snow?": "White as milk.", "What is coal?": "Black. Or grey."}
    questions = [Question(prompt_ids(tokenizer, [{"role": "user", "content": asked}]), [], answer) for asked, answer in wanted.items()]
    call(Generating(RunDir(tmp_path), None, questions, 3, tokenizer, leads=True), "on_train_begin", model, 0)
    [entry] = samples(RunDir(tmp_path))
    # it learned `Blue.`, `Green.`, `White as milk.` and `Black.`: the second lacks its point here, and the fourth is longer
    assert (entry["when"], entry["asked"], entry["right"]) == ("before", 4, 2)
    assert [one["answer"] for one in entry["answers"]] == ["Blue.", "Green.", "White as milk.", "Black."]
    assert [one["reference"] for one in entry["answers"]] == [*wanted.values()]


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        ((), "this run holds out no samples with an answer, so"),
        (("data.validation_share=0",), "this run holds out no samples with an answer (data.validation_share, data.evaluation_sets), so"),
        (("stage=pt",), "stage=pt holds out plain text, which has no questions, so"),
        (("stage=rm",), "stage=rm trains a model of scores, which writes no answers, so"),
        (("data.mask_prompt=false",), "with data.mask_prompt=false nothing in a row tells where its answer begins, so"),
    ],
)
def test_where_nothing_can_be_asked_a_line_says_why(overrides: tuple[str, ...], reason: str, tokenizer: PreTrainedTokenizerBase) -> None:
    questions, line = questions_to_ask(compose(["recipe=demo", *overrides]), [], tokenizer)
    assert questions == []
    assert line == f"evaluation.answers=50: {reason} no question is asked before and after training."


def test_questions_are_asked_where_there_are_some(tokenizer: PreTrainedTokenizerBase) -> None:
    a, b = tokenizer("ab")["input_ids"]
    row = {"input_ids": [a, b], "labels": [-100, b]}
    questions, line = questions_to_ask(compose(["recipe=demo", "evaluation.answers=2"]), [row] * 3, tokenizer)
    assert ([question.reference for question in questions], line) == (["b", "b"], None)
    assert questions_to_ask(compose(["recipe=demo", "evaluation.answers=0"]), [row], tokenizer) == ([], None)


def test_questions_are_the_first_samples_with_an_answer_also_of_packed_rows(tokenizer: PreTrainedTokenizerBase) -> None:
    a, b, c, d = tokenizer("abcd")["input_ids"]
    packed = {"input_ids": [a, b, c, d, a], "labels": [-100, b, -100, -100, a], "position_ids": [0, 1, 0, 1, 2]}
    unanswered = {"input_ids": [a, b], "labels": [-100, -100], "position_ids": [0, 1]}
    assert [len(sample["input_ids"]) for row in (packed, unanswered) for sample in samples_of(row)] == [2, 3]
    found = first_questions([packed, packed], 3, tokenizer)
    assert [(question.prompt_ids, question.reference) for question in found] == [([a], "b"), ([c, d], "a"), ([a], "b")]
