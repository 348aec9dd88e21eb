"""The generated set, and that the demo model learns it."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

from tests.described import described
from trainers.data import build_collator, build_datasets
from trainers.data.sources.generated import generated_rows
from trainers.model.tokenizer import load_tokenizer


def test_there_are_two_thousand_different_questions_with_right_answers():
    rows = [row for _, row in generated_rows()]
    assert len({row["instruction"] for row in rows}) == 2000
    assert {"instruction": "What is 3 + 4?", "input": "", "output": "3 + 4 = 7."} in rows
    assert {"instruction": "Ben, what is 9 + 8?", "input": "", "output": "9 + 8 = 17."} in rows


def test_the_set_is_the_same_every_time():
    assert list(generated_rows()) == list(generated_rows())


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
