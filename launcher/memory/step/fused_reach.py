"""Where the formulas of training.kernels=fused hold; elsewhere the plain kernels are counted, and the plan says so."""

from conf.kernels import FUSED_FAMILIES
from conf.schema import Lora, Qlora, Run
from launcher.facts.model import ModelFacts
from launcher.memory.weights.held import as_held


def fuses_layers(run: Run, facts: ModelFacts) -> bool:
    """On a GPU, in a family that trainers/kernels/layers.py knows; what of it the formulas do not reach is in `fused_unknown`."""
    return run.training.kernels == "fused" and run.node.gpus != 0 and facts.family in FUSED_FAMILIES and fused_unknown(run) is None


def fused_unknown(run: Run) -> str | None:
    """What keeps the forward pass of PEFT or of transformers beside fused layers."""
    regime = as_held(run).regime
    if isinstance(regime, Lora) and regime.dora:
        return "regime.dora=true"
    if isinstance(regime, Qlora) and regime.bits == 2:
        return "regime.bits=2"
    return "training.attention=eager" if run.training.attention == "eager" else None
