"""Stacked experts of a mixture: what they keep, what autocast leaves of them, and the moments of their backward pass."""

from conf.constants import EXPERT_BUFFER, NF4_BLOCK
from conf.schema import Lora, Qlora
from launcher.facts.model import ModuleKind
from launcher.memory.job import Job
from launcher.memory.step.activations import CLOSING, expert_bytes, expert_element, experts_keep_inputs, last_part, layer_modules
from launcher.memory.terms import ONE_LAYER, Moment, Term
from launcher.memory.weights.parameters import expert_targets, packed_experts


def expert_saved(job: Job, learns: bool) -> int:
    return expert_bytes(job.facts, expert_element(job.arithmetic, learns), experts_keep_inputs(job.run, job.facts, learns)) * job.tokens


def stacked(job: Job) -> int:
    return sum(module.parameters for module in layer_modules(job.facts) if module.kind == "experts")


def layer_experts(job: Job) -> int:
    """Elements of one layer that learn and that autocast does not copy."""
    return min(stacked(job), job.census.layer) if job.storage.autocast and job.census.experts else 0


def routed_copies(job: Job) -> int:
    """Of tokens, one for every expert that they go to; in bytes of an element of their products."""
    element = expert_element(job.arithmetic, job.census.experts > 0)
    return job.facts.experts_per_token * element * job.tokens if job.facts.mixture else 0


def expert_moments(job: Job, saved: int, learns: bool) -> tuple[Moment, ...]:
    """transformers/integrations/moe.py, grouped_mm_experts_forward, backwards: of the routed copies of the tokens the gradient of the outputs, of
    the outputs before they were weighted, and their product for the router; at the end the first matrix' input and its gradient, beside the gradient
    of both its halves."""
    facts, copies = job.facts, routed_copies(job)
    incoming = job.arithmetic.element * facts.hidden * job.tokens
    again = 2 * incoming if job.run.training.gradient_checkpointing else 0  # recomputed there: the residual stream and its norm
    layer = Term(ONE_LAYER, saved, "what a layer saves per token")
    outputs = Term("expert gradients", 3 * copies * facts.hidden + incoming, "of the weighted outputs, the outputs and the routing weights")
    if not learns:
        forward = Term("forward pass of the layer", again, "residual stream and its norm")
        return (
            Moment("expert outputs", 0, (layer, outputs, forward)),
            *adapted_expert_moments(job, saved, forward),
            *packed_expert_moments(job, saved, forward),
        )
    gone = Term(ONE_LAYER, saved - 2 * copies * facts.intermediate, "without the experts' inner values")
    return (
        Moment("expert outputs", 0, (layer, outputs)),
        Moment("experts", stacked(job), (gone, Term("expert gradients", incoming, "of the layer's output"))),
    )


def adapted_expert_moments(job: Job, saved: int, forward: Term) -> tuple[Moment, ...]:
    """The sum of the second matrices and their adapters has a gradient, beside all of both sums; that of gate and up, twice as large, comes when
    the first sum and its gradient have gone."""
    regime = job.run.regime
    experts = expert_targets(regime, job.facts) if isinstance(regime, Lora) else []
    if not experts:
        return ()
    facts, copies = job.facts, routed_copies(job)
    layer = Term(ONE_LAYER, saved - copies * facts.hidden, "without the experts' outputs")
    work = Term("expert gradients", copies * (facts.hidden + facts.intermediate) + forward.bytes // 2, "of the outputs and the inner values")
    merged = Term("gradient of adapted experts", job.storage.frozen * sum(module.parameters for module in experts) // 3, "of their second matrices")
    return (Moment("adapted experts", 0, (layer, work, merged, forward)),)


def packed_expert_moments(job: Job, saved: int, forward: Term) -> tuple[Moment, ...]:
    """trainers/model/experts.py, PackedProduct, beside the matrices that are unpacked: at the second ones the outputs and the inner values, at
    the first ones gate and up and the input. Their gradients need as much in the backward pass; where the layer is computed again, that of the
    weighted outputs waits for it, which torch makes before it finds that it needs the layer."""
    opening, closing = unpacked_bytes(job, opens=True), unpacked_bytes(job, opens=False)
    if not opening:
        return ()
    facts, copies = job.facts, routed_copies(job)
    incoming = job.arithmetic.element * facts.hidden * job.tokens + (waiting_outputs(job) if forward.bytes else 0)
    second = Term(ONE_LAYER, saved - copies * facts.hidden, "without the experts' outputs")
    first = Term(ONE_LAYER, saved - expert_saved(job, learns=False), "without the experts' values")
    widths = (facts.hidden, 2 * facts.intermediate) if forward.bytes else (facts.intermediate, facts.hidden)  # of what a product makes
    twice = [int(group_share(job, opens) * copies * width) for opens, width in zip((False, True), widths, strict=True)]
    inner = copies * (facts.hidden + facts.intermediate) + incoming + twice[0]
    outer = copies * (facts.hidden + 2 * facts.intermediate) + incoming + twice[1]
    return (
        Moment("second expert matrices", 0, (second, Term("experts", inner, "outputs and inner values"), unpacked_term(closing), forward)),
        Moment("first expert matrices", 0, (first, Term("experts", outer, "gate and up, and inputs"), unpacked_term(opening), forward)),
    )


def waiting_outputs(job: Job) -> int:
    """The gradient of the weighted outputs, fp32 where the routing weights are."""
    element = 4 if job.facts.traits.float_routes else job.arithmetic.element
    return element * job.facts.experts_per_token * job.facts.hidden * job.tokens


def unpacked_term(size: int) -> Term:
    return Term("unpacked experts", size, "as many as fit into a buffer, at least one (trainers/model/experts.py)")


def unpacked_bytes(job: Job, opens: bool) -> int:
    """Of the group of packed experts that is unpacked at a time, with what unpacking needs beside it; 0 where none are packed."""
    regime, element = job.run.regime, job.storage.frozen
    if not isinstance(regime, Qlora):
        return 0
    # 4 bits: the fp32 scales; 2 bits: a quarter of the numbers, shifted
    beside = {8: 0.0, 4: 4 / NF4_BLOCK, 2: 1 / 4}[regime.bits]
    found = [module.inputs * module.outputs * together(job, module) for module in packed_matrices(job, opens)]
    return max((int((element + beside) * elements) for elements in found), default=0)


def packed_matrices(job: Job, opens: bool) -> list[ModuleKind]:
    """Those that lead into the inner values of experts, or out of them."""
    return [module for module in packed_experts(job.run.regime, job.facts) if (last_part(module) not in CLOSING) == opens]


def together(job: Job, module: ModuleKind) -> int:
    """Experts that are unpacked together."""
    one = module.inputs * module.outputs
    return min(max(EXPERT_BUFFER // (job.storage.frozen * one), 1), module.parameters // one)


def group_share(job: Job, opens: bool) -> float:
    """The share of the rows whose product is there twice: that of a group is made apart, and then copied to its place; a single expert's is not."""
    shares = [(together(job, module), module.parameters // (module.inputs * module.outputs)) for module in packed_matrices(job, opens)]
    return max((count / experts for count, experts in shares if count > 1), default=0.0)
