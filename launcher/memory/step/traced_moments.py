"""The moments of a trace as terms: what trainers/tracing saw, and beside it what only kernels of a GPU need."""

from conf.schema import Lora
from launcher.facts.model.trace import Trace, TracedMoment, bytes_of
from launcher.memory.job import Job
from launcher.memory.step.column_sums import column_sum_bytes
from launcher.memory.step.query_sums import query_sums
from launcher.memory.terms import Term, Terms, total
from launcher.memory.weights.parameters import adapted_packed, adapter_elements, adapter_targets, expert_factors


def moment_terms(job: Job, moment: TracedMoment) -> Terms:
    alive = Term("activations", job.traced(moment.bytes), "traced: all that is alive beside weights and complete gradients")
    kernel = (Term("attention gradients", attention_bytes(job), "fp32 queries, and repeated keys and values"),) if moment.attention else ()
    buffer = column_sum_bytes(job.tokens, moment.columns) if job.gpu and moment.columns else 0
    return (alive, *kernel, *((Term("sums over tokens", buffer, "ATen/native/cuda/Reduce.cuh"),) if buffer else ()))


def attention_bytes(job: Job) -> int:
    """What CUDA's kernels make in the backward pass, and a CPU's do not (launcher/memory/step/layer_backward.py, attention_terms)."""
    queries = job.facts.heads * job.facts.head_dim
    repeated = 4 * queries if job.facts.kv_heads < job.facts.heads else 0
    return (query_sums(job) + repeated) * job.tokens if job.gpu else 0


def resident_buffers(job: Job) -> Terms:
    """Nothing in a family with a table: there they are rotary frequencies, a few hundred bytes."""
    size = 0 if job.trace is None else job.trace.buffers
    return (Term("buffers", size, "tensors of the model that are not weights, such as causal masks"),) if size else ()


def first_layer(job: Job) -> int:
    """Elements of it that learn; the layer of a census may be the last one, which is larger in mixtures that begin with dense layers."""
    regime = job.run.regime
    if not isinstance(regime, Lora):
        return job.facts.layer_parameters(0)
    linears = sum(adapter_elements(regime, module) for module in adapter_targets(regime, job.facts) if 0 in module.layers)
    return linears + sum(sum(expert_factors(regime, module)) for module in adapted_packed(regime, job.facts) if 0 in module.layers)


def largest(job: Job, moments: tuple[TracedMoment, ...]) -> Terms:
    """The terms of the moment that needs most."""
    return max((moment_terms(job, moment) for moment in moments), key=total)


def largest_moment(job: Job, moments: tuple[TracedMoment, ...]) -> Term:
    return Term("activations", total(largest(job, moments)), "traced")


def passing_bytes(job: Job, trace: Trace, tokens: int) -> int:
    """Of one layer's forward pass over samples of the longest length."""
    samples = -(-tokens // job.batch.length)
    return max(bytes_of(moment.bytes, samples, job.batch.length) for moment in trace.passing)
