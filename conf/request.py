"""What a verb other than training must do: the launcher writes it beside a run.yaml, `-m trainers.<verb> FOLDER` reads it."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from conf.run_dir import write_text_atomically

FILE = "request.json"


@dataclass(frozen=True)
class Trained:
    """The weights that a run left or began with, or a model folder that no run left."""

    run_folder: str
    weights: str  # folder of the final model, or of one committed checkpoint; of a base what it is called
    step: int | None  # of the checkpoint; None: the final model
    base: bool = False  # the model as it was before the run trained it

    @property
    def label(self) -> str:
        if self.base:
            return "base"
        return "final" if self.step is None else f"step-{self.step}"


@dataclass(frozen=True)
class Sampling:
    max_new_tokens: int
    temperature: float  # 0: always the likeliest token
    top_p: float
    seed: int


@dataclass(frozen=True)
class Export:
    trained: Trained
    form: str  # copy | merged | adapter
    target: str
    dtype: str | None  # fp32 | bf16 | fp16; None: as it was trained
    shard_size: int  # bytes of one safetensors file at most
    push: str | None  # hub repository
    private: bool
    commit: str | None  # git commit of the working folder


@dataclass(frozen=True)
class Predict:
    trained: Trained
    target: str
    batch: int
    held_out: bool  # only the samples that training did not see
    sampling: Sampling


@dataclass(frozen=True)
class Evaluate:
    trained: Trained
    target: str
    tasks: tuple[str, ...]
    include: str | None  # a folder of task files of the user's own
    shots: int | None  # examples before each question; None: as the task says
    limit: int | None  # samples a task
    batch: int
    chat: bool  # questions go through the chat template


@dataclass(frozen=True)
class Chat:
    trained: Trained
    system: str | None
    sampling: Sampling


@dataclass(frozen=True)
class Validate:
    as_json: bool
    picture: str | None  # the file to draw the lengths into


@dataclass(frozen=True)
class Prepare:
    pass


@dataclass(frozen=True)
class MakeUp:
    """Samples for a canary."""

    target: str
    count: int


def save_request(request: Export | Predict | Evaluate | Chat | Validate | Prepare | MakeUp, folder: Path) -> None:
    write_text_atomically(folder / FILE, json.dumps(asdict(request)))


def load_export(folder: Path) -> Export:
    return Export(**values_in(folder))


def load_predict(folder: Path) -> Predict:
    values = values_in(folder)
    return Predict(**{**values, "sampling": Sampling(**values["sampling"])})


def load_evaluate(folder: Path) -> Evaluate:
    values = values_in(folder)
    return Evaluate(**{**values, "tasks": tuple(values["tasks"])})


def load_chat(folder: Path) -> Chat:
    values = values_in(folder)
    return Chat(**{**values, "sampling": Sampling(**values["sampling"])})


def load_validate(folder: Path) -> Validate:
    return Validate(**json.loads((folder / FILE).read_text(encoding="utf-8")))


def load_prepare(folder: Path) -> Prepare:
    return Prepare(**json.loads((folder / FILE).read_text(encoding="utf-8")))


def load_make_up(folder: Path) -> MakeUp:
    return MakeUp(**json.loads((folder / FILE).read_text(encoding="utf-8")))


def values_in(folder: Path) -> dict[str, Any]:
    values = json.loads((folder / FILE).read_text(encoding="utf-8"))
    return {**values, "trained": Trained(**values["trained"])}
