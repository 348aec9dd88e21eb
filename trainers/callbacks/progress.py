"""Writes progress.jsonl on rank 0: loss, learning rate, tokens a second, padding share, time left."""

import json
import math
import time
from collections.abc import Callable
from typing import Any

import torch
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from conf.run_dir import RunDir, cut_torn_line
from trainers.ranks.agreement import total
from trainers.ranks.causes import NotANumber

KEPT = {"loss": "loss", "grad_norm": "grad_norm", "learning_rate": "lr", "epoch": "epoch", "eval_loss": "eval_loss"}
# Of the stages that learn from given answers: a reward is what each of them calls so, logps are summed over an answer (orpo, simpo: their mean).
COMPARISONS = {
    "rewards/chosen": "reward_chosen",
    "rewards/rejected": "reward_rejected",
    "rewards/margins": "reward_margin",
    "rewards/accuracies": "reward_accuracy",
    "margin": "reward_margin",  # TRL's names in stage=rm
    "accuracy": "reward_accuracy",
    "mean_reward": "reward",
    "logps/chosen": "logp_chosen",
    "logps/rejected": "logp_rejected",
    "nll_loss": "nll_loss",
    "log_odds_chosen": "log_odds",
}
# Of the stages that learn from their own answers: kl is of one token, in nats; answer_length in tokens; unfinished the share that did not end.
ANSWERS = {
    "reward": "reward",
    "kl": "kl",
    "entropy": "entropy",
    "completions/mean_length": "answer_length",
    "completions/clipped_ratio": "unfinished",
    "policy_loss": "policy_loss",
    "value_loss": "value_loss",
    "clip_ratio": "clip_ratio",
    "clip_ratio/region_mean": "clip_ratio",
}
EVALUATED = {f"eval_{ours}": f"eval_{ours}" for ours in (*COMPARISONS.values(), "kl")}  # trainers/stages names them itself
ALL_KEPT = {**KEPT, **COMPARISONS, **ANSWERS, **EVALUATED}


class TokenCount:
    """Counts the tokens that pass the model's forward in training: all of them, and those that are not padding."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.every, self.real = 0.0, 0.0
        self.hook = model.register_forward_pre_hook(self.count, with_kwargs=True)

    def count(self, module: torch.nn.Module, positional: tuple[Any, ...], named: dict[str, Any]) -> None:
        tokens = positional[0] if positional else named.get("input_ids")  # TRL's ORPO and CPO trainers do not name it
        if not module.training or tokens is None or not torch.is_grad_enabled():  # a policy may speak as its own reference too
            return
        mask, real = named.get("attention_mask"), named.get("real_tokens")
        self.every += tokens.numel()
        self.real += real if real is not None else float(mask.sum()) if mask is not None and mask.dim() == 2 else tokens.numel()

    def take(self) -> torch.Tensor:
        counted = torch.tensor([self.every, self.real], dtype=torch.float64)
        self.every, self.real = 0.0, 0.0
        return counted


class Progress(TrainerCallback):
    """Every rank takes part, since the counts are summed; only rank 0 writes."""

    def __init__(self, run_dir: RunDir, leads: bool, history: Callable[[], str] = str) -> None:
        """`history`: what is known of the steps before a loss that is none; a collective act."""
        self.run_dir, self.leads, self.history = run_dir, leads, history
        self.tokens: TokenCount | None = None
        self.counted: list[tuple[torch.Tensor, float, float]] = []  # tokens, end and pauses of each step whose log is still to come
        self.began = self.since = self.step_ended = 0.0
        self.pause = self.paused = 0.0  # seconds of evaluations and checkpoints: since the last step, and before it since the last log
        self.first_step = 0
        self.goes_on = False  # from a checkpoint, and no line says so yet

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any) -> None:
        self.tokens = TokenCount(model)
        self.began = self.since = self.step_ended = time.monotonic()
        self.first_step = state.global_step
        self.goes_on = state.global_step > 0
        if self.leads:
            cut_torn_line(self.run_dir.progress)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.paused, self.pause, self.step_ended = self.paused + self.pause, 0.0, time.monotonic()
        if control.should_log and self.tokens is not None:
            self.counted.append((self.tokens.take(), self.step_ended, self.paused))
            self.paused = 0.0

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.pause = time.monotonic() - self.step_ended

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.pause = time.monotonic() - self.step_ended

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict[str, Any] | None = None, **_: Any) -> None:
        logs = logs or {}
        if "loss" not in logs and "eval_loss" not in logs:
            return
        entry = {"step": state.global_step, "of": state.max_steps, "time": round(time.time(), 3)}
        entry |= {ours: logs[theirs] for theirs, ours in ALL_KEPT.items() if theirs in logs}
        if "loss" in logs:
            entry |= self.rate(state)
        if self.goes_on:
            entry["resumed_from"], self.goes_on = self.first_step, False
        if self.leads:
            with self.run_dir.progress.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
        refuse_nan(entry, int(args.logging_steps), self.history)

    def rate(self, state: TrainerState) -> dict[str, float]:
        assert self.tokens is not None, "training has begun"
        tokens, ended, paused = self.counted.pop(0) if self.counted else (self.tokens.take(), time.monotonic(), self.pause)
        every, real = total(tokens).tolist()
        seconds, self.since = max(ended - self.since - paused, 1e-9), ended  # of the steps themselves: logs may come late, and two at once
        per_step = (ended - self.began) / max(1, state.global_step - self.first_step)
        return {
            "tokens_per_second": round(real / seconds, 1),
            "padding": round(1 - real / every, 4) if every else 0.0,
            "eta_seconds": round(per_step * (state.max_steps - state.global_step), 1),
        }


def refuse_nan(entry: dict[str, Any], interval: int, history: Callable[[], str]) -> None:
    """The logged loss is the mean over ranks, so every rank stops at the same step, and over the steps since the last log."""
    step = entry["step"]
    steps = {"loss": f"at step {step}" if interval == 1 else f"in steps {max(1, step - interval + 1)} to {step}", "eval_loss": f"at step {step}"}
    for key, when in steps.items():
        if key in entry and not math.isfinite(entry[key]):
            known = history()
            raise NotANumber(
                f"{key} is {entry[key]} {when}, and nothing was saved from this step. {known}{' ' if known else ''}"
                "Start a new run with a lower optim.lr, or with training.precision=bf16_amp instead of fp16_amp. "
                "At the same rate this run would give the same result again."
            )
