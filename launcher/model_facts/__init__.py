"""A config.json to exact counts of every kind of module, without torch."""

from launcher.model_facts.architecture import architecture_source, is_folder, read_architecture
from launcher.model_facts.count import model_facts
from launcher.model_facts.facts import ModelFacts, ModuleKind
from launcher.model_facts.weight_files import refuse_other_weights

__all__ = ["ModelFacts", "ModuleKind", "architecture_source", "is_folder", "model_facts", "read_architecture", "refuse_other_weights"]
