"""The folder a run lives in: every file name, and the run.yaml that both the launcher and the ranks read."""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from conf.new_keys import with_new_keys
from conf.run_values import as_settled, composed_from_dict, run_as_dict
from conf.schema import Composed, Run


@dataclass(frozen=True)
class RunDir:
    path: Path

    @property
    def run_yaml(self) -> Path:
        return self.path / "run.yaml"

    @property
    def plan(self) -> Path:
        return self.path / "plan.json"

    @property
    def journal(self) -> Path:
        return self.path / "journal.jsonl"

    @property
    def progress(self) -> Path:
        return self.path / "progress.jsonl"

    @property
    def memory(self) -> Path:
        return self.path / "memory.json"

    @property
    def notes(self) -> Path:
        """What the first rank has to tell the user before training: a line each."""
        return self.path / "notes.txt"

    @property
    def samples(self) -> Path:
        return self.path / "generations.json"

    @property
    def stop(self) -> Path:
        return self.path / "stop"

    @property
    def hold(self) -> Path:
        """While it is there, another run has the GPUs of this one: its ranks load their libraries and wait."""
        return self.path / "hold"

    @property
    def lock(self) -> Path:
        return self.path / "lock"

    @property
    def heartbeat(self) -> Path:
        return self.path / "heartbeat"

    @property
    def accelerate_config(self) -> Path:
        return self.path / "accelerate.yaml"

    @property
    def batch_script(self) -> Path:
        return self.path / "train.sbatch"

    @property
    def logs(self) -> Path:
        return self.path / "log"

    def rank_log(self, rank: int) -> Path:
        return self.logs / f"rank-{rank}.txt"

    def stacks(self, rank: int) -> Path:
        """Where each thread of the rank stood when it was asked, because some rank had stopped."""
        return self.logs / f"stacks-{rank}.txt"

    @property
    def hang_log(self) -> Path:
        return self.logs / "hang.txt"

    @property
    def signs(self) -> Path:
        """What each rank is doing, written anew twice a second."""
        return self.path / "signs"

    def sign(self, rank: int) -> Path:
        return self.signs / f"rank-{rank}.json"

    @property
    def launcher_log(self) -> Path:
        return self.logs / "launcher.txt"

    @property
    def exits(self) -> Path:
        return self.path / "exit"

    def exit_file(self, rank: int) -> Path:
        return self.exits / f"rank-{rank}.json"

    def exit_reserve(self, rank: int) -> Path:
        """What a rank holds of the disk for its exit file."""
        return self.exits / f".reserve-rank-{rank}"

    def host_file(self, node_rank: int) -> Path:
        """Of cluster=hosts: that a machine has begun, and how its agent ended."""
        return self.exits / f"host-{node_rank}.json"

    @property
    def hosts_failure(self) -> Path:
        """Of cluster=hosts: why the shares of all machines are ended."""
        return self.exits / "hosts.json"

    @property
    def reserve(self) -> Path:
        """What the run holds of the disk for the end of its journal."""
        return self.path / ".reserve"

    @property
    def layouts(self) -> Path:
        """What each rank found itself to be: world size, wrapper, dtypes."""
        return self.path / "layout"

    def layout_file(self, rank: int) -> Path:
        return self.layouts / f"rank-{rank}.json"

    @property
    def doing(self) -> Path:
        """What the run does outside of its steps (reading data, loading weights, ...), a line each time that this changes."""
        return self.layouts / "doing.jsonl"

    @property
    def peaks(self) -> Path:
        """Measured memory of each rank, gathered into memory.json at the end."""
        return self.path / "peak"

    def peak_file(self, rank: int) -> Path:
        return self.peaks / f"rank-{rank}.json"

    def rows_file(self, rank: int) -> Path:
        """Which rows of the prepared data each step of that rank was made of."""
        return self.path / "rows" / f"rank-{rank}.jsonl"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def checkpoint(self, step: int) -> Path:
        return self.checkpoints / f"step-{step}"

    @property
    def base(self) -> Path:
        """The random weights that an adapter was trained on: without them it could not be loaded back."""
        return self.path / "base"

    @property
    def initial_adapter(self) -> Path:
        """An adapter that changed its base when it was made, as it was before training."""
        return self.path / "initial_adapter"

    @property
    def model(self) -> Path:
        return self.path / "model"

    @property
    def exports(self) -> Path:
        return self.path / "exports"

    @property
    def predictions(self) -> Path:
        return self.path / "predictions"

    @property
    def evaluations(self) -> Path:
        """Results of evaluation tasks, made after training."""
        return self.path / "evaluations"

    @property
    def prepared(self) -> Path:
        """Tokenised data, made by rank 0 and read by the others."""
        return self.path / "prepared"

    @property
    def data_key(self) -> Path:
        """Of a finished run: the key of its tokenised data, by which a longer one knows that the data is the same."""
        return self.path / "data_key.txt"

    @property
    def tracking(self) -> Path:
        return self.path / "tracking"

    def tracked(self, tracker: str) -> Path:
        """The id of the run there."""
        return self.tracking / f"{tracker}-id.txt"

    @property
    def plots(self) -> Path:
        return self.path / "plots"

    @property
    def loss_plot(self) -> Path:
        return self.plots / "loss.png"

    @property
    def memory_plot(self) -> Path:
        return self.plots / "memory.png"


def write_text_atomically(path: Path, text: str) -> None:
    """Replace `path` by `text`, or leave it as it was: a reader never sees half of it.

    Raises:
        OSError: when the folder cannot be written.
    """
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def cut_torn_line(path: Path) -> None:
    """Remove a last line without its end, as a full disk or a killed writer leaves it. Otherwise the next line would be lost in it."""
    if not path.exists():
        return
    with path.open("rb+") as file:
        text = file.read()
        whole = text.rfind(b"\n") + 1
        if whole < len(text):
            file.truncate(whole)


def save_run(run: Composed, run_dir: RunDir) -> None:
    write_text_atomically(run_dir.run_yaml, yaml.safe_dump(run_as_dict(run), sort_keys=False, allow_unicode=True))


def load_composed(run_dir: RunDir) -> Composed:
    """Read run.yaml back. A key that is newer than the file has its default.

    Raises:
        FileNotFoundError: where the folder holds no run.
        yaml.YAMLError, KeyError, omegaconf.errors.OmegaConfBaseException: when run.yaml was damaged or belongs to another version.
    """
    return composed_from_dict(with_new_keys(recorded_values(run_dir)))


def recorded_values(run_dir: RunDir) -> dict[str, Any]:
    """What run.yaml holds.

    Raises:
        FileNotFoundError, yaml.YAMLError: as load_composed.
        TypeError: where it is not a table.
    """
    values = yaml.safe_load(run_dir.run_yaml.read_text(encoding="utf-8"))
    if not isinstance(values, dict):
        raise TypeError(f"{run_dir.run_yaml.name} is not a table")
    return values


def load_run(run_dir: RunDir) -> Run:
    """Read back the run.yaml of a settled run, which is every run that trains.

    Raises:
        ValueError: where a key is still open; otherwise as load_composed.
    """
    return as_settled(load_composed(run_dir))
