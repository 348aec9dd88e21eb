"""What the host does for one micro-batch: while its work is longer than the GPU's, the GPU waits.

Kernels are counted by operation, as launcher/timing/traffic.py counts bytes; beside them count what Python does around some of them. The counts are
those of torch's profiler in ten jobs on an H200 (benchmarks/results/speed/h200_step_profiles.jsonl).
"""

from dataclasses import dataclass

from conf.schema import Lora, Qlora
from launcher.memory.step.stage_loss import ENTROPY_ROWS
from launcher.memory.weights.parameters import adapter_targets, quantised_layers
from launcher.timing.traffic import compares_row_by_row
from launcher.timing.work import Work

# Of one layer, forward and back, beside its matrices: two norms, rotary embedding, attention, activation and sums. And of each further norm.
PLAIN, FUSED = (34, 52), (8, 12)
NORM, LAYER_NORM, FUSED_NORM = (8, 14), (1, 2), (1, 1)
NORMS = 2
# PEFT's casts, products, scaling and sum, and their way back; the fused function's products alone.
ADAPTER, FUSED_ADAPTER = (7, 10), (2, 4)
SPLIT = 2.4  # of each adapter, forward and back: cuBLAS fills and sums about half of the products with so few columns
QUANTISED = 3  # bitsandbytes dequantises scales, adds their mean, then dequantises weights
AROUND = 20  # embedding, head and loss
ROW, CHUNK = 40, 5  # of a loss over whole logits: of each sequence, forward and back, and of its reference; of each chunk of the entropy
# Functions of autograd that are written in Python: of one layer with fused kernels the rotary embedding and the activation, and its norms where they
# learn or stand under a group of heads; and its adapters, by groups that share an input.
FUNCTIONS = 2
SHARING = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))  # trainers/kernels/lora.py
MODULES, ADAPTED_MODULES = 7, 6  # of a plain layer beside its matrices; of PEFT around each adapted matrix
LEAVING_OUT = 1.5  # times as many modules as the Trainer walks over in a step: calls of named_modules in one job of DPO against two of others


@dataclass(frozen=True)
class HostWork:
    """Of one micro-batch; `walked` of one step."""

    kernels: float
    functions: float  # passes through functions of autograd that are written in Python
    dequantised: float  # matrices that are made from packed ones
    repeated: int  # layers around which torch.utils.checkpoint works
    walked: float  # modules over which the Trainer walks by itself, where nothing spares it
    left_out: float  # modules over which PEFT walks to leave the adapter out where a reference answers, and to put it back


def host_work(work: Work) -> HostWork:
    fused = work.arithmetic.fused
    return HostWork(
        kernels=launches(work),
        functions=python_functions(work) if fused else 0.0,
        dequantised=dequantised(work),
        repeated=work.again,
        walked=0.0 if fused else walked(work),
        left_out=LEAVING_OUT * walked(work) if work.forwards and work.census.adapters else 0.0,
    )


def launches(work: Work) -> float:
    facts, fused = work.facts, work.arithmetic.fused
    forward, backward = FUSED if fused else PLAIN
    more = max(0, facts.norms_per_layer - NORMS) + 2 * facts.qk_norm
    norm_forward, norm_backward = FUSED_NORM if fused else LAYER_NORM if facts.layer_norm else NORM
    linears = [module for module in facts.modules if module.layers and module.kind in ("linear", "router", "experts")]
    matrices = sum(len(module.layers) for module in linears)
    whole = not work.census.adapters
    casts = work.arithmetic.own_casts and whole  # autocast casts the weight, then multiplies; with fused kernels the input is in fp32 too
    once_cast, back_cast = ((3, 2) if fused else (2, 0)) if casts else (1, 0)
    once = (forward + more * norm_forward) * facts.layers + once_cast * matrices
    back = (backward + more * norm_backward) * work.depth + ((2 if whole else 1) + back_cast) * sum(work.backward(module) for module in linears)
    again = work.again * once / facts.layers
    return once * (1 + work.forwards) + again + back + of_adapters(work) + QUANTISED * dequantised(work) + of_whole_logits(work) + AROUND


def of_adapters(work: Work) -> float:
    if not isinstance(work.run.regime, Lora):
        return 0
    forward, backward = FUSED_ADAPTER if work.arithmetic.fused else ADAPTER
    targets = [module for module in adapter_targets(work.run.regime, work.facts) if module.layers]
    return sum(forward * (len(module.layers) + work.repeated(module)) + (backward + SPLIT) * work.backward(module) for module in targets)


def dequantised(work: Work) -> float:
    regime = work.run.regime
    if not isinstance(regime, Qlora) or regime.dequantised:
        return 0
    return sum(work.passes(module) for module in quantised_layers(regime, work.facts))


def of_whole_logits(work: Work) -> float:
    """Of stages that compare answers row by row (launcher/memory/step/stage_loss.py)."""
    if not compares_row_by_row(work.run):
        return 0
    return ROW * work.tokens / work.length + CHUNK * work.tokens / ENTROPY_ROWS


def python_functions(work: Work) -> float:
    """Forward, in layers computed again once more, and back."""
    facts = work.facts
    passes = facts.layers * (1 + work.forwards) + work.again + work.depth
    norms = 2 * facts.qk_norm + (0 if work.census.adapters else facts.norms_per_layer)
    return passes * (FUNCTIONS + norms) + groups(work)


def groups(work: Work) -> float:
    """Passes through the functions of adapters: one for all that share an input."""
    if not isinstance(work.run.regime, Lora):
        return 0
    targets = [module for module in adapter_targets(work.run.regime, work.facts) if module.layers]
    names = {module.name.rsplit(".", 1)[-1] for module in targets}
    later = {name for sharing in SHARING for name in [each for each in sharing if each in names][1:]}
    counted = [module for module in targets if module.name.rsplit(".", 1)[-1] not in later]
    return sum(len(module.layers) + work.repeated(module) + work.backward(module) for module in counted)


def walked(work: Work) -> float:
    facts = work.facts
    linears = sum(len(module.layers) for module in facts.modules if module.layers and module.inputs)
    adapted = sum(len(module.layers) for module in adapter_targets(work.run.regime, facts)) if isinstance(work.run.regime, Lora) else 0
    return MODULES * facts.layers + linears + ADAPTED_MODULES * adapted
