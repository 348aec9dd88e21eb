"""A config.json to exact counts of every kind of module, without torch."""

from launcher.model_facts.architecture import architecture_source, read_architecture
from launcher.model_facts.count import model_facts
from launcher.model_facts.facts import ModelFacts, ModuleKind

__all__ = ["ModelFacts", "ModuleKind", "architecture_source", "model_facts", "read_architecture"]
