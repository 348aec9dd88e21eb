"""The matrix products and the attention of one micro-batch: forward, computed again, and the gradients of inputs and of weights.

A matrix takes 2 operations per element and token in each of them (arXiv:2001.08361, section 2.1). Each of the three matrices of a product passes
through the memory once (the roofline of doi:10.1145/1498765.1498785), which is most of the time of an adapter's.
"""

from collections.abc import Callable

from conf.schema import Freeze, Lora, Qlora
from launcher.facts.model import ModuleKind
from launcher.memory.weights.parameters import adapter_targets, frozen_selection, matrix_elements, quantised_bytes, quantised_layers
from launcher.timing.work import Load, Work, summed


def product_loads(work: Work) -> tuple[Load, ...]:
    return (*layer_loads(work), head_load(work), *adapter_loads(work))


def product(work: Work, rows: float, inputs: int, outputs: int, count: float) -> Load:
    """[rows, inputs] x [inputs, outputs], or one of its gradients, `count` times."""
    moved = work.arithmetic.element * (rows * inputs + inputs * outputs + rows * outputs)
    return Load("product", "products", count * 2.0 * rows * inputs * outputs, count * moved)


def layer_loads(work: Work) -> tuple[Load, ...]:
    """Of the layers' own matrices."""
    modules = [module for module in work.facts.modules if module.layers and module.inputs and module.kind in ("linear", "router", "experts")]
    counts: dict[str, Callable[[ModuleKind], float]] = {
        "forward products": lambda module: len(module.layers) * (1 + work.forwards),
        "products computed again": work.repeated,
        "gradients of inputs": work.backward,
        "gradients of weights": lambda module: learning(work, module),
    }
    return tuple(summed(name, [matrix(work, module, count(module)) for module in modules]) for name, count in counts.items())


def matrix(work: Work, module: ModuleKind, count: float) -> Load:
    """Each token passes through its own experts, which share the tokens evenly."""
    if module.kind != "experts":
        return product(work, work.tokens, module.inputs, module.outputs, count)
    experts = module.parameters // (module.inputs * module.outputs)
    return product(work, work.tokens * work.facts.experts_per_token / experts, module.inputs, module.outputs, count * experts)


def learning(work: Work, module: ModuleKind) -> int:
    """In how many layers its weights have a gradient."""
    if isinstance(work.run.regime, Lora):
        return 0
    if isinstance(work.run.regime, Freeze):
        return len(frozen_selection(work.run.regime, work.facts)(module))
    return len(module.layers)


def head_load(work: Work) -> Load:
    """Logits of every token: forward (twice with the chunked loss), and back where anything learns below or in the head."""
    forward = 1 + work.forwards + (work.run.training.loss == "chunked")
    count = forward + (work.census.depth > 0) + (work.census.head > 0)
    load = product(work, work.tokens, work.facts.hidden, work.facts.vocab, count)
    return Load("head", "products", load.operations, load.bytes)


def adapter_loads(work: Work) -> tuple[Load, ...]:
    """A and B: forward, again, and two gradients each. The reference of a run with adapters is its base without them."""
    regime = work.run.regime
    if not isinstance(regime, Lora):
        return ()
    loads = []
    for module in adapter_targets(regime, work.facts):
        there = len(module.layers) or 1
        count = there + work.repeated(module) + 2 * (work.backward(module) if module.layers else 1)
        loads += [product(work, work.tokens, module.inputs, regime.rank, count), product(work, work.tokens, regime.rank, module.outputs, count)]
    return (summed("adapters", loads),) if loads else ()


def attention_load(work: Work) -> Load:
    """Two products forward and, since flash attention computes its scores again, five back (arXiv:2205.14135); a causal token sees half of its
    sample, or its window."""
    facts = work.facts
    seen = work.length / 2 if facts.sliding_window is None else min(work.length / 2, facts.sliding_window)
    once = 4.0 * work.tokens * seen * facts.heads * facts.head_dim
    passes = facts.layers * (1 + work.forwards) + work.again + 2.5 * work.depth
    return Load("attention", "attention", once * passes, 0)


def dequantising_load(work: Work) -> Load | None:
    """Packed weights become 16-bit ones in each pass that reads them."""
    regime = work.run.regime
    if not isinstance(regime, Qlora) or regime.dequantised:
        return None
    packed = quantised_bytes(regime, work.census) / max(work.census.quantised, 1)
    modules = quantised_layers(regime, work.facts)
    elements = sum(matrix_elements(module) * work.passes(module) for module in modules)
    return Load("dequantising", "dequantising", 0, elements * (packed + work.arithmetic.element))
