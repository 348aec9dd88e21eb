"""Bytes that all other operations of one micro-batch, and the optimizer's step, read and write in a GPU's memory.

Counted by operation: an eager one reads its inputs and writes its output; a fused kernel reads and writes what it is given and returns. Shapes are
those of llama's blocks (transformers/models/llama/modeling_llama.py); families with other norms or activations come close.
"""

from conf.schema import Lora, Run
from conf.stages import Loss, compares_joined, stage_row
from launcher.facts.model import ModuleKind
from launcher.memory.step.activations import mlp_width
from launcher.memory.weights.optimizer import state_bytes
from launcher.memory.weights.parameters import adapter_targets
from launcher.timing.work import Load, Work

# Bytes a logit of TRL's losses over whole logits, forward and back: to fp32 (6), logsumexp (24), its gradient (24), the stack of all rows and what
# was picked of them (24), the slice's zeros (12), the way back to 16 bits (6). DPO and KTO: the entropy of every token too (44: a copy,
# log-probabilities, probabilities, their product and sum) and means of logits (14, 20). ORPO: a next-token loss on half of them (44). Kernels of DPO
# were seen (benchmarks/results/speed/h200_step_profiles.jsonl).
COMPARED = {Loss.DPO: 154.0, Loss.KTO: 160.0, Loss.ORPO: 140.0, Loss.SIMPO: 96.0}
REFERENCE = 26.0  # to fp32, its completion alone, and log-probabilities (trainers/stages/shared/preferences.py, completion_logps)


def compares_row_by_row(run: Run) -> bool:
    return stage_row(run.stage.name).loss in COMPARED and not compares_joined(run)


def traffic_loads(work: Work) -> tuple[Load, ...]:
    """Of one micro-batch."""
    forward, backward = (fused_layer(work) if work.arithmetic.fused else plain_layer(work)) if mlp_width(work.facts) else mixture_layer(work)
    layers = forward * (work.facts.layers * (1 + work.forwards) + work.again) + backward * work.depth
    rows = (
        ("element-wise kernels", layers * work.tokens),
        ("around adapters", adapter_traffic(work) * work.tokens),
        ("loss", loss_traffic(work)),
        ("casts of weights", cast_traffic(work)),
    )
    return tuple(Load(name, "traffic", 0, moved) for name, moved in rows if moved)


def plain_norm(work: Work) -> tuple[float, float]:
    """Bytes a value of an eager RMSNorm, forward and back: casts to fp32 and from it, square, mean, two products. torch's LayerNorm is one kernel."""
    stream = work.arithmetic.residual
    if work.facts.layer_norm:
        return 2 * stream, 4 * stream
    casts = 0 if stream == 4 else 2 * (stream + 4)
    return casts + 8 + 4 + 8 + 2 * stream, casts + 44 + 3 * stream


def plain_layer(work: Work) -> tuple[float, float]:
    """Bytes a token of one layer, forward and back, as transformers computes it."""
    facts, element, stream = work.facts, work.arithmetic.element, work.arithmetic.residual
    hidden, inner, queries, keys = facts.hidden, mlp_width(facts), facts.heads * facts.head_dim, facts.kv_heads * facts.head_dim
    norm, norm_back = plain_norm(work)
    rotary = 9 * element * (queries + keys)
    repeated = 2 * element * (queries + keys) if facts.kv_heads < facts.heads else 0
    residual, shared = 2 * (2 * stream + element) * hidden, 3 * 3 * element * hidden
    cast = (element + stream) * hidden * 5 if stream != element else 0  # autocast narrows the input of every layer that reads the stream
    activation, activation_back = (5, 9) if facts.gated_mlp else (2, 3)
    own = queries + keys if facts.qk_norm else 0
    forward = norm * (facts.norms_per_layer * hidden + own) + rotary + repeated + residual + cast + activation * element * inner
    backward = norm_back * (facts.norms_per_layer * hidden + own) + rotary + repeated + residual + shared + cast + activation_back * element * inner
    return forward, backward


