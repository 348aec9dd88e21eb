"""What runs will leave that have not ended yet, where a job of Slurm waits for them (cluster.after)."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from omegaconf.errors import OmegaConfBaseException

from conf.regimes import regime_row
from conf.run_dir import RunDir, load_run
from conf.schema import Composed, Freeze, Run, Slurm
from conf.vocabulary import vocabulary_rows
from launcher.errors import ConfigError


def awaited_run(run: Composed, path: str | None) -> RunDir | None:
    """The run that will have written what `path` names when the job starts; None where it is there already, or the job waits for no such run.

    Args:
        path: a run folder, or the folder `model` in it.

    Raises:
        ConfigError: where a run that is waited for cannot be read.
    """
    if path is None or not isinstance(run.cluster, Slurm) or run.cluster.after is None:
        return None
    given = Path(path).expanduser().absolute()
    found = next((RunDir(folder) for folder in (given, given.parent) if RunDir(folder).run_yaml.is_file()), None)
    if found is None or found.model.is_dir() or given not in (found.path, found.model):
        return None
    return found if found.path.resolve() in before(run.cluster.after) else None


def before(after: str) -> set[Path]:
    """The run that is named, and those that it waited for itself: all have ended well when the job starts."""
    return {folder.resolve() for folder in chain(Path(after).expanduser().absolute())}


def chain(folder: Path) -> Iterator[Path]:
    seen: set[Path] = set()
    while folder not in seen:
        seen.add(folder)
        yield folder
        cluster = recorded(RunDir(folder)).cluster
        if not isinstance(cluster, Slurm) or cluster.after is None:
            return
        folder = Path(cluster.after)


def recorded(run_dir: RunDir) -> Run:
    try:
        return load_run(run_dir)
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError, OmegaConfBaseException) as error:
        raise ConfigError(
            f"cluster.after: {run_dir.run_yaml} cannot be read ({next(iter(str(error).splitlines()), '')}). Name another run."
        ) from error


def architecture_left(path: str, run_dir: RunDir) -> dict[str, Any]:
    """The config.json that a run will leave with its model, as far as a plan reads it.

    Raises:
        ConfigError: for a run that will leave an adapter alone, or a model of another shape than its own.
    """
    run = recorded(run_dir)
    if regime_row(run.regime.name).learns == "an adapter":
        raise ConfigError(
            f"model.path={path}: the run there is of regime={run.regime.name} and will leave an adapter, which is not a whole model. "
            "Wait for its end and merge it (`regimen export`), or train it with regime=full."
        )
    if isinstance(run.regime, Freeze) and run.regime.new_blocks:
        raise ConfigError(
            f"model.path={path}: the run there inserts blocks, so its model has another shape than its own. Submit this run after its end."
        )
    architecture = dict(run.model.architecture)
    if "vocab_size" in architecture:
        architecture["vocab_size"] = vocabulary_rows(run.model, architecture["vocab_size"])
    elif run.model.added_tokens or run.model.vocab_multiple > 1:
        raise ConfigError(f"model.path={path}: the run there changes its vocabulary, so its model has another shape. Submit this run after its end.")
    return architecture
