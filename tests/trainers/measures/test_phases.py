"""Where the borders of the phases lie in a real Trainer's steps; the meter stands in for CUDA's allocator."""

from itertools import count
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

from trainers.measures.phases import Meter, Peaks, Phases, Reading, bracket_step

ROW = {"input_ids": torch.arange(4), "labels": torch.arange(4)}


def numbering() -> Meter:
    """Answers 1, 2, 3, ...: the highest of a phase is then the number of its last border."""
    numbers = count(1)

    def read() -> Reading:
        number = next(numbers)
        return Reading(number, 2 * number)

    return read


def trained(folder: Path, peaks: Peaks, **arguments: object) -> None:
    config = LlamaConfig(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2, vocab_size=32)
    fixed = {"output_dir": str(folder), "use_cpu": True, "report_to": [], "disable_tqdm": True, "per_device_train_batch_size": 1}
    settings = TrainingArguments(**{**fixed, **arguments})
    model = LlamaForCausalLM(config)
    Trainer(model=model, args=settings, train_dataset=[ROW] * 8, eval_dataset=[ROW] * 2, callbacks=[Phases(peaks)]).train()


def test_every_phase_ends_where_its_work_does_and_the_first_step_is_apart(tmp_path: Path) -> None:
    peaks = Peaks(numbering())
    every_two = {"eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps", "save_steps": 2}
    trained(tmp_path, peaks, max_steps=2, gradient_accumulation_steps=2, per_device_eval_batch_size=1, **every_two)
    # 1 load. Step 1, all of it warm-up: (2 batch, 3 forward, 4 backward) (5 batch, 6 forward, 7 backward), 8 optimizer, 9 end of the step.
    # Step 2: (10, 11, 12) (13 batch, 14 forward, 15 backward), 16 optimizer, 17 end; 18 before the first evaluated batch, 19 evaluated, 20 saved.
    assert peaks.by_phase == {
        "load": 1, "warm-up": 9, "elsewhere": 18, "forward": 14, "backward": 15, "optimizer step": 16, "evaluation": 19, "save": 20
    }  # fmt: skip
    assert peaks.highest == Reading(20, 40)


def test_a_single_step_is_all_warm_up(tmp_path: Path) -> None:
    peaks = Peaks(numbering())
    trained(tmp_path, peaks, max_steps=1, save_strategy="no")
    # 1 load, 2 batch, 3 forward, 4 backward, 5 optimizer, 6 end of the step
    assert peaks.by_phase == {"load": 1, "warm-up": 6}


def test_a_phase_keeps_its_highest_reading() -> None:
    readings = iter([Reading(5, 9), Reading(7, 8), Reading(6, 10)])
    peaks = Peaks(lambda: next(readings))
    peaks.settled = True
    for _ in range(3):
        peaks.end("forward")
    assert peaks.by_phase == {"forward": 7}
    assert peaks.highest == Reading(7, 10)


class EngineOptimizer:
    """Like DeepSpeed's: a step, and no hooks."""

    def __init__(self, heard: list[str]) -> None:
        self.heard = heard

    def step(self, closure: None = None) -> str:
        self.heard.append("step")
        return "stepped"


def test_an_optimizer_without_hooks_is_bracketed_too() -> None:
    heard: list[str] = []
    optimizer = EngineOptimizer(heard)
    bracket_step(optimizer, lambda: heard.append("before"), lambda: heard.append("after"))
    assert optimizer.step(closure=None) == "stepped"
    assert heard == ["before", "step", "after"]
