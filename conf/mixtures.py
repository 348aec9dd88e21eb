"""What a config.json says of experts, and what follows for a run."""

from collections.abc import Mapping

from conf.constants import EXPERTS
from conf.schema import Lora, Qlora, Run

# The stacked matrices of modules with transformers' common interface for experts (integrations/moe.py, use_experts_implementation).
STACKED = ("gate_up_proj", "up_proj", "down_proj")


def names_experts(architecture: Mapping[str, object]) -> bool:
    """Whether it speaks of experts, under whatever name a family has for their number: num_experts, num_local_experts, n_routed_experts."""
    inner = architecture.get("text_config")
    own = any("experts" in key and isinstance(value, int) and value > 0 for key, value in architecture.items())
    return own or (isinstance(inner, Mapping) and names_experts(inner))


def draws_experts(run: Run) -> bool:
    """Whether a random base is quantised as it is drawn, and drawn from the seed again where it is needed: it may be larger than any disk."""
    packs = isinstance(run.regime, Qlora) and not run.regime.dequantised
    return packs and run.model.init == "random" and names_experts(run.model.architecture)


def adapts_experts(run: Run) -> bool:
    """Whether every routed expert gets an adapter of its own."""
    return isinstance(run.regime, Lora) and EXPERTS in run.regime.targets
