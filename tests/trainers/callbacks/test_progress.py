"""What progress.jsonl says of a step, and the end of a run whose loss is no number."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerControl, TrainerState, TrainingArguments

from conf.run_dir import RunDir
from trainers.callbacks.progress import Progress, TokenCount
from trainers.ranks.causes import NotANumber


class Model(torch.nn.Module):
    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
        return input_ids


def begun(run_dir: RunDir, leads: bool = True, step: int = 0) -> tuple[Progress, Model]:
    progress, model = Progress(run_dir, leads), Model()
    progress.on_train_begin(arguments(run_dir), TrainerState(global_step=step, max_steps=10), TrainerControl(), model=model)
    return progress, model


def arguments(run_dir: RunDir, log_interval: int = 1) -> TrainingArguments:
    return TrainingArguments(output_dir=str(run_dir.path), logging_steps=log_interval)


def log(progress: Progress, step: int, **logs: float) -> None:
    progress.on_log(arguments(progress.run_dir), TrainerState(global_step=step, max_steps=10), TrainerControl(), logs=logs)


def entries(run_dir: RunDir) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run_dir.progress.read_text().splitlines()]


def test_tokens_are_counted_with_and_without_padding() -> None:
    model = Model()
    count = TokenCount(model)
    model(input_ids=torch.zeros(2, 5), attention_mask=torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]]))
    model(input_ids=torch.zeros(1, 4))  # packed: no mask, nothing is padding
    assert count.take().tolist() == [14.0, 11.0]
    assert count.take().tolist() == [0.0, 0.0]


def test_tokens_are_counted_where_a_trainer_does_not_name_them() -> None:
    model = Model()
    count = TokenCount(model)
    model(torch.zeros(1, 5), attention_mask=torch.tensor([[1, 1, 1, 0, 0]]))
    assert count.take().tolist() == [5.0, 3.0]


def test_tokens_of_a_reference_are_not_counted() -> None:
    """With an adapter the model itself, switched back, is the reference."""
    model = Model()
    count = TokenCount(model)
    model(input_ids=torch.zeros(2, 5))
    with torch.no_grad():
        model(input_ids=torch.zeros(2, 5))
    assert count.take().tolist() == [10.0, 10.0]


def test_what_a_stage_compares_is_kept_of_a_step_and_of_an_evaluation(tmp_path: Path) -> None:
    progress, _ = begun(RunDir(tmp_path))
    log(progress, 1, **{"loss": 0.6, "rewards/chosen": 0.2, "rewards/rejected": -0.1, "rewards/margins": 0.3, "logits/chosen": 5.0})
    log(progress, 1, **{"eval_loss": 0.5, "eval_reward_accuracy": 0.75, "eval_reward_margin": 0.4, "eval_kl": 0.01})
    step, evaluation = entries(RunDir(tmp_path))
    assert {name: value for name, value in step.items() if "reward" in name} == {
        "reward_chosen": 0.2,
        "reward_rejected": -0.1,
        "reward_margin": 0.3,
    }
    assert "logits/chosen" not in step
    assert {name: value for name, value in evaluation.items() if name.startswith("eval")} == {
        "eval_loss": 0.5,
        "eval_reward_accuracy": 0.75,
        "eval_reward_margin": 0.4,
        "eval_kl": 0.01,
    }


def test_tokens_of_an_evaluation_are_not_counted() -> None:
    model = Model().eval()
    count = TokenCount(model)
    model(input_ids=torch.zeros(2, 5))
    assert count.take().tolist() == [0.0, 0.0]


def test_a_logged_loss_becomes_a_line_with_rate_and_time_left(tmp_path: Path) -> None:
    progress, model = begun(RunDir(tmp_path))
    model(input_ids=torch.zeros(2, 5), attention_mask=torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]]))
    log(progress, 1, loss=2.5, grad_norm=0.5, learning_rate=1e-4, epoch=0.1, other=3.0)
    [entry] = entries(RunDir(tmp_path))
    assert {key: entry[key] for key in ("step", "of", "loss", "grad_norm", "lr", "epoch", "padding")} == {
        "step": 1,
        "of": 10,
        "loss": 2.5,
        "grad_norm": 0.5,
        "lr": 1e-4,
        "epoch": 0.1,
        "padding": 0.3,
    }
    assert entry["tokens_per_second"] > 0
    assert entry["eta_seconds"] >= 0
    assert "other" not in entry


def test_a_rate_is_that_of_its_steps_where_two_logs_come_late_and_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """training.kernels=fused logs a step late, and its last two steps together."""
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    progress, model = begun(RunDir(tmp_path))
    control = TrainerControl(should_log=True)
    for end in (102.0, 104.0):  # ten tokens in two seconds, twice
        model(input_ids=torch.zeros(2, 5))
        clock[0] = end
        progress.on_step_end(arguments(RunDir(tmp_path)), TrainerState(), control)
    clock[0] = 105.0
    log(progress, 1, loss=2.5)
    log(progress, 2, loss=2.5)
    assert [entry["tokens_per_second"] for entry in entries(RunDir(tmp_path))] == [5.0, 5.0]


def test_a_rate_leaves_out_the_time_of_evaluations_and_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    progress, model = begun(RunDir(tmp_path))
    state, silent, logging = TrainerState(), TrainerControl(), TrainerControl(should_log=True)
    clock[0] = 130.0
    progress.on_evaluate(arguments(RunDir(tmp_path)), state, silent)  # before the first step
    for end, control in ((132.0, logging), (192.0 + 2.0, silent), (196.0, logging)):  # ten tokens in two seconds, each time
        model(input_ids=torch.zeros(2, 5))
        clock[0] = end
        progress.on_step_end(arguments(RunDir(tmp_path)), state, control)
        if control.should_log:
            log(progress, 1, loss=2.5)
        if end == 132.0:
            clock[0] = 172.0
            progress.on_evaluate(arguments(RunDir(tmp_path)), state, control)
            clock[0] = 192.0
            progress.on_save(arguments(RunDir(tmp_path)), state, control)
    assert [entry["tokens_per_second"] for entry in entries(RunDir(tmp_path))] == [5.0, 5.0]


def test_an_evaluation_is_a_line_without_a_rate(tmp_path: Path) -> None:
    progress, _ = begun(RunDir(tmp_path))
    log(progress, 0, eval_loss=3.0)
    [entry] = entries(RunDir(tmp_path))
    assert entry["eval_loss"] == 3.0
    assert "tokens_per_second" not in entry


def test_the_summary_at_the_end_is_no_step(tmp_path: Path) -> None:
    progress, _ = begun(RunDir(tmp_path))
    log(progress, 10, train_runtime=3.0, train_loss=1.0)
    assert not RunDir(tmp_path).progress.exists()


def test_only_the_leading_rank_writes(tmp_path: Path) -> None:
    progress, _ = begun(RunDir(tmp_path), leads=False)
    log(progress, 1, loss=2.5)
    assert not RunDir(tmp_path).progress.exists()


@pytest.mark.parametrize("leads", [True, False])
@pytest.mark.parametrize(("key", "value"), [("loss", float("nan")), ("loss", float("inf")), ("eval_loss", float("nan"))])
def test_every_rank_ends_at_a_loss_that_is_no_number(key: str, value: float, leads: bool, tmp_path: Path) -> None:
    progress, _ = begun(RunDir(tmp_path), leads)
    with pytest.raises(NotANumber, match=rf"^{key} is {value} at step 4, .* new run with a lower optim\.lr"):
        log(progress, 4, **{key: value})


@pytest.mark.parametrize(("key", "when"), [("loss", "in steps 6 to 10"), ("eval_loss", "at step 10")])
def test_a_loss_over_several_steps_is_named_by_all_of_them(key: str, when: str, tmp_path: Path) -> None:
    progress, _ = begun(RunDir(tmp_path))
    state = TrainerState(global_step=10, max_steps=20)
    with pytest.raises(NotANumber, match=rf"^{key} is nan {when}, "):
        progress.on_log(arguments(RunDir(tmp_path), log_interval=5), state, TrainerControl(), logs={key: float("nan")})


def test_lines_after_a_torn_one_are_not_lost_in_it(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path)
    run_dir.progress.write_text('{"step": 3, "of": 10, "loss": 2.0}\n{"step": 4, "o')
    progress, _ = begun(run_dir, step=3)
    log(progress, 4, loss=1.5)
    assert [entry["step"] for entry in entries(run_dir)] == [3, 4]


def test_the_first_line_after_a_resume_says_from_which_step(tmp_path: Path) -> None:
    progress, _ = begun(RunDir(tmp_path), step=3)
    log(progress, 4, loss=1.5)
    log(progress, 5, loss=1.4)
    assert [entry.get("resumed_from") for entry in entries(RunDir(tmp_path))] == [3, None]
