"""The verbs `data validate` and `data prepare`: a run is described as for training, and a process of the trainers reads its data. No gate, no GPU."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from conf.constants import BYTE_TOKENIZER, GENERATED
from conf.request import Prepare, Validate
from conf.schema import Composed
from launcher.composition.compose import compose
from launcher.launch.verb_process import run_verb
from launcher.rules.ranges import check_values

WITHOUT_GPU = "node=cpu"
OF_ITS_OWN = (None, BYTE_TOKENIZER)  # tokenizers that do not come from a hub


def validate(overrides: Sequence[str], config_dirs: Sequence[Path], request: Validate) -> int:
    run = described(overrides, config_dirs)
    return run_verb("validate", run, request, os.environ, needs_hub=asks_hub(run), hides_gpus=True)


def prepare(overrides: Sequence[str], config_dirs: Sequence[Path]) -> int:
    run = described(overrides, config_dirs)
    return run_verb("prepare", run, Prepare(), os.environ, needs_hub=asks_hub(run), hides_gpus=True)


def described(overrides: Sequence[str], config_dirs: Sequence[Path]) -> Composed:
    """The run as training would read it, on a node without GPUs unless one is named; one rank, since none is started."""
    named = any(text.startswith("node=") for text in overrides)
    composed = compose(overrides if named else [*overrides, WITHOUT_GPU], config_dirs)
    check_values(composed)
    return replace(composed, cluster=replace(composed.cluster, nodes=1, ranks_per_node=1), node=replace(composed.node, gpus=0))


def asks_hub(run: Composed) -> bool:
    return run.model.path is not None or run.model.tokenizer not in OF_ITS_OWN or run.data.sets != [GENERATED]
