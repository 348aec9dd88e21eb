"""Metrics for Weights & Biases. The training never waits for its server, and nothing that happens there ends a run: progress.jsonl has everything.

One thread speaks to the library. What it cannot send stays in the run folder, from where `wandb sync` sends it later.
"""

import os
import threading
from collections.abc import Callable, Mapping
from queue import SimpleQueue
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations.integration_utils import rewrite_logs

from conf.run_dir import RunDir, write_text_atomically
from conf.run_values import run_as_dict
from conf.schema import Run
from trainers.ranks.notes import tell

ANSWER_SECONDS = 90.0  # wandb's own init_timeout: from the first question to the server until it counts as absent
FINISH_SECONDS = 60.0  # at the end of the training, for what is still to be sent
STEP = "train/global_step"
Say = Callable[[str], None]


class Wandb(TrainerCallback):
    """Of the first rank.

    Raises:
        wandb.errors.UsageError: where no API key is configured for a server.
    """

    def __init__(self, run: Run, run_dir: RunDir, answer_seconds: float = ANSWER_SECONDS, finish_seconds: float = FINISH_SECONDS) -> None:
        self.run, self.run_dir = run, run_dir
        self.answer_seconds, self.finish_seconds = answer_seconds, finish_seconds
        self.begun = threading.Event()
        self.work: SimpleQueue[dict[str, Any] | None] = SimpleQueue()  # None: the end
        self.thread = threading.Thread(target=self.speak, name="wandb", daemon=True)
        refuse_without_key()

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if not self.thread.is_alive():
            self.thread.start()

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict[str, Any] | None = None, **_: Any) -> None:
        self.work.put({**rewrite_logs(logs or {}), STEP: state.global_step})

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.work.put(None)
        self.begun.wait(self.answer_seconds + self.finish_seconds)
        self.thread.join(self.finish_seconds if self.begun.is_set() else 0)
        if self.thread.is_alive():
            known = self.later() if self.begun.is_set() else f"All metrics are in {self.run_dir.progress}."
            self.say(f"the server did not take everything within {self.finish_seconds:.0f} s after the training. {known}")

    def speak(self) -> None:
        """The thread: begin, send what comes, finish. An error is said and ends only this."""
        try:
            tracked = self.begin()
            self.begun.set()
            while (logs := self.work.get()) is not None:
                tracked.log(logs)
            tracked.finish()
        except Exception as error:  # noqa: BLE001 - whatever the library raises, the training goes on
            why = f"{type(error).__name__}: {first_line(error)}"
            self.say(f"{why} Nothing more is sent, and the training goes on. All metrics are in {self.run_dir.progress}.")
            self.begun.set()

    def begin(self) -> Any:
        """The run at the server; where that does not answer, one on disk."""
        import wandb

        options: dict[str, Any] = {
            "id": tracked_id(self.run_dir, os.environ),
            "resume": "allow",  # a run that goes on goes on there too
            "name": f"{self.run_dir.path.parent.name}/{self.run_dir.path.name}",
            "project": self.run.tracking.project,
            "entity": self.run.tracking.entity,
            "dir": str(self.run_dir.path),
            "config": run_as_dict(self.run),
            "settings": wandb.Settings(init_timeout=self.answer_seconds, silent=True),
        }
        try:
            tracked = wandb.init(**options)
        except Exception as error:  # noqa: BLE001 - refused, unreachable, silent: all the same here
            self.say(f"{type(error).__name__}: {first_line(error)} The metrics are kept on disk. {self.later()}")
            wandb.teardown()  # its service still holds the id
            tracked = wandb.init(**{**options, "mode": "offline", "resume": None})
        tracked.define_metric(STEP)
        tracked.define_metric("*", step_metric=STEP, step_sync=True)
        return tracked

    def say(self, text: str) -> None:
        tell(self.run_dir, [f"WARNING: tracking=wandb: {text}"])

    def later(self) -> str:
        return f"Send them later with: wandb sync {self.run_dir.path / 'wandb'}/*run-*"


def refuse_without_key() -> None:
    """Raises wandb.errors.UsageError where the library would ask for a key. Nothing is sent."""
    import wandb

    if wandb.setup().settings.mode == "online" and not wandb.login(prompt=False, verify=False):
        raise wandb.errors.UsageError("No API key configured.")


def tracked_id(run_dir: RunDir, environment: Mapping[str, str]) -> str:
    """The same for every start of a run; WANDB_RUN_ID chooses it. It stands in the run folder, which may be moved."""
    chosen = environment.get("WANDB_RUN_ID")
    if chosen:
        return chosen
    if not run_dir.tracked.exists():
        run_dir.tracked.parent.mkdir(exist_ok=True)
        write_text_atomically(run_dir.tracked, os.urandom(4).hex() + "\n")
    return run_dir.tracked.read_text(encoding="utf-8").strip()


def first_line(error: Exception) -> str:
    line = next(iter(str(error).splitlines()), "").strip()
    return line if line.endswith(".") or not line else f"{line}."
