"""The generated set, what the demo holds out of it, and that the demo's model learns it."""

import re

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

from tests.described import described
from trainers.data import build_collator, build_datasets
from trainers.data.rows.questions import first_questions
from trainers.data.sources.generated import generated_rows
from trainers.model.tokenizer import load_tokenizer


def test_there_are_two_thousand_different_questions_with_right_answers():
    rows = [row for _, row in generated_rows()]
    assert len({row["instruction"] for row in rows}) == 2000
    assert {"instruction": "What is 3 + 4?", "input": "", "output": "3 + 4 = 7."} in rows
    assert {"instruction": "Ben, what is 5 + 5?", "input": "", "output": "5 + 5 = 10."} in rows
    for row in rows:
        a, b = (int(text) for text in re.findall(r"\d+", row["instruction"]))
        assert row["output"] == f"{a} + {b} = {a + b}."


def test_the_set_is_the_same_every_time():
    assert list(generated_rows()) == list(generated_rows())


def test_what_the_demo_asks_at_its_end_is_not_in_its_training_set():
    run = described("recipe=demo", "node=cpu", "cluster.ranks_per_node=1")
    tokenizer = load_tokenizer(run)
    prepared = build_datasets(run, tokenizer)
    asked = first_questions(prepared.evaluation, run.evaluation.answers, tokenizer)
    learned = {tuple(question.prompt_ids) for question in first_questions(prepared.train, len(prepared.train), tokenizer)}
    assert (len(asked), len(prepared.train), len(learned)) == (50, 1800, 1800)
    assert not learned & {tuple(question.prompt_ids) for question in asked}
    assert len({question.reference for question in asked}) > 15  # of the 25 sums


@pytest.mark.parametrize("adapter", [False, True], ids=["full", "lora on a random frozen base"])
def test_the_demo_model_halves_its_loss_within_thirty_steps(adapter: bool):
    run = described("recipe=demo", "data.max_samples=400", "node=cpu", "cluster.ranks_per_node=1")
    tokenizer = load_tokenizer(run)
    prepared, collate = build_datasets(run, tokenizer), build_collator(run, tokenizer)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**run.model.architecture))
    if adapter:
        model = get_peft_model(model, LoraConfig(r=32, lora_alpha=64, target_modules="all-linear", task_type="CAUSAL_LM"))
    optimizer = torch.optim.AdamW([parameter for parameter in model.parameters() if parameter.requires_grad], lr=run.optim.lr, weight_decay=0.0)
    held_out = collate([prepared.evaluation[index] for index in range(32)])
    before = model(**held_out).loss.item()
    for step in range(30):
        first = step * 32 % 320
        model(**collate([prepared.train[index] for index in range(first, first + 32)])).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert model(**held_out).loss.item() < before / 2
