"""Which weights a user means by RUN, RUN@step-N, last or a model folder, and whether they can be used."""

import re
from dataclasses import dataclass, replace
from pathlib import Path

from conf.committed import committed, step_of
from conf.constants import ADAPTER_CONFIG, GENERATED
from conf.mixtures import draws_experts
from conf.regimes import regime_row
from conf.request import Trained
from conf.run_dir import RunDir
from conf.schema import Run
from launcher.composition.compose import compose
from launcher.composition.recorded import recorded_run
from launcher.errors import ConfigError
from launcher.facts.node import settle_node
from launcher.gate.settle import settled
from launcher.launch import status

AT_STEP = re.compile(r"(?P<run>.+)@step-(?P<step>[0-9]+)")


@dataclass(frozen=True)
class Found:
    run_dir: RunDir
    run: Run
    step: int | None  # None: the final model
    base: bool = False  # the model as it was before the run trained it
    recorded: bool = True  # False: a model folder, which no run left

    @property
    def weights(self) -> Path:
        if not self.recorded:
            return self.run_dir.path
        return self.run_dir.model if self.step is None else self.run_dir.checkpoint(self.step)

    @property
    def is_adapter(self) -> bool:
        return (self.weights / ADAPTER_CONFIG).is_file()

    @property
    def as_request(self) -> Trained:
        weights = f"the base of {self.run_dir.path}" if self.base else str(self.weights.absolute())
        return Trained(str(self.run_dir.path.absolute()), weights, self.step, self.base)

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


def run_folder_of(name: str, output: Path | None) -> RunDir | None:
    """The run folder that RUN means; None: a model folder.

    Raises:
        ConfigError: where there is no such run.
    """
    at_step = AT_STEP.fullmatch(name)
    return None if is_model_folder(Path(name)) else status.named_run(at_step["run"] if at_step else name, output)


def find_usable(name: str, output: Path | None, base: bool = False) -> Found:
    """The weights that `name` means, with the base that an adapter needs; or that base alone, or a model folder.

    Raises:
        ConfigError: as find_trained, and where that base is gone.
    """
    folder = Path(name)
    if is_model_folder(folder):
        return model_folder(folder.absolute(), base)
    found = base_of(name, output) if base else find_trained(name, output)
    refuse_missing_base(found)
    return found


def is_model_folder(folder: Path) -> bool:
    return not RunDir(folder).run_yaml.is_file() and any((folder / name).is_file() for name in ("config.json", ADAPTER_CONFIG))


def model_folder(folder: Path, base: bool) -> Found:
    """A model that no run left, described as a run that would train it.

    Raises:
        ConfigError: for an adapter, and where the base of a run is asked for.
    """
    if base:
        raise ConfigError(f"--base asks the base of a run, and {folder} is a model folder. Leave --base out.")
    if (folder / ADAPTER_CONFIG).is_file():
        raise ConfigError(f"{folder} holds an adapter, which says too little of its base. Name its run folder, or export it: regimen export RUN.")
    described = compose(["model=local", "model.path=unnamed", "data=files", f"data.sets=[{GENERATED}]", "node=auto"])
    model = replace(described.model, name=folder.name, path=str(folder))
    run = settled(replace(described, model=model), settle_node(described.node, 1).node)
    return Found(RunDir(folder), run, None, recorded=False)


def base_of(name: str, output: Path | None) -> Found:
    """The model with which a run began; the run need not be finished."""
    if AT_STEP.fullmatch(name):
        raise ConfigError(f"{name} names a checkpoint, and --base asks the model before training. Name the run alone.")
    run_dir = status.named_run(name, output)
    return Found(run_dir, recorded_run(run_dir), None, base=True)


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
    base = local_base(found) if found.is_adapter or found.base else None
    if base is not None and not base.is_dir():
        key = "model.path" if found.run.model.init == "pretrained" else "the random weights that the adapter was trained on"
        if found.base:
            raise ConfigError(f"{base} is gone ({key}), so the base of {found.run_dir.path} cannot be asked. Put it back there.")
        raise ConfigError(
            f"{base} is gone ({key}), and the adapter in {found.weights} cannot be used without it. Put it back there; "
            "`regimen export --adapter` alone needs none."
        )


def local_base(found: Found) -> Path | None:
    """The folder of the base; None: it is on the hub, or made again from the seed, as the random weights of a run without an adapter, and
    of one that packs experts."""
    if found.run.model.init == "random":
        written = regime_row(found.run.regime.name).learns == "an adapter" and not draws_experts(found.run)
        return found.run_dir.base if written else None
    path = found.run.model.path
    assert path is not None
    return Path(path) if path.startswith((".", "/", "~")) or Path(path).is_dir() else None


def reads_hub(found: Found) -> bool:
    """Whether a base is loaded that only the hub, or its cache, has."""
    return (found.is_adapter or found.base) and found.run.model.init == "pretrained" and local_base(found) is None
