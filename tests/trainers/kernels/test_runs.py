"""Whole runs with fused kernels on one CPU process: the losses of the plain path, logged of the same steps, saved as the same adapter."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from conf.run_dir import RunDir
from trainers.callbacks.progress import Progress
from trainers.model.tokenizer import load_tokenizer
from trainers.ranks.causes import NotANumber
from trainers.run import save_model

FUSED = ("training.kernels=fused", "training.attention=varlen")
LORA = ("regime=lora", "regime.rank=4", "regime.alpha=8")


class Seen(TrainerCallback):
    """What callbacks are told, in order."""

    def __init__(self) -> None:
        self.events: list[tuple[str, int]] = []

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.events.append(("end of step", state.global_step))

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict[str, float] | None = None, **_: Any) -> None:
        if "loss" in (logs or {}):
            self.events.append(("log", state.global_step))

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.events.append(("save", state.global_step))


def trained(tiny: Any, folder: Path, *overrides: str, stage: str = "sft", seen: tuple[TrainerCallback, ...] = ()) -> Trainer:
    adapter = () if "regime=full" in overrides else LORA
    run = tiny.tiny_run(stage, *adapter, "training.max_steps=6", *overrides)
    trainer: Trainer = tiny.stage_trainer(run, folder, tiny.rows_for(stage), tiny.rows_for(stage, 6), seen)
    trainer.train()
    return trainer


@pytest.mark.parametrize("stage", ["sft", "pt"])
@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("training.accumulation=2", "training.micro_batch=2"),
        ("training.gradient_checkpointing=true",),
        ("training.loss=chunked",),
        ("training.loss=fused",),
        ("regime=full",),
        ("training.log_interval=4",),
    ],
    ids=" ".join,
)
def test_a_run_logs_the_losses_of_the_plain_path(stage: str, overrides: tuple[str, ...], tiny: Any, tmp_path: Path) -> None:
    plain_overrides = tuple(each for each in overrides if each != "training.loss=fused")  # whose plain form needs a GPU
    plain = trained(tiny, tmp_path / "plain", *plain_overrides, stage=stage)
    fused = trained(tiny, tmp_path / "fused", *overrides, *FUSED, stage=stage)
    for key in ("loss", "grad_norm", "learning_rate", "step"):
        kept = [[entry[key] for entry in each.state.log_history if "loss" in entry] for each in (fused, plain)]
        assert kept[0] == pytest.approx(kept[1], rel=1e-4), key
    assert len([entry for entry in fused.state.log_history if "loss" in entry]) == (1 if "training.log_interval=4" in overrides else 6)
    assert fused.evaluate()["eval_loss"] == pytest.approx(plain.evaluate()["eval_loss"], rel=1e-4)


class Modes(TrainerCallback):
    """Whether every module is in training while it trains."""

    def __init__(self) -> None:
        self.seen: list[bool] = []

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any) -> None:
        self.seen.append(all(module.training for module in model.modules()))


def test_a_model_inside_of_a_new_adapter_trains_too(tiny: Any, tmp_path: Path) -> None:
    """It comes from files in evaluation mode, in which transformers leaves gradient checkpointing off; an evaluation puts it there again."""
    modes = Modes()
    run = tiny.tiny_run("sft", *LORA, *FUSED, "training.max_steps=4", "training.gradient_checkpointing=true", "evaluation.interval=2")
    trainer: Trainer = tiny.stage_trainer(run, tmp_path, tiny.rows_for("sft"), tiny.rows_for("sft", 6), (modes,))
    assert isinstance(trainer.model, PeftModel)
    trainer.model.get_base_model().eval()
    trainer.model.training = True
    trainer.train()
    assert modes.seen == [True] * 4


def test_a_step_is_logged_when_the_next_one_is_queued_and_before_it_is_saved(tiny: Any, tmp_path: Path) -> None:
    seen = Seen()
    trained(tiny, tmp_path, *FUSED, "checkpoint.interval=3", seen=(seen,))
    assert seen.events == [
        ("end of step", 1),
        *(("end of step", 2), ("log", 1)),
        *(("end of step", 3), ("log", 2), ("log", 3), ("save", 3)),
        ("end of step", 4),
        *(("end of step", 5), ("log", 4)),
        *(("end of step", 6), ("log", 5), ("log", 6), ("save", 6)),
    ]


def test_the_tokens_that_progress_counts_are_those_of_its_step(tiny: Any, tmp_path: Path) -> None:
    counted_of: dict[str, list[float]] = {}
    for name, overrides in (("plain", ()), ("fused", FUSED)):
        run_dir = RunDir(tmp_path / name)
        run_dir.path.mkdir()
        progress = Progress(run_dir, leads=True)
        counts: list[list[float]] = []
        rate = progress.rate

        def counted(state: TrainerState, progress: Progress = progress, counts: list[list[float]] = counts, rate: Callable[..., Any] = rate) -> Any:
            counts.append(progress.counted[0][0].tolist())
            return rate(state)

        progress.rate = counted
        trained(tiny, run_dir.path / "run", *overrides, seen=(progress,))
        lines = [json.loads(line) for line in run_dir.progress.read_text().splitlines()]
        assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3, 4, 5, 6]
        assert all(line["tokens_per_second"] > 0 for line in lines if "loss" in line)
        counted_of[name] = [real for _, real in counts]
    assert counted_of["plain"] == counted_of["fused"]


@pytest.mark.parametrize("step", [2, 3])
def test_a_loss_that_is_no_number_ends_the_run_by_its_own_step_before_anything_is_saved_of_it(step: int, tiny: Any, tmp_path: Path) -> None:
    """Step 3 is saved, and so told at once; step 2 is told when step 3 has been queued."""
    seen = Seen()
    run_dir = RunDir(tmp_path / "run")
    run_dir.path.mkdir()
    run = tiny.tiny_run("sft", *LORA, *FUSED, "training.max_steps=6", "checkpoint.interval=3")
    trainer = tiny.stage_trainer(run, tmp_path, tiny.rows_for("sft"), None, (Progress(run_dir, leads=True), seen))
    break_at_step(trainer, step)
    with pytest.raises(NotANumber, match=f"at step {step}"):
        trainer.train()
    assert ("save", 3) not in seen.events


def break_at_step(trainer: Trainer, step: int) -> None:
    compute = trainer.compute_loss

    def broken(*arguments: Any, **keywords: Any) -> Any:
        loss = compute(*arguments, **keywords)
        return loss * float("nan") if trainer.state.global_step == step - 1 else loss

    trainer.compute_loss = broken


def test_the_adapter_that_is_saved_is_the_one_that_peft_would_have_saved(tiny: Any, tmp_path: Path) -> None:
    saved = {}
    for name, overrides in (("plain", ()), ("fused", FUSED)):
        trainer = trained(tiny, tmp_path / name, *overrides)
        run_dir = RunDir(tmp_path / name)
        save_model(
            trainer,
            load_tokenizer(tiny.tiny_run("sft", *LORA)),
            run_dir,
        )
        saved[name] = load_file(run_dir.model / "adapter_model.safetensors")
        assert isinstance(trainer.model, PeftModel)
    assert saved["fused"].keys() == saved["plain"].keys()
    torch.testing.assert_close(saved["fused"], saved["plain"], rtol=1e-3, atol=1e-5)
