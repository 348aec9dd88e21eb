"""What a rank writes of itself after its first step, by a real Trainer on the CPU."""

import json
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

from conf.run_dir import RunDir
from trainers.callbacks.layout import Layout
from trainers.ranks.place import Place


def test_a_rank_writes_what_it_is_once(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path)
    config = LlamaConfig(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2, vocab_size=32)
    row = {"input_ids": torch.arange(4), "labels": torch.arange(4)}
    arguments = TrainingArguments(output_dir=str(tmp_path / "out"), max_steps=2, use_cpu=True, report_to=[], save_strategy="no", disable_tqdm=True)
    trainer = Trainer(model=LlamaForCausalLM(config), args=arguments, train_dataset=[row] * 16)
    asked: list[Trainer] = []

    def this_trainer() -> Trainer:
        asked.append(trainer)
        return trainer

    trainer.add_callback(Layout(this_trainer, run_dir, Place(rank=0, local_rank=0, world=1)))
    trainer.train()
    found = json.loads(run_dir.layout_file(0).read_text())
    assert len(asked) == 1
    assert (found["rank"], found["world"], found["device"], found["zero_stage"]) == (0, 1, "cpu", None)
    assert (found["wrapper"], found["sharded_parameters"]) == ("LlamaForCausalLM", 0)
    assert found["trained_dtypes"] == found["state_dtypes"] == ["torch.float32"]
    assert found["optimizer"].startswith("AdamW")
