"""Which weights a user means by RUN, RUN@step-N or last, and whether they can be used."""

import re
from dataclasses import dataclass
from pathlib import Path

from conf.committed import committed, step_of
from conf.constants import ADAPTER_CONFIG
from conf.request import Trained
from conf.run_dir import RunDir
from conf.schema import Run
from launcher.composition.recorded import recorded_run
from launcher.errors import ConfigError
from launcher.launch import status

AT_STEP = re.compile(r"(?P<run>.+)@step-(?P<step>[0-9]+)")


@dataclass(frozen=True)
class Found:
    run_dir: RunDir
    run: Run
    step: int | None  # None: the final model

    @property
    def weights(self) -> Path:
        return self.run_dir.model if self.step is None else self.run_dir.checkpoint(self.step)

    @property
    def is_adapter(self) -> bool:
        return (self.weights / ADAPTER_CONFIG).is_file()

    @property
    def as_request(self) -> Trained:
        return Trained(str(self.run_dir.path.absolute()), str(self.weights.absolute()), self.step)

    @property
    def label(self) -> str:
        return self.as_request.label


def find_trained(name: str, output: Path | None) -> Found:
    """The weights that `name` means.

    Raises:
        ConfigError: where there is no such run, no such checkpoint, or no final model yet.
    """
    at_step = AT_STEP.fullmatch(name)
    run_dir = status.named_run(at_step["run"] if at_step else name, output)
    found = Found(run_dir, recorded_run(run_dir), int(at_step["step"]) if at_step else None)
    if not found.weights.is_dir():
        raise ConfigError(absent(found, name))
    return found


def find_usable(name: str, output: Path | None) -> Found:
    """The weights that `name` means, with the base that an adapter needs.

    Raises:
        ConfigError: as find_trained, and where that base is gone.
    """
    found = find_trained(name, output)
    refuse_missing_base(found)
    return found


def absent(found: Found, name: str) -> str:
    steps = [f"step-{step}" for step in committed_steps(found.run_dir)]
    if found.step is not None:
        return f"{name}: step {found.step} is not a committed checkpoint. Committed checkpoints: {', '.join(steps) or 'none'}."
    state = status.status_of(found.run_dir).state
    what = f"{found.run_dir.path} has no final model: the run is {'not finished' if state == 'made' else state}."
    if not steps:
        return f"{what} It has no committed checkpoint either. Finish it with: regimen train resume={found.run_dir.path}"
    return f"{what} Name one of its committed checkpoints: {', '.join(f'{found.run_dir.path}@{step}' for step in steps)}."


def committed_steps(run_dir: RunDir) -> list[int]:
    return sorted(step_of(path) for path in committed(run_dir))


def refuse_missing_base(found: Found) -> None:
    base = local_base(found) if found.is_adapter else None
    if base is not None and not base.is_dir():
        key = "model.path" if found.run.model.init == "pretrained" else "the random weights that the adapter was trained on"
        raise ConfigError(
            f"{base} is gone ({key}), and the adapter in {found.weights} cannot be used without it. Put it back there; "
            "`regimen export --adapter` alone needs none."
        )


def local_base(found: Found) -> Path | None:
    """The folder of the adapter's base; None: it is on the hub."""
    if found.run.model.init == "random":
        return found.run_dir.base
    path = found.run.model.path
    assert path is not None
    return Path(path) if path.startswith((".", "/", "~")) or Path(path).is_dir() else None
