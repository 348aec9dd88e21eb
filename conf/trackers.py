"""Where metrics can go beside the run folder: one row for each tracker. How each is spoken to: trainers/callbacks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from conf.rows import row_of

if TYPE_CHECKING:
    from conf.schema import Tracking  # which would bring Hydra into what reads only the names of secrets

NONE = "none"


@dataclass(frozen=True)
class TrackerRow:
    module: str  # that is imported
    package: str  # that pip installs
    keys: tuple[str, ...] = ()  # of conf/schema.py that it reads
    secrets: tuple[str, ...] = ()  # variables of the environment that only runs with this tracker get


TRACKERS = {
    "tensorboard": TrackerRow("tensorboard", "tensorboard"),
    "wandb": TrackerRow("wandb", "wandb", ("project", "entity"), ("WANDB_API_KEY",)),
    "mlflow": TrackerRow("mlflow", "mlflow", ("project",), ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "DATABRICKS_TOKEN")),
    "swanlab": TrackerRow("swanlab", "swanlab", ("project", "entity"), ("SWANLAB_API_KEY",)),
    "trackio": TrackerRow("trackio", "trackio", ("project",), ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")),
    "comet": TrackerRow("comet_ml", "comet-ml", ("project", "entity"), ("COMET_API_KEY",)),
}


def tracker_row(name: str) -> TrackerRow:
    """Raises conf.rows.MissingRow."""
    return row_of(TRACKERS, "tracking", name, "TRACKERS in conf/trackers.py")


def trackers(tracking: Tracking) -> tuple[str, ...]:
    """The names of the run's trackers, in the order in which they were given."""
    return () if tracking.name == NONE else (tracking.name, *tracking.also)


def read_by_one(tracking: Tracking, key: str) -> bool:
    """Whether a tracker of the run reads this key of its own: project or entity."""
    return any(key in tracker_row(name).keys for name in trackers(tracking))
