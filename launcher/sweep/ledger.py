"""The folder of a sweep: which point is which run, written as it goes and read by a later start, and the table at its end."""

import contextlib
import json
import os
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from conf.records import is_number, is_time, is_whole, read_lines
from conf.run_dir import RunDir, cut_torn_line, write_text_atomically
from conf.secrets import masked_in
from launcher.errors import ConfigError, DiskError
from launcher.sweep.points import Point, Result
from launcher.sweep.processes import Running

START, BEGUN = "sweep", "started"  # events: the sweep starts; a point of it does
FOLDER = "sweeps"  # below the output folder


@dataclass(frozen=True)
class SweepDir:
    path: Path
    made: tuple[Path, ...] = ()  # folders that were made for it, the innermost first

    @property
    def ledger(self) -> Path:
        return self.path / "ledger.jsonl"

    @property
    def table(self) -> Path:
        return self.path / "table.txt"

    @property
    def summary(self) -> Path:
        return self.path / "sweep.json"

    @property
    def page(self) -> Path:
        return self.path / "sweep.html"

    @property
    def stop(self) -> Path:
        """A request to save and stop, from `regimen stop`."""
        return self.path / "stop"

    @property
    def lockable(self) -> RunDir:
        """The same folder, as launcher/launch/lock.py has it."""
        return RunDir(self.path)


@dataclass(frozen=True)
class Start:
    """How a sweep was started: what the next start needs."""

    overrides: tuple[str, ...]
    config_dirs: tuple[Path, ...]
    working_folder: str  # relative paths of the overrides mean folders below it


def make_sweep_dir(output: Path) -> SweepDir:
    """A new folder under output/sweeps.

    Raises:
        DiskError: where it cannot be made.
    """
    stamp, around = time.strftime("%Y-%m-%d_%H-%M-%S"), output.absolute() / FOLDER
    made = tuple(folder for folder in (around, *around.parents) if not folder.exists())
    for attempt in range(1000):
        path = around / (stamp if attempt == 0 else f"{stamp}-{attempt}")
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise DiskError(f"{path} cannot be made: {error.strerror}. Set output= to a folder that you may write to.") from error
        return SweepDir(path, made)
    raise DiskError(f"{around} cannot hold another folder of this second. Set a different output=.")


def remove(sweep_dir: SweepDir) -> None:
    """The folder of a sweep that came to no point, and those that were made for it alone."""
    shutil.rmtree(sweep_dir.path)
    with contextlib.suppress(OSError):  # something else is in it by now
        for folder in sweep_dir.made:
            folder.rmdir()


def record(sweep_dir: SweepDir, event: str, **facts: Any) -> None:
    """Append one event and make it durable."""
    line = json.dumps({"time": round(time.time(), 3), "event": event, **masked_in(facts)}) + "\n"
    cut_torn_line(sweep_dir.ledger)
    with sweep_dir.ledger.open("a", encoding="utf-8") as file:
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


def record_sweep(sweep_dir: SweepDir, start: Start) -> None:
    folders = [str(folder.absolute()) for folder in start.config_dirs]
    record(sweep_dir, START, overrides=list(start.overrides), config_dirs=folders, working_folder=start.working_folder)


def record_start(sweep_dir: SweepDir, running: Running) -> None:
    record(sweep_dir, BEGUN, **facts_of(running.point, running.run_dir), gpus=list(running.gpus))


def record_result(sweep_dir: SweepDir, result: Result) -> None:
    measured = {"objective": result.objective, "measure": result.measure}
    refused = {"refusal": result.refusal, "fits": list(result.fits)} if result.state == "refused" else {}
    ended = {"cause": result.cause, "seconds": round(result.seconds, 1), **refused}
    record(sweep_dir, result.state, **facts_of(result.point, result.run_dir), **measured, **ended)


def facts_of(point: Point, run_dir: RunDir | None) -> dict[str, Any]:
    about = {"point": point.number, "overrides": list(point.overrides), "varied": list(point.varied), "fingerprint": point.fingerprint}
    return {**about, "run_folder": str(run_dir.path) if run_dir else None}


def events(sweep_dir: SweepDir) -> list[dict[str, Any]]:
    """The lines that this version can read; a damaged one counts as absent."""
    return read_lines(sweep_dir.ledger, is_event).entries


def is_event(entry: dict[str, Any]) -> bool:
    known = is_time(entry.get("time")) and isinstance(entry.get("event"), str) and texts(entry.get("overrides"))
    if entry.get("event") == START:
        return known and texts(entry.get("config_dirs", [])) and isinstance(entry.get("working_folder", ""), str)
    named = (
        is_whole(entry.get("point"))
        and texts(entry.get("varied", []))
        and texts(entry.get("fits", []))
        and isinstance(entry.get("fingerprint", ""), str)
    )
    return known and named and all(entry.get(key) is None or is_number(entry[key]) for key in ("objective", "seconds", "refusal"))


def texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def newest_start(sweep_dir: SweepDir) -> Start:
    """
    Raises:
        ConfigError: where the ledger does not say how the sweep was started.
    """
    starts = [event for event in events(sweep_dir) if event["event"] == START]
    if not starts:
        raise ConfigError(f"{sweep_dir.ledger} does not say how the sweep was started. It is damaged. Start a new sweep.")
    newest = starts[-1]
    return Start(tuple(newest["overrides"]), tuple(map(Path, newest.get("config_dirs", []))), newest.get("working_folder", ""))


def results(sweep_dir: SweepDir) -> list[Result]:
    """Each point as its newest line has it, in the order of the numbers. A point without a recorded end is `running`."""
    newest = {event["point"]: event for event in events(sweep_dir) if event["event"] != START}
    return [result_in(newest[number]) for number in sorted(newest)]


def result_in(event: dict[str, Any]) -> Result:
    point = Point(event["point"], tuple(event["overrides"]), tuple(event.get("varied", [])), event.get("fingerprint", ""))
    folder = event.get("run_folder")
    measured, ended = (event.get("objective"), str(event.get("measure") or "")), (str(event.get("cause") or ""), float(event.get("seconds") or 0))
    state = "running" if event["event"] == BEGUN else event["event"]
    result = Result(point, state, *measured, RunDir(Path(folder)) if folder else None, *ended, fits=tuple(event.get("fits", [])))
    return result if event.get("refusal") is None else replace(result, refusal=event["refusal"])


def write(path: Path, text: str) -> None:
    """Raises DiskError where the file cannot be written; what the ledger holds is safe."""
    try:
        write_text_atomically(path, text)
    except OSError as error:
        raise DiskError(f"{path} cannot be written: {error.strerror}. {path.parent / 'ledger.jsonl'} has every result.") from error
