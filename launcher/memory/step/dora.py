"""What DoRA adds to a layer (peft/tuners/lora/dora.py): norms of whole matrices when it computes, and the gradients of its magnitudes."""

from conf.schema import Lora
from launcher.facts.model import ModuleKind
from launcher.memory.job import Job
from launcher.memory.step.activations import fused_gate, mlp_width, reads_stream
from launcher.memory.step.column_sums import column_sum_bytes
from launcher.memory.terms import ONE_LAYER, Term, Terms
from launcher.memory.weights.parameters import adapter_targets

PRODUCTS = 4  # of an answer's size: its gradient, that scaled, and that times the magnitude and times the adapter's answer
GRADIENTS_SOURCE = "fp32 products of its outputs, and what CUDA's sum of them needs"


def targets_of(job: Job) -> list[ModuleKind]:
    """None where the regime is another."""
    regime = job.run.regime
    return list(adapter_targets(regime, job.facts)) if isinstance(regime, Lora) and regime.dora else []


def weight_norm_terms(job: Job) -> Terms:
    """Base plus product of the adapters, and its square, to take norms; before it, for the product, a unit matrix as wide as the input, in the dtype
    of that, and autocast's copy."""
    targets = targets_of(job)
    if not targets:
        return ()
    wide = job.arithmetic.casts_adapted or job.arithmetic.inner > job.arithmetic.element
    unit = job.arithmetic.element + (4 if wide else 0)
    widest = max(targets, key=lambda module: module.inputs)
    size = max(12 * job.census.largest_matrix, unit * widest.inputs**2 + job.arithmetic.element * widest.inputs * widest.outputs)
    return (Term("weight norm of dora", size, "three fp32 matrices, or a unit matrix and the adapters' product"),)


def magnitude_moments(job: Job, saved: int, without_mlp: int, without_norm: int) -> tuple[tuple[str, Terms], ...]:
    """Where the gradients of magnitudes are summed: of the MLP's last matrix, when all that the layer saved is there; of those that read its input;
    and of attention's, when the second norm has gone too."""
    targets = targets_of(job)
    closing = [module for module in targets if in_mlp(module) and not reads_stream(module)]
    opening = [module for module in targets if in_mlp(module) and reads_stream(module)]
    attention = [module for module in targets if not in_mlp(module)]
    kept = without_mlp + opening_bytes(job, opening) * job.tokens
    parts = (("of the MLP's output", closing, saved), ("of the MLP's input", opening, kept), ("of attention", attention, without_norm))
    return tuple((name, gradient_terms(job, modules, alive)) for name, modules, alive in parts if modules)


def magnitude_bytes(job: Job) -> int:
    """Of an element of what a magnitude is multiplied with."""
    return 4 if job.storage.autocast else job.storage.compute


def narrow_gradient(job: Job) -> int:
    """Of the base's answer, which waits: the same one where that answer is as wide as the magnitude."""
    return job.arithmetic.element if magnitude_bytes(job) > job.arithmetic.answer else 0


def recomputed_bytes(job: Job) -> int:
    """At the norms of the MLP's last matrix, the last thing that a layer computes again, beside what plain LoRA has at its last adapter: the backward
    pass has scaled a gradient of the answer already; the product is as it was made, and its copy and the adapter's answer are still to come."""
    if not any(in_mlp(module) and not reads_stream(module) for module in targets_of(job)):
        return 0
    arithmetic, wide = job.arithmetic, job.arithmetic.inner > job.arithmetic.element
    copies = (arithmetic.inner if wide else 0) - (arithmetic.element if wide or arithmetic.casts_adapted else 0)
    copies -= arithmetic.element if wide and arithmetic.keeps_inputs else 0  # what HQQ keeps is the product
    gradients = magnitude_bytes(job) + (magnitude_bytes(job) if narrow_gradient(job) else 0) + narrow_gradient(job)
    answers = arithmetic.element + arithmetic.answer + (arithmetic.element if arithmetic.casts_adapted else 0)
    return (copies * mlp_width(job.facts) + (gradients - answers) * job.facts.hidden) * job.tokens


def forward_bytes(job: Job) -> int:
    """Of up's answer, per inner value of the MLP: gate's activation; up's base, its answer with that of the adapter, and three products."""
    if not any(in_mlp(module) and reads_stream(module) for module in targets_of(job)):
        return 0
    arithmetic = job.arithmetic
    return (3 * magnitude_bytes(job) + 2 * arithmetic.inner + 2 * arithmetic.element) * mlp_width(job.facts) * job.tokens


def in_mlp(module: ModuleKind) -> bool:
    return ".mlp." in module.name


def opening_bytes(job: Job, opening: list[ModuleKind]) -> int:
    """Per token, when up's gradient is made: the bases' answers, gate's own with the adapter's and their sum, and the gradient that waits for it;
    inputs of the adapters."""
    arithmetic, width, inputs = job.arithmetic, mlp_width(job.facts), sum(module.inputs for module in opening)
    bases = arithmetic.answer * width * (2 if len(opening) > 1 or fused_gate(job.facts) else 1)
    gate = (arithmetic.element + 2 * arithmetic.inner) * width if len(opening) > 1 else 0
    return bases + gate + arithmetic.element * inputs


def gradient_terms(job: Job, modules: list[ModuleKind], saved: int) -> Terms:
    outputs = max(module.outputs for module in modules)
    sums = column_sum_bytes(job.tokens, outputs) if job.gpu else 0
    products = (PRODUCTS * magnitude_bytes(job) + narrow_gradient(job)) * outputs + job.arithmetic.residual * job.facts.hidden
    return (
        Term(ONE_LAYER, saved, "what is left of what a layer saves"),
        Term("gradients of dora's magnitudes", products * job.tokens + sums, GRADIENTS_SOURCE),
    )
