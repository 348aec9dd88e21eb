"""rows/rank-N.jsonl: which rows each step of this rank was made of, so that their order can be proven."""

import json
import os
from typing import Any, TextIO

from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from conf.run_dir import RunDir, cut_torn_line
from trainers.ranks.place import Place


class Rows(TrainerCallback):
    """A line a step. Steps that are made again after a resume are written again: with the same rows, or the order is broken."""

    def __init__(self, run_dir: RunDir, place: Place) -> None:
        self.path = run_dir.rows_file(place.rank)
        self.trainer: Trainer | None = None
        self.file: TextIO | None = None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.path.parent.mkdir(exist_ok=True)
        cut_torn_line(self.path)
        self.file = self.path.open("a", encoding="utf-8")

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        assert self.file is not None, "training has begun"
        line = {"step": state.global_step, "rows": list(getattr(self.trainer, "step_rows", ()))}
        self.file.write(json.dumps(line, separators=(",", ":")) + "\n")
        if control.should_log:
            self.file.flush()

    def keep(self) -> None:
        """What was written is on disk when this returns: no checkpoint is committed whose rows are not known."""
        if self.file is not None:
            self.file.flush()
            os.fsync(self.file.fileno())

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.keep()
