"""A run that is asked to stop inside an evaluation or while answers are written leaves at once, and goes on as if nobody had asked."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState, GradientState
from safetensors.torch import load_file

from conf.exit_codes import DONE, SAVED
from conf.run_dir import RunDir, save_run
from conf.schema import Run
from tests.described import described
from trainers.callbacks.stopping import SIGNALS, owes_evaluation
from trainers.ranks import stop
from trainers.ranks.place import Place
from trainers.run import train

TINY = (
    *("model=demo", "data=demo", "model.architecture.hidden_size=32", "model.architecture.intermediate_size=64", "data.max_samples=64"),
    *("node=cpu", "cluster.ranks_per_node=1", "sharding=ddp", "training.precision=fp32", "training.gradient_checkpointing=false"),
    *("training.micro_batch=8", "training.max_steps=4", "optim.lr=0.005", "optim.warmup=0", "evaluation.answers=0", "evaluation.at_start=false"),
)
EVALUATED = ("stage=sft", "regime=full", "evaluation.interval=2", "evaluation.at_end=true", "data.validation_share=0.25", "evaluation.micro_batch=4")
BEST = (*EVALUATED, "checkpoint.interval=2", "evaluation.best_at_end=true", "evaluation.patience=1", "optim.lr=1.0")
WRITTEN = ("stage=grpo", "regime=lora", "stage.rewards=[brevity]", "stage.response_length=6", "evaluation.interval=0", "data.validation_share=0")


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Of this process, and what it was asked."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
    stop.REQUESTS.begin(Path("never"))


def start(run: Run, run_dir: RunDir) -> tuple[int, str]:
    AcceleratorState._reset_state()
    GradientState._reset_state()
    torch.manual_seed(0)
    run_dir.stop.unlink(missing_ok=True)
    return train(run, run_dir, Place(0, 0, 1))


def made(folder: Path, run: Run) -> RunDir:
    run_dir = RunDir(folder)
    run_dir.path.mkdir(parents=True)
    save_run(run, run_dir)
    return run_dir


def ask_at(number: int, module: str, run_dir: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stop file is there just before `module` looks for it this time."""
    looked = 0

    def looking() -> None:
        nonlocal looked
        looked += 1
        if looked == number:
            run_dir.stop.touch()
        stop.leave_if_asked()

    monkeypatch.setattr(f"{module}.leave_if_asked", looking)


def logged(run_dir: RunDir) -> list[dict[str, Any]]:
    times = ("time", "tokens_per_second", "eta_seconds", "resumed_from")
    entries = [json.loads(line) for line in run_dir.progress.read_text().splitlines()]
    return [{key: value for key, value in entry.items() if key not in times} for entry in entries]


@pytest.mark.parametrize(
    ("overrides", "module", "number", "step"),
    [
        ((*EVALUATED, "checkpoint.interval=0"), "trainers.stages.shared.evaluation", 2, 2),  # 16 held-out samples are four batches
        ((*EVALUATED, "checkpoint.interval=0"), "trainers.stages.shared.evaluation", 7, 4),  # of the last step
        (BEST, "trainers.stages.shared.evaluation", 2, 2),
        ((*WRITTEN, "checkpoint.interval=0"), "trainers.stages.grpo", 3, 2),
    ],
    ids=["evaluation", "last evaluation", "evaluation that decides", "answers"],
)
def test_the_last_step_is_saved_and_the_next_start_makes_the_rest_as_if_nobody_had_asked(
    overrides: tuple[str, ...], module: str, number: int, step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = described(*TINY, *overrides, f"data.cache={tmp_path}/cache")
    whole, cut = made(tmp_path / "whole", run), made(tmp_path / "cut", run)
    assert start(run, whole) == (DONE, "finished")
    with monkeypatch.context() as patched:
        ask_at(number, module, cut, patched)
        assert start(run, cut) == (SAVED, f"stopped at step {step}, saved")
    assert owes_evaluation(cut.checkpoint(step)) == ("evaluation" in module)
    assert start(run, cut) == (DONE, "finished")
    assert logged(cut) == logged(whole)
    weights, expected = (load_file(next(run_dir.model.glob("*.safetensors"))) for run_dir in (cut, whole))
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


def test_before_the_first_step_there_is_nothing_to_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = described(*TINY, *WRITTEN, "checkpoint.interval=0", f"data.cache={tmp_path}/cache")
    run_dir = made(tmp_path / "run", run)
    ask_at(1, "trainers.stages.grpo", run_dir, monkeypatch)
    assert start(run, run_dir) == (SAVED, "stopped before the first step, so there was nothing to save")
    assert [*run_dir.checkpoints.glob("step-*")] == []
