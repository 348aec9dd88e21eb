"""What is composed of files that were read before is what Hydra makes of the files, and nobody's changes reach the next run."""

import pytest
from hydra.types import RunMode
from omegaconf import OmegaConf

from launcher.composition.built_in import compose_built_in, composed_choices
from launcher.composition.compose import CONFIG_NAME, compose, config_loader, read, without_hydra


@pytest.mark.parametrize(
    "given",
    [
        ("recipe=demo",),
        ("recipe=demo", "optim=muon", "optim.lr=0.5"),
        ("model=local", "model.path=a/b", "data=files", "data.sets=[a.jsonl,'b c']", "stage=dpo", "sharding=zero3"),
        ("model=qwen2.5_7b", "data=demo", "regime=qlora", "regime.bits=8", "optim=galore", "node=rtx4090_24", "training.fit=auto"),
        ("model=demo", "data=demo", "stage=grpo", "stage.rewards=[brevity]", "cluster=slurm", "tracking=wandb", "name=${model.name}-x"),
        ("optim.lr=1e-3", "recipe=demo", "optim.lr=2e-3", "stage=pt"),  # the last one holds, and a choice after a value does not undo it
    ],
    ids=" ".join,
)
def test_a_composition_is_that_of_hydra(given: tuple[str, ...]) -> None:
    whole = without_hydra(config_loader(()).load_configuration(config_name=CONFIG_NAME, overrides=[*given], run_mode=RunMode.RUN))
    for _ in range(2):  # the second one reads no file
        assert OmegaConf.to_container(compose_built_in(read(given)), resolve=False) == OmegaConf.to_container(whole, resolve=False)


def test_files_are_read_once_and_values_stay_with_their_run() -> None:
    choices = ["model=demo", "data=demo", "node=cpu", "optim=sgd"]
    first = compose([*choices, "optim.lr=0.5", "data.sets=[generated]"])
    first.data.sets.append("mine")
    read_before = composed_choices.cache_info().misses
    second = compose([*choices, "training.micro_batch=3"])
    assert composed_choices.cache_info().misses == read_before
    assert (second.optim.lr, second.training.micro_batch) == (compose(choices).optim.lr, 3)
    assert second.optim.lr != 0.5
    assert "mine" not in second.data.sets
