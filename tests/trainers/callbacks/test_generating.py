"""One prompt, answered before and after, by the built-in model with random weights."""

import json
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase, TrainerControl, TrainerState, TrainingArguments

from conf.run_dir import RunDir
from launcher.composition.compose import compose
from trainers.callbacks.generating import Generating
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


def samples(run_dir: RunDir) -> list[dict[str, str]]:
    return json.loads(run_dir.samples.read_text(encoding="utf-8"))


def call(generating: Generating, hook: str, model: LlamaForCausalLM, step: int) -> None:
    arguments = TrainingArguments(output_dir=str(generating.run_dir.path))
    getattr(generating, hook)(arguments, TrainerState(global_step=step, max_steps=10), TrainerControl(), model=model)


def test_the_same_prompt_is_answered_before_and_after(tokenizer: PreTrainedTokenizerBase, model: LlamaForCausalLM, tmp_path: Path) -> None:
    generating = Generating(RunDir(tmp_path), PROMPT, tokenizer, leads=True)
    call(generating, "on_train_begin", model, 0)
    call(generating, "on_train_end", model, 10)
    before, after = samples(RunDir(tmp_path))
    assert (before["when"], after["when"]) == ("before", "after")
    assert before["prompt"] == after["prompt"] == PROMPT
    assert before["answer"] == after["answer"]  # greedy, and nothing was learned in between


def test_answering_leaves_the_model_in_its_mode(tokenizer: PreTrainedTokenizerBase, model: LlamaForCausalLM, tmp_path: Path) -> None:
    generating = Generating(RunDir(tmp_path), PROMPT, tokenizer, leads=True)
    for training in (True, False):
        model.train(training)
        generating.answer(model)
        assert model.training is training


def test_a_stopped_run_is_asked_only_at_its_end(tokenizer: PreTrainedTokenizerBase, model: LlamaForCausalLM, tmp_path: Path) -> None:
    generating = Generating(RunDir(tmp_path), PROMPT, tokenizer, leads=True)
    call(generating, "on_train_begin", model, 0)
    call(generating, "on_train_end", model, 4)  # stopped
    call(generating, "on_train_begin", model, 4)  # resumed
    assert [sample["when"] for sample in samples(RunDir(tmp_path))] == ["before"]
    call(generating, "on_train_end", model, 10)
    assert [sample["when"] for sample in samples(RunDir(tmp_path))] == ["before", "after"]


def test_only_the_leading_rank_writes(tokenizer: PreTrainedTokenizerBase, model: LlamaForCausalLM, tmp_path: Path) -> None:
    call(Generating(RunDir(tmp_path), PROMPT, tokenizer, leads=False), "on_train_begin", model, 0)
    assert not RunDir(tmp_path).samples.exists()
