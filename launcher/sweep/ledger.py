"""The folder of a sweep: which point is which run, written as it goes, and the table at its end."""

import json
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conf.run_dir import RunDir, write_text_atomically
from conf.secrets import masked_in
from launcher.errors import DiskError
from launcher.sweep.points import Point, Result
from launcher.sweep.processes import Running


@dataclass(frozen=True)
class SweepDir:
    path: Path

    @property
    def ledger(self) -> Path:
        return self.path / "ledger.jsonl"

    @property
    def table(self) -> Path:
        return self.path / "table.txt"


def make_sweep_dir(output: Path) -> SweepDir:
    """A new folder under output/sweeps.

    Raises:
        DiskError: where it cannot be made.
    """
    stamp = time.strftime("%Y-%m-%d_%H-%M-%S")
    for attempt in range(1000):
        path = output.absolute() / "sweeps" / (stamp if attempt == 0 else f"{stamp}-{attempt}")
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise DiskError(f"{path} cannot be made: {error.strerror}. Set output= to a folder that you may write to.") from error
        return SweepDir(path)
    raise DiskError(f"{output / 'sweeps'} cannot hold another folder of this second. Set a different output=.")


def record(sweep_dir: SweepDir, event: str, **facts: Any) -> None:
    """Append one event and make it durable."""
    line = json.dumps({"time": round(time.time(), 3), "event": event, **masked_in(facts)}) + "\n"
    with sweep_dir.ledger.open("a", encoding="utf-8") as file:
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


def record_start(sweep_dir: SweepDir, running: Running) -> None:
    record(sweep_dir, "started", **facts_of(running.point, running.run_dir), gpus=list(running.gpus))


def record_result(sweep_dir: SweepDir, result: Result) -> None:
    measured = {"objective": result.objective, "measure": result.measure}
    record(sweep_dir, result.state, **facts_of(result.point, result.run_dir), **measured, cause=result.cause, seconds=round(result.seconds, 1))


def facts_of(point: Point, run_dir: RunDir | None) -> dict[str, Any]:
    return {"point": point.number, "overrides": list(point.overrides), "run_folder": str(run_dir.path) if run_dir else None}


def write_table(sweep_dir: SweepDir, lines: Sequence[str]) -> None:
    write_text_atomically(sweep_dir.table, "\n".join(lines) + "\n")


def remove(sweep_dir: SweepDir) -> None:
    shutil.rmtree(sweep_dir.path)
