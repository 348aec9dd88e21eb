"""Live bytes of one training step of a stage's own trainer: tiny weights on the CPU, real rows, the second step of a real loop.

Products of matrices, which are nearly all of the work, are not computed: each gives zeros of its shape, and no size here depends on a value. Logits
of zeros are answers of any tokens, as those of a random model are.
"""

import importlib
import inspect
import random
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from datasets import Dataset
from peft import PeftModel
from regimen_tests_fused_layers import fuse_layers, fused_as_on_a_gpu  # beside this file: conftest.py
from transformers import AutoConfig, AutoModelForSequenceClassification, Trainer, TrainerCallback

from conf.run_dir import RunDir
from conf.schema import Freeze, Ppo, Run
from trainers.callbacks.frozen_inputs import FrozenInputs
from trainers.data import build_collator
from trainers.kernels.parts import fused
from trainers.model.tokenizer import load_tokenizer
from trainers.regimes import prepare_model
from trainers.stages.shared.material import Material

ANSWERING = {"grpo": "_generate_and_score_completions", "ppo": "roll_out"}  # methods in which answers are written and judged
SHORTER = 8  # tokens by which every second sequence is shorter: batches are padded, as in the worst case that is predicted
Row = dict[str, Any]


def trace_stage(tracer: ModuleType, run: Run, folder: Path) -> dict[str, int]:
    """The highest live bytes of each phase of the second step; the first one makes the optimizer's states."""
    if isinstance(run.stage, Ppo):
        judge = folder / str(run.stage.reward_model)
        write_reward_model(run, judge)
        run = replace(run, stage=replace(run.stage, reward_model=str(judge)))
    trainer = build_trainer(run, RunDir(folder))
    live = mending(tracer.LiveBytes)()
    trainer.add_callback(Borders(tracer, trainer, live))
    with ExitStack() as stack:
        if fused(run):
            as_on_a_gpu(trainer, stack)
        stack.enter_context(live)
        trainer.train()
    peaks: dict[str, int] = live.peaks
    return peaks


def build_trainer(run: Run, run_dir: RunDir) -> Trainer:
    stage = importlib.import_module(f"trainers.stages.{run.stage.name}")
    tokenizer = load_tokenizer(run)
    arguments = stage.build_arguments(run, run_dir, False)
    arguments.optim = "adamw_torch_fused"  # as on a GPU
    prepared = prepare_model(run, stage.MODEL_CLASS, run_dir.base)
    material = Material(tokenizer, Dataset.from_list(rows_of(run)), None, build_collator(run, tokenizer), callbacks_of(run))
    trainer: Trainer = stage.build_trainer(run, arguments, prepared, material)
    return trainer


def as_on_a_gpu(trainer: Trainer, stack: ExitStack) -> None:
    """liger's layers and the GPU's attention, with what they keep and without what they compute, in the policy and in its reference."""
    for model in models_of(trainer, trainer.model):
        base = model.get_base_model() if isinstance(model, PeftModel) else model
        fuse_layers(base, adapted=isinstance(model, PeftModel))
        stack.enter_context(fused_as_on_a_gpu(base))


def callbacks_of(run: Run) -> list[TrainerCallback]:
    return [FrozenInputs()] if isinstance(run.regime, Freeze) else []


def rows_of(run: Run) -> list[Row]:
    """As long as the cutoff allows, nearly all of it answer, every second sequence a little shorter; all as long where nothing is padded."""
    draw, cutoff, shorter = random.Random(0), run.data.cutoff, 0 if fused(run) else SHORTER
    makers: dict[str, Callable[[int], Row]] = {
        "pt": lambda number: next_tokens(tokens(draw, cutoff - shorter * (number % 2))),
        "kto": lambda number: {"prompt_ids": [5], "completion_ids": tokens(draw, cutoff - 1 - shorter * (number % 2)), "label": True},
    }
    make = makers.get(run.stage.name, lambda _: pair(draw, cutoff, shorter))
    return prompts(draw, cutoff) if run.stage.name in ANSWERING else [make(number) for number in range(4 * run.training.micro_batch)]


