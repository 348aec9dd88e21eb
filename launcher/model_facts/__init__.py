"""A config.json to exact counts of every kind of module, without torch."""

from launcher.model_facts.facts import ModelFacts, ModuleKind

__all__ = ["ModelFacts", "ModuleKind"]
