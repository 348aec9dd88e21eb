"""The verbs `data validate` and `data prepare`: a run is described as for training, and a process of the trainers reads its data. No gate, no GPU."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from conf.hub import is_folder, is_of_hub
from conf.private import keep_private
from conf.request import Prepare, Validate
from conf.schema import Composed
from launcher.composition.compose import compose
from launcher.errors import ConfigError
from launcher.facts.data import has_sets_of_hub
from launcher.facts.model import ModelFacts, model_facts, read_architecture
from launcher.gate.judge import refuse_too_long
from launcher.launch.verb_process import run_verb
from launcher.rules.ranges import check_values

WITHOUT_GPU = "node=cpu"


def validate(overrides: Sequence[str], config_dirs: Sequence[Path], request: Validate) -> int:
    return read_data("validate", described(overrides, config_dirs), request)


def prepare(overrides: Sequence[str], config_dirs: Sequence[Path]) -> int:
    keep_private()
    return read_data("prepare", described(overrides, config_dirs), Prepare())


def read_data(verb: str, run: Composed, request: Validate | Prepare) -> int:
    refuse_as_training(run)
    from_hub = is_of_hub(run.model) or has_sets_of_hub(run.data)
    return run_verb(verb, run, request, os.environ, needs_hub=from_hub, hides_gpus=True, from_hub=from_hub)


def described(overrides: Sequence[str], config_dirs: Sequence[Path]) -> Composed:
    """The run as training would read it, on a node without GPUs unless one is named; one rank, since none is started."""
    named = any(text.startswith("node=") for text in overrides)
    composed = compose(overrides if named else [*overrides, WITHOUT_GPU], config_dirs)
    check_values(composed)
    return replace(composed, cluster=replace(composed.cluster, nodes=1, ranks_per_node=1), node=replace(composed.node, gpus=0))


def refuse_as_training(run: Composed) -> None:
    """Refuse what training would refuse of the model, as far as it concerns the data.

    Raises:
        ConfigError: for a cutoff beyond the model's positions, and for a model of the hub whose config.json cannot be read.
    """
    facts = facts_of_model(run)
    if facts is not None:
        refuse_too_long(run, facts)


def facts_of_model(run: Composed) -> ModelFacts | None:
    """None for a local model that cannot be counted: its tokenizer may be read all the same, and training says what is wrong with the model."""
    source = run.model.path or f"model={run.model.name}"
    try:
        return model_facts(read_architecture(run.model), source)
    except ConfigError:
        if run.model.architecture is None and run.model.path is not None and not is_folder(run.model.path):
            raise
        return None
