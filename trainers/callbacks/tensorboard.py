"""Metrics as files of TensorBoard in the run folder. Nothing that happens to them ends a run: progress.jsonl has everything."""

from collections.abc import Callable
from typing import Any

from transformers.integrations import TensorBoardCallback

from conf.run_dir import RunDir
from trainers.callbacks.tracking import first_line
from trainers.ranks.notes import tell


class TensorBoard(TensorBoardCallback):
    """Of the first rank. The first error is said, and then nothing more is written there."""

    def __init__(self, run_dir: RunDir) -> None:
        super().__init__()
        self.run_dir, self.failed = run_dir, False

    def on_train_begin(self, *given: Any, **named: Any) -> None:
        self.guarded(super().on_train_begin, *given, **named)

    def on_log(self, *given: Any, **named: Any) -> None:
        self.guarded(super().on_log, *given, **named)

    def on_train_end(self, *given: Any, **named: Any) -> None:
        self.guarded(super().on_train_end, *given, **named)

    def guarded(self, event: Callable[..., None], *given: Any, **named: Any) -> None:
        if self.failed:
            return
        try:
            event(*given, **named)
        except Exception as error:  # noqa: BLE001 - whatever the library raises, the training goes on
            self.failed = True
            why = f"{type(error).__name__}: {first_line(error)} Nothing more is written there, and the training goes on."
            tell(self.run_dir, [f"WARNING: tracking=tensorboard: {why} All metrics are in {self.run_dir.progress}."])
