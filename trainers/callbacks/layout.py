"""Writes down what a rank turned out to be, once everything is wrapped and has made a step."""

from collections.abc import Callable
from typing import Any

from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from conf.run_dir import RunDir
from trainers.measures.layout import write_layout
from trainers.ranks.place import Place


class Layout(TrainerCallback):
    def __init__(self, trainer: Callable[[], Trainer], run_dir: RunDir, place: Place) -> None:
        self.trainer, self.run_dir, self.place = trainer, run_dir, place
        self.written = False

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if not self.written:
            self.written = True
            write_layout(self.trainer(), self.run_dir, self.place)
