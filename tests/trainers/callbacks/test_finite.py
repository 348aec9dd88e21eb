"""Before each commit: a loss, a norm or a weight that is no number ends the run, on every rank, with the rows that it came from."""

import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate.state import AcceleratorState, GradientState
from torch import nn
from transformers import TrainerControl, TrainerState, TrainingArguments

from conf.committed import committed, faults
from conf.records import read_lines
from conf.run_dir import RunDir, save_run
from tests.described import described
from trainers.callbacks.finite import Finite
from trainers.data.rows.numbers import NUMBER
from trainers.ranks.causes import NotANumber
from trainers.ranks.place import Place

TINY = (
    *("model=demo", "model.architecture.hidden_size=64", "model.architecture.intermediate_size=128", "data=demo", "data.max_samples=64"),
    *("node=cpu", "cluster.ranks_per_node=1", "training.precision=fp32", "training.micro_batch=4", "evaluation.interval=0", "regime=full"),
    *("training.max_steps=6", "optim.warmup=0", "checkpoint.interval=1", "optim.scheduler=constant"),
)


def watching(scaled: bool = False) -> Finite:
    finite = Finite(scaled)
    finite.trainer = SimpleNamespace(_tr_loss=torch.tensor(0.0), model=nn.Linear(3, 2), step_norm=None, step_rows=())
    return finite


def step(finite: Finite, number: int, loss: float, norm: float | torch.Tensor | None, *rows: int) -> None:
    finite.trainer._tr_loss = torch.tensor(loss)
    finite.trainer.step_norm, finite.trainer.step_rows = norm, rows
    finite.on_step_end(TrainingArguments(), TrainerState(global_step=number), TrainerControl())


def test_finite_steps_are_committed() -> None:
    finite = watching()
    for number in (1, 2):
        step(finite, number, 2.5, torch.tensor(0.5), 3, 4)
        finite.refuse(number)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_loss_between_two_logs_is_found_with_its_step_and_rows(bad: float) -> None:
    """The trainer adds up losses until they are logged, so the bad one stays in the sum of the steps after it."""
    finite = watching()
    for number, loss, norm in ((1, 2.5, 0.5), (2, 2.25, 7.0), (3, bad, 0.75), (4, bad, 0.25)):
        step(finite, number, loss, torch.tensor(norm), 10 * number, 10 * number + 1)
    with pytest.raises(
        NotANumber,
        match=r"^A loss is NaN or infinite at step 4, so nothing is saved from this step\. It began in step 3\. "
        r"It was made of these rows of the prepared data: rank 0: rows 30, 31\. The norms of the gradient up to it: 0\.5, 7, 0\.75\. Start a new run",
    ):
        finite.refuse(4)


@pytest.mark.parametrize("norm", [math.inf, torch.tensor(math.nan)])
def test_a_norm_is_found_and_a_loss_scaler_may_have_it(norm: float | torch.Tensor) -> None:
    for scaled in (True, False):
        finite = watching(scaled)
        step(finite, 1, 2.5, norm, 7)
        step(finite, 2, 2.5, 0.5, 8)
        if scaled:
            finite.refuse(2)
        else:
            with pytest.raises(NotANumber, match=r"^A norm of the gradient is NaN or infinite at step 2, .*began in step 1\..*rows 7\."):
                finite.refuse(2)


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e25])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_weight_is_found(value: float, dtype: torch.dtype) -> None:
    finite = watching()
    finite.trainer.model.to(dtype)
    with torch.no_grad():
        finite.trainer.model.weight[1, 2] = value
    step(finite, 1, 2.5, None)
    with pytest.raises(NotANumber, match=r"^A weight is NaN, infinite or beyond 1e19 at step 1"):
        finite.refuse(1)


