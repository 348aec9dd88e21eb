"""A config.json to exact counts of every kind of module, without torch."""

from launcher.facts.model.architecture import architecture_source, read_architecture, refuse_no_model
from launcher.facts.model.count import model_facts
from launcher.facts.model.facts import ModelFacts, ModuleKind
from launcher.facts.model.weight_files import refuse_other_weights

__all__ = [
    "ModelFacts",
    "ModuleKind",
    "architecture_source",
    "model_facts",
    "read_architecture",
    "refuse_no_model",
    "refuse_other_weights",
]
