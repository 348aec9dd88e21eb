"""Sweeps by the names that people give them: a folder, the time of its start, or last."""

from collections.abc import Iterator
from pathlib import Path

from conf.run_dir import RunDir
from launcher.errors import ConfigError
from launcher.launch.places import in_words, places
from launcher.launch.status import find_runs
from launcher.sweep.ledger import FOLDER, SweepDir


def find_sweeps(output: Path | None) -> Iterator[SweepDir]:
    """Every sweep folder under `output`, oldest first; None: under every place that this working folder has used."""
    files = [file for place in places(output) for file in place.glob(f"{FOLDER}/*/ledger.jsonl")]
    for folder in sorted({file.parent.absolute() for file in files}, key=lambda folder: (folder.name, folder)):
        yield SweepDir(folder)


def sweep_at(name: str | None) -> SweepDir | None:
    """The sweep of that folder; None for every other name: the time of a sweep can be that of a run too."""
    sweep_dir = SweepDir(Path(name or "").expanduser().absolute())
    return sweep_dir if name and sweep_dir.ledger.is_file() else None


def sweep_named(name: str, output: Path | None) -> SweepDir | None:
    """The sweep of that folder or of that time; None where there is none."""
    return sweep_at(name) or next((sweep for sweep in find_sweeps(output) if sweep.path.name == name), None)


def meant_sweep(name: str | None, output: Path | None) -> SweepDir | None:
    """The sweep that a verb of runs means by a name: its folder, or its time where no run has that name; None for every other name.

    Raises:
        ConfigError: for the time of a sweep that is the name of a run too.
    """
    if name in (None, "last") or sweep_at(name) is not None:
        return sweep_at(name)
    sweep = sweep_named(str(name), output)
    runs = [run.path for run in find_runs(output) if name in (run.path.parent.name, run.path.name)] if sweep is not None else []
    if sweep is not None and runs:
        raise ConfigError(f"{name} is the time of a sweep, {sweep.path}, and of a run, {runs[-1]}. Name the folder that you mean.")
    return sweep


def named_sweep(name: str, output: Path | None) -> SweepDir:
    """The sweep that `train -m resume=` means, also `last`.

    Raises:
        ConfigError: where there is none.
    """
    sweeps = list(find_sweeps(output))
    found = sweeps[-1] if name == "last" and sweeps else sweep_named(name, output)
    if found is not None:
        return found
    if RunDir(Path(name).expanduser()).run_yaml.is_file():
        raise ConfigError(f"{name} is a run, and -m goes on with a sweep. Write: regimen train resume={name}")
    newest = f" The newest sweep is {sweeps[-1].path}." if sweeps else f" There is no sweep under {in_words(places(output))}."
    raise ConfigError(f"{name} is not the folder of a sweep.{newest}")