def tokens(draw: random.Random, count: int) -> list[int]:
    return draw.choices(range(10, 250), k=count)


def prompts(draw: random.Random, cutoff: int) -> list[Row]:
    """Both are answered at once. A random model of thousands of tokens hardly ever writes the one that ends an answer: all are as long as may be."""
    return [{"prompt_ids": tokens(draw, length), "prompt": "", "answer": ""} for length in (cutoff, cutoff - SHORTER)]


def next_tokens(ids: list[int]) -> Row:
    return {"input_ids": ids, "labels": ids}


def pair(draw: random.Random, cutoff: int, shorter: int) -> Row:
    return {"prompt_ids": [5], "chosen_ids": tokens(draw, cutoff - 1), "rejected_ids": tokens(draw, cutoff - 1 - shorter)}


def product(func: Any, args: Any) -> torch.Tensor | None:
    """Zeros as large as the product of matrices that `func` computes; None: it computes none."""
    if func not in (torch.ops.aten.mm.default, torch.ops.aten.bmm.default, torch.ops.aten.addmm.default):
        return None
    left, right = args[-2:]
    return left.new_zeros((*left.shape[:-1], right.shape[-1]))


def mending(kind: Any) -> Any:
    """Under any dispatch mode torch makes the gradients of gather and index_select out of place, else in place (autograd/FunctionsManual)."""
    in_place_of = {
        torch.ops.aten.scatter_add.default: torch.ops.aten.scatter_add_.default,
        torch.ops.aten.index_add.default: torch.ops.aten.index_add_.default,
    }

    class Mended(kind):  # type: ignore[misc]
        def __torch_dispatch__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
            zeros = product(func, args)
            if zeros is not None:
                self.hold(zeros)
                return zeros
            return super().__torch_dispatch__(in_place_of.get(func, func), types, args, kwargs)

    return Mended


class Borders(TrainerCallback):
    """Names the phases of the second step."""

    def __init__(self, tracer: ModuleType, trainer: Trainer, live: Any) -> None:
        self.tracer, self.trainer, self.live = tracer, trainer, live

    def on_train_begin(self, *_: Any, model: torch.nn.Module, optimizer: Any, **__: Any) -> None:
        for module in models_of(self.trainer, model):
            for tensor in (*module.parameters(), *module.buffers()):
                self.live.hold(tensor)
        self.tracer.watch_backward(model, self.live)
        compute_loss = self.trainer.compute_loss

        def bordered(*arguments: Any, **keywords: Any) -> Any:
            self.live.enter("forward")
            loss = compute_loss(*arguments, **keywords)
            self.live.enter("loss")
            return loss

        self.trainer.compute_loss = bordered  # type: ignore[method-assign]
        for method in ANSWERING.values():
            if method in dir(self.trainer):
                setattr(self.trainer, method, self.generating(getattr(self.trainer, method)))
        optimizer.optimizer.register_step_pre_hook(lambda *_: self.live.enter("step"))

    def generating(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def bordered(*arguments: Any, **keywords: Any) -> Any:
            self.live.enter("generation")
            result = method(*arguments, **keywords)
            self.live.enter("elsewhere")
            return result

        return bordered

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.live.enter("elsewhere")
        if self.trainer.state.global_step == 1:
            self.live.peaks.clear()


def models_of(trainer: Trainer, model: torch.nn.Module) -> list[torch.nn.Module]:
    judge = vars(trainer).get("judge")
    held = [] if judge is None else [cell.cell_contents for cell in inspect.unwrap(judge).__closure__]
    others = [vars(trainer).get("ref_model"), vars(trainer).get("reference"), *held]
    return [model, *(other for other in others if isinstance(other, torch.nn.Module))]


def write_reward_model(run: Run, folder: Path) -> None:
    """As large as the model that learns, with its tokenizer."""
    config = AutoConfig.for_model(**(run.model.architecture or {}), num_labels=1)
    AutoModelForSequenceClassification.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
    load_tokenizer(run).save_pretrained(folder)
