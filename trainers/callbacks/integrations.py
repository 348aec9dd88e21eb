"""Metrics for MLflow, SwanLab, Trackio and Comet by transformers' own integrations, each in a thread of its own (tracking.py).

These libraries read their folders and names from environment variables. A variable that the user has set is kept.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from transformers import TrainerCallback, TrainerControl, TrainerState
from transformers.integrations import CometCallback, MLflowCallback, SwanLabCallback, TrackioCallback

from conf.run_dir import RunDir, write_text_atomically
from conf.run_values import run_as_dict
from conf.schema import Run
from conf.trackers import trackers
from trainers.callbacks.tensorboard import TensorBoard
from trainers.callbacks.tracking import Tracker, Wandb, first_line, tracked_id


@dataclass(frozen=True)
class Arguments:
    """What the integrations read of the Trainer's arguments. The run itself stands in the place of these, as for Weights & Biases."""

    described: Mapping[str, Any]
    run_name: str
    project: str
    resume_from_checkpoint: None = None
    hub_private_repo: None = None
    trackio_space_id: str | None = None
    trackio_bucket_id: None = None
    trackio_static_space_id: bool = False  # no copy of a Space is made after the training

    def to_dict(self) -> dict[str, Any]:
        return dict(self.described)


class Integrated(Tracker):
    integration: ClassVar[type[TrainerCallback]]
    offline: ClassVar[Mapping[str, str]] = {}  # the variables by which the library keeps all on disk; empty: it has no such mode

    def settings(self) -> Mapping[str, str | None]:
        """Variables of the environment; None: the library decides."""
        raise NotImplementedError

    def begin(self) -> None:
        """The run at the server; where that does not answer, one on disk if the library has that."""
        for name, value in self.settings().items():
            if value is not None:
                os.environ.setdefault(name, value)
        self.arguments = Arguments(self.described(), self.run_name, self.run.tracking.project or "huggingface")
        try:
            self.start()
        except Exception as error:  # refused, unreachable, without a key: all the same here
            if all(os.environ.get(name) == value for name, value in self.offline.items()):
                raise
            self.say(f"{type(error).__name__}: {first_line(error)} The metrics are kept on disk. {self.later()}")
            os.environ.update(self.offline)
            self.start()

    def described(self) -> dict[str, Any]:
        """The settled run, a value for each key: `optim.lr`."""
        groups = run_as_dict(self.run)
        return {f"{group}.{key}": value for group, rows in groups.items() if isinstance(rows, dict) for key, value in rows.items()}

    def start(self) -> None:
        self.inner = self.integration()
        self.inner.on_train_begin(self.arguments, TrainerState(is_world_process_zero=True), TrainerControl())

    def log(self, logs: dict[str, Any], state: TrainerState) -> None:
        self.inner.on_log(self.arguments, state, TrainerControl(), logs=logs)

    def finish(self) -> None:
        self.inner.on_train_end(self.arguments, TrainerState(is_world_process_zero=True), TrainerControl())


class MLflow(Integrated):
    """The server chooses the id of a run, and it takes parameters once: those of the first start stay."""

    name, integration = "mlflow", MLflowCallback

    def settings(self) -> Mapping[str, str | None]:
        known = self.run_dir.tracked(self.name)
        store = {"MLFLOW_TRACKING_URI": f"sqlite:///{self.run_dir.tracking / 'mlflow.db'}"}
        if known.exists():
            return {**store, "MLFLOW_RUN_ID": known.read_text(encoding="utf-8").strip()}
        return {**store, "MLFLOW_EXPERIMENT_NAME": self.run.tracking.project}

    def described(self) -> dict[str, Any]:
        return {} if self.run_dir.tracked(self.name).exists() else super().described()

    def start(self) -> None:
        import mlflow

        self.run_dir.tracking.mkdir(exist_ok=True)
        super().start()
        write_text_atomically(self.run_dir.tracked(self.name), mlflow.active_run().info.run_id + "\n")

    def finish(self) -> None:
        import mlflow

        mlflow.flush_async_logging()
        super().finish()


class SwanLab(Integrated):
    name, integration = "swanlab", SwanLabCallback
    offline: ClassVar[Mapping[str, str]] = {"SWANLAB_MODE": "offline"}

    def settings(self) -> Mapping[str, str | None]:
        return {
            "SWANLAB_LOG_DIR": str(self.run_dir.tracking / "swanlab"),
            "SWANLAB_INTERACTIVE": "false",  # nobody answers a rank's question for a key
            "SWANLAB_TERMINAL_PROXY_TYPE": "none",  # nothing stands in the place of this process's output: log/rank-0.txt has it
        }

    def start(self) -> None:
        """transformers asks for the active run before it makes one, which SwanLab 0.10 answers with an error: so there is one."""
        import swanlab

        named = {"project": self.run.tracking.project, "workspace": self.run.tracking.entity}
        known = tracked_id(self.run_dir, {}, self.name, size=16)
        swanlab.init(name=self.run_name, id=known, resume="allow", mode=os.environ.get("SWANLAB_MODE"), **named)
        super().start()

    def finish(self) -> None:
        import swanlab

        super().finish()
        swanlab.finish()

    def later(self) -> str:
        return f"Send them later with: swanlab sync {self.run_dir.tracking / 'swanlab'}/run-*"


class Trackio(Integrated):
    """It always writes to disk first, and sends that to the Space of TRACKIO_SPACE_ID if there is one."""

    name, integration = "trackio", TrackioCallback

    def settings(self) -> Mapping[str, str | None]:
        return {"TRACKIO_DIR": str(self.run_dir.tracking / "trackio")}


class Comet(Integrated):
    name, integration = "comet", CometCallback
    offline: ClassVar[Mapping[str, str]] = {"COMET_START_ONLINE": "0"}

    def settings(self) -> Mapping[str, str | None]:
        return {
            "COMET_EXPERIMENT_KEY": tracked_id(self.run_dir, {}, self.name, size=16),
            "COMET_PROJECT_NAME": self.run.tracking.project,
            "COMET_WORKSPACE": self.run.tracking.entity,
            "COMET_OFFLINE_DIRECTORY": str(self.run_dir.tracking / "comet"),
            "COMET_DISABLE_AUTO_LOGGING": "1",  # it would put its own function in the place of torch's backward
            "COMET_AUTO_LOG_CODE": "false",  # of the working folder, and its differences from the last commit: nobody asked for them
            "COMET_AUTO_LOG_GIT_METADATA": "false",
            "COMET_AUTO_LOG_GIT_PATCH": "false",
            "COMET_AUTO_LOG_OUTPUT_LOGGER": "",  # nothing stands in the place of this process's output, which log/rank-0.txt has
            "COMET_AUTO_LOG_ENV_DETAILS": "false",  # packages, addresses, and a question to the cloud's server of metadata
        }

    def finish(self) -> None:
        super().finish()
        self.inner._experiment.end()

    def later(self) -> str:
        return f"Send them later with: comet upload {self.run_dir.tracking / 'comet'}/*.zip"


OF_NAME: Mapping[str, type[Tracker]] = {made.name: made for made in (Wandb, MLflow, SwanLab, Trackio, Comet)}


def trackers_of(run: Run, run_dir: RunDir) -> list[TrainerCallback]:
    return [TensorBoard(run_dir) if name == "tensorboard" else OF_NAME[name](run, run_dir) for name in trackers(run.tracking)]