def fused_layer(work: Work) -> tuple[float, float]:
    """The same by liger's kernels; the gradients of inputs that matrices share are added up by the products."""
    facts, element, stream = work.facts, work.arithmetic.element, work.arithmetic.residual
    hidden, inner, queries, keys = facts.hidden, mlp_width(facts), facts.heads * facts.head_dim, facts.kv_heads * facts.head_dim
    norms = facts.norms_per_layer * hidden + (queries + keys if facts.qk_norm else 0)
    residual, rotary = 2 * (2 * stream + element) * hidden, 2 * element * (queries + keys)
    shared = 0 if work.census.adapters else 3 * 3 * element * hidden
    cast = (element + stream) * hidden * 5 if stream != element else 0
    forward = 2 * stream * norms + residual + rotary + cast + 3 * element * inner
    backward = 3 * stream * norms + residual + rotary + cast + shared + 5 * element * inner
    return forward, backward


def mixture_layer(work: Work) -> tuple[float, float]:
    """A layer without a dense MLP: the experts of a token instead, whose inputs are gathered and whose answers are put back."""
    facts, element = work.facts, work.arithmetic.element
    inner = facts.experts_per_token * (5 * facts.intermediate + 4 * facts.hidden) * element
    norm, norm_back = plain_norm(work)
    around = 9 * element * (facts.heads + facts.kv_heads) * facts.head_dim + 6 * element * facts.hidden
    return norm * 2 * facts.hidden + around + inner, norm_back * 2 * facts.hidden + around + 2 * inner


def adapter_traffic(work: Work) -> float:
    """Bytes a token: PEFT's casts of inputs, its scaled answer and the sum with the base's. The fused function adds inside of its products."""
    regime = work.run.regime
    if not isinstance(regime, Lora):
        return 0
    targets = [module for module in adapter_targets(regime, work.facts) if module.layers]
    if work.arithmetic.fused:
        dropped = sum(3 * work.arithmetic.element * module.inputs * work.backward(module) for module in targets) if regime.dropout else 0
        return float(dropped)
    return sum(around_adapter(work, regime, module) for module in targets)


def around_adapter(work: Work, regime: Lora, module: ModuleKind) -> float:
    element = work.arithmetic.element
    casts = 2 * (4 + element) if work.arithmetic.casts_adapted else 0  # to the adapter's fp32, and autocast's way back
    dropped = (2 * element + 1) if regime.dropout else 0
    forward = (casts + dropped) * module.inputs + 5 * element * module.outputs
    backward = (casts + dropped + 3 * element) * module.inputs + 2 * element * module.outputs
    return forward * (len(module.layers) + work.repeated(module)) + backward * work.backward(module)


def loss_traffic(work: Work) -> float:
    """Of the logits: to fp32, log-probabilities, their gradient and its way back to 16 bits; the fused kernel reads them twice and writes once."""
    logits = work.tokens * work.facts.vocab
    if work.run.training.loss == "fused":
        return 3.0 * work.arithmetic.element * logits
    if compares_row_by_row(work.run):
        return (COMPARED[stage_row(work.run.stage.name).loss] + REFERENCE * work.forwards) * logits
    return (30.0 + 14.0 * work.forwards) * logits


def cast_traffic(work: Work) -> float:
    """Autocast's 16-bit copies of weights that learn in fp32, again for layers computed again, and their gradients' way back; and gradients that are
    added to those of an earlier micro-batch."""
    storage, census = work.storage, work.census
    learns = census.trained_base
    copies = 0.0
    if work.arithmetic.own_casts and not work.census.adapters:
        copies = 6.0 * census.cast * (1 + work.again / max(work.depth, 1)) + 6.0 * census.cast
    accumulated = 3.0 * storage.gradient * learns if work.run.training.accumulation > 1 else 0.0
    return copies + accumulated


def optimizer_load(work: Work, share: int) -> Load:
    """Once a step: gradients are measured and scaled, then weights and states are read and written; `share` ranks split them."""
    storage, trained = work.storage, work.census.trained
    clipping = 3 * storage.gradient if work.run.optim.max_grad_norm > 0 else 0
    weights = 2 * (storage.weight + storage.master) + storage.gradient
    moved = (clipping + weights) * trained + 2 * state_bytes(work.run, work.census, storage)
    return Load("optimizer", "traffic", 0, moved / share)
