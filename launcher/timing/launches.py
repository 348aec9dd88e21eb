"""Kernels that the host starts for one micro-batch: while they are short, the GPU waits for the host.

Counted by operation, as launcher/timing/traffic.py counts bytes.
"""

from conf.schema import Lora, Qlora
from launcher.memory.weights.parameters import adapter_targets, quantised_layers
from launcher.timing.work import Work

# Of one layer, forward and back, beside its matrices: norms, rotary embedding, attention, activation and sums.
PLAIN, FUSED = (34, 52), (8, 12)
# PEFT's casts, products, scaling and sum, and their way back; the fused function's products alone.
ADAPTER, FUSED_ADAPTER = (7, 10), (2, 4)
QUANTISED = 2  # bitsandbytes dequantises scales, then weights
REPEATED = 92  # as many take as long as what torch.utils.checkpoint does around one layer; fitted to the cells of launcher/timing/rates.py
AROUND = 20  # embedding, head and loss


def launches(work: Work) -> float:
    facts, fused = work.facts, work.arithmetic.fused
    forward, backward = FUSED if fused else PLAIN
    linears = [module for module in facts.modules if module.layers and module.kind in ("linear", "router", "experts")]
    matrices = sum(len(module.layers) for module in linears)
    whole = not work.census.adapters
    cast = 2 if work.arithmetic.own_casts and whole and not fused else 1  # autocast casts the weight, then multiplies
    once = forward * facts.layers + cast * matrices
    again = work.again * (once / facts.layers + REPEATED)
    back = backward * work.depth + (2 if whole else 1) * sum(work.backward(module) for module in linears)
    return once * (1 + work.forwards) + again + back + of_adapters(work) + of_quantised(work) + AROUND


def of_adapters(work: Work) -> float:
    if not isinstance(work.run.regime, Lora):
        return 0
    forward, backward = FUSED_ADAPTER if work.arithmetic.fused else ADAPTER
    targets = [module for module in adapter_targets(work.run.regime, work.facts) if module.layers]
    return sum(forward * (len(module.layers) + work.repeated(module)) + backward * work.backward(module) for module in targets)


def of_quantised(work: Work) -> float:
    regime = work.run.regime
    if not isinstance(regime, Qlora) or regime.dequantised:
        return 0
    return sum(QUANTISED * work.passes(module) for module in quantised_layers(regime, work.facts))