@pytest.mark.parametrize(("log_interval", "keys"), [(1, ()), (6, ()), (6, ("training.max_steps=2", "checkpoint.interval=0"))])
def test_a_run_that_diverges_leaves_no_poisoned_weights(log_interval: int, keys: tuple[str, ...], tmp_path: Path) -> None:
    """All checkpoints of such a run held NaN where logs were rarer than commits, and the message said that nothing was saved."""
    run_dir = trained(tmp_path / "run", "optim.lr=1e30", f"training.log_interval={log_interval}", *keys)
    assert committed(run_dir) == []
    assert not run_dir.model.exists()


def test_the_rows_of_every_step_are_known_and_the_same_after_a_resume(tmp_path: Path) -> None:
    whole = trained(tmp_path / "whole", "optim.lr=1e-3")
    cut = trained(tmp_path / "cut", "optim.lr=1e-3", ends=3)
    assert rows_of(cut) == rows_of(whole)[:3]
    trained(tmp_path / "cut", "optim.lr=1e-3")
    assert rows_of(cut) == rows_of(whole)
    assert [entry["step"] for entry in rows_of(whole)] == [1, 2, 3, 4, 5, 6]
    assert all(len(set(entry["rows"])) == 4 for entry in rows_of(whole))
    assert faults(whole.model) == []


@pytest.mark.parametrize("workers", [0, 1])
def test_no_model_sees_the_numbers_of_rows(workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluated batches carried them into the model, which some models refuse."""
    from trainers.stages.sft import NextToken

    learned, measured = NextToken.compute_loss, NextToken.measure
    seen: dict[str, set[str]] = {"learned": set(), "measured": set()}

    def learn(self: NextToken, model: nn.Module, inputs: dict[str, object], *positional: object, **named: object) -> object:
        seen["learned"] |= set(inputs)
        return learned(self, model, inputs, *positional, **named)

    def measure(self: NextToken, model: nn.Module, batch: dict[str, object]) -> object:
        seen["measured"] |= set(batch)
        return measured(self, model, batch)

    monkeypatch.setattr(NextToken, "compute_loss", learn)
    monkeypatch.setattr(NextToken, "measure", measure)
    keys = ("optim.lr=1e-3", "training.max_steps=2", "evaluation.at_end=true", f"training.dataloader_workers={workers}")
    run_dir = trained(tmp_path / "run", *keys)
    assert {"input_ids", "labels"} <= seen["learned"] & seen["measured"]
    assert NUMBER not in seen["learned"] | seen["measured"]
    assert [len(entry["rows"]) for entry in rows_of(run_dir)] == [4, 4]


def rows_of(run_dir: RunDir) -> list[dict[str, object]]:
    return read_lines(run_dir.rows_file(0), lambda entry: True).entries


def trained(folder: Path, *overrides: str, ends: int | None = None) -> RunDir:
    """In this process; `ends`: it is asked to stop at the end of that step."""
    from trainers.run import train

    run, run_dir = described(*TINY, *overrides), RunDir(folder)
    run_dir.path.mkdir(parents=True, exist_ok=True)
    run_dir.stop.unlink(missing_ok=True)
    save_run(run, run_dir)
    AcceleratorState._reset_state()
    GradientState._reset_state()
    if float(run.optim.lr) > 1:
        with pytest.raises(NotANumber, match=r"at step \d, (so|and) nothing (is|was) saved from this step"):
            train(run, run_dir, Place(0, 0, 1))
        return run_dir
    with pytest.MonkeyPatch.context() as patch:
        if ends is not None:
            stop_at(ends, run_dir, patch)
        assert train(run, run_dir, Place(0, 0, 1))[0] == (0 if ends is None else 75)
    return run_dir


def stop_at(last: int, run_dir: RunDir, patch: pytest.MonkeyPatch) -> None:
    """The request comes while that step is made."""
    from trainers.callbacks.stopping import Stopping

    begin = Stopping.on_step_begin

    def begun(self: Stopping, args: TrainingArguments, state: TrainerState, control: TrainerControl, **named: object) -> None:
        begin(self, args, state, control, **named)
        if state.global_step == last - 1:
            run_dir.stop.touch()

    patch.setattr(Stopping, "on_step_begin", begun)
