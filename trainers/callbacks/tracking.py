"""Metrics for trackers. The training never waits for a server, and nothing that happens there ends a run: progress.jsonl has everything.

One thread for each tracker speaks to its library. What Weights & Biases does not take stays in the run folder, from where
`wandb sync` sends it later. The other trackers: integrations.py beside this file.
"""

import os
import threading
from collections.abc import Mapping
from copy import copy
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


class Tracker(TrainerCallback):
    """Of the first rank: a thread that begins, logs and finishes as a subclass says."""

    name: str  # as tracking names it

    def __init__(self, run: Run, run_dir: RunDir, answer_seconds: float = ANSWER_SECONDS, finish_seconds: float = FINISH_SECONDS) -> None:
        self.run, self.run_dir = run, run_dir
        self.answer_seconds, self.finish_seconds = answer_seconds, finish_seconds
        self.begun = threading.Event()
        self.work: SimpleQueue[tuple[dict[str, Any], TrainerState] | None] = SimpleQueue()  # None: the end
        self.thread = threading.Thread(target=self.speak, name=self.name, daemon=True)

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if not self.thread.is_alive():
            self.thread.start()

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict[str, Any] | None = None, **_: Any) -> None:
        self.work.put((dict(logs or {}), copy(state)))

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.work.put(None)
        self.begun.wait(self.answer_seconds + self.finish_seconds)
        self.thread.join(self.finish_seconds if self.begun.is_set() else 0)
        if self.thread.is_alive():
            known = self.later() if self.begun.is_set() else ""
            self.say(f"the server did not take everything within {self.finish_seconds:.0f} s after the training. {known or self.everything()}")

    def speak(self) -> None:
        """The thread. An error is said and ends only this."""
        try:
            self.begin()
            self.begun.set()
            while (given := self.work.get()) is not None:
                self.log(*given)
            self.finish()
        except Exception as error:  # noqa: BLE001 - whatever the library raises, the training goes on
            why = f"{type(error).__name__}: {first_line(error)}"
            self.say(f"{why} Nothing more is sent, and the training goes on. {self.everything()}")
            self.begun.set()

    def begin(self) -> None:
        raise NotImplementedError

    def log(self, logs: dict[str, Any], state: TrainerState) -> None:
        raise NotImplementedError

    def finish(self) -> None:
        raise NotImplementedError

    def later(self) -> str:
        """How what was not taken is sent after the run; empty: not at all."""
        return ""

    def everything(self) -> str:
        return f"All metrics are in {self.run_dir.progress}."

    def say(self, text: str) -> None:
        tell(self.run_dir, [f"WARNING: tracking={self.name}: {text}"])

    @property
    def run_name(self) -> str:
        return f"{self.run_dir.path.parent.name}/{self.run_dir.path.name}"


class Wandb(Tracker):
    """Raises wandb.errors.UsageError where no API key is configured for a server."""

    name = "wandb"

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        refuse_without_key()

    def begin(self) -> None:
        """The run at the server; where that does not answer, one on disk."""
        import wandb

        options: dict[str, Any] = {
            "id": tracked_id(self.run_dir, os.environ),
            "resume": "allow",  # a run that goes on goes on there too
            "name": self.run_name,
            "project": self.run.tracking.project,
            "entity": self.run.tracking.entity,
            "dir": str(self.run_dir.path),
            "config": run_as_dict(self.run),
            "settings": wandb.Settings(init_timeout=self.answer_seconds, silent=True),
        }
        try:
            self.tracked = wandb.init(**options)
        except Exception as error:  # noqa: BLE001 - refused, unreachable, silent: all the same here
            self.say(f"{type(error).__name__}: {first_line(error)} The metrics are kept on disk. {self.later()}")
            wandb.teardown()  # its service still holds the id
            self.tracked = wandb.init(**{**options, "mode": "offline", "resume": None})
        self.tracked.define_metric(STEP)
        self.tracked.define_metric("*", step_metric=STEP, step_sync=True)

    def log(self, logs: dict[str, Any], state: TrainerState) -> None:
        self.tracked.log({**rewrite_logs(logs), STEP: state.global_step})

    def finish(self) -> None:
        self.tracked.finish()

    def later(self) -> str:
        return f"Send them later with: wandb sync {self.run_dir.path / 'wandb'}/*run-*"


def refuse_without_key() -> None:
    """Raises wandb.errors.UsageError where the library would ask for a key. Nothing is sent."""
    import wandb

    if wandb.setup().settings.mode == "online" and not wandb.login(prompt=False, verify=False):
        raise wandb.errors.UsageError("No API key configured.")


def tracked_id(run_dir: RunDir, environment: Mapping[str, str], tracker: str = "wandb", size: int = 4) -> str:
    """The same for every start of a run, of `size` random bytes; WANDB_RUN_ID chooses it. It stands in the run folder, which may be moved."""
    chosen = environment.get("WANDB_RUN_ID")
    if chosen:
        return chosen
    known = run_dir.tracked(tracker)
    if not known.exists():
        known.parent.mkdir(exist_ok=True)
        write_text_atomically(known, os.urandom(size).hex() + "\n")
    return known.read_text(encoding="utf-8").strip()


def first_line(error: Exception) -> str:
    line = next(iter(str(error).splitlines()), "").strip()
    return line if line.endswith(".") or not line else f"{line}."
