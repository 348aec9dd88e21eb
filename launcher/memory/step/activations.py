"""What one layer, the head and the loss keep for the backward pass, in bytes per token (op-level traces of transformers 5.17)."""

from dataclasses import dataclass

from conf.regimes import regime_row
from conf.schema import Lora, Qlora, Run
from launcher.facts.model import ModelFacts, ModuleKind
from launcher.memory.step.fused_reach import fuses_layers
from launcher.memory.weights.dtypes import Storage
from launcher.memory.weights.parameters import adapter_targets, expert_targets

# The linear layers whose input is not the normalised residual stream; their inputs are kept elsewhere (attention output, MLP product).
CLOSING = ("o_proj", "down_proj", "c_proj", "dense", "dense_4h_to_h")
FUSED_QKV = ("qkv_proj", "query_key_value", "c_attn")


@dataclass(frozen=True)
class Batch:
    samples: int
    length: int
    masked: bool  # attention is given a mask tensor: padding, packing, or a window shorter than the sequence

    @property
    def tokens(self) -> int:
        return self.samples * self.length


@dataclass(frozen=True)
class Arithmetic:
    """How one layer computes."""

    element: int  # bytes of an operand of a matrix product
    residual: int  # bytes of an element of the residual stream
    own_casts: bool  # autocast makes a copy of its input for every layer whose weights are fp32
    keeps_inputs: bool  # HQQ layers keep their input although they do not learn (HQQMatmulNoCacheMul)
    casts_adapted: bool  # PEFT copies the input of an adapter to the adapter's dtype; beside quantised layers it leaves that to autocast
    inner: int  # bytes of an inner value of the MLP
    fused: bool  # by the layers and adapters of trainers/kernels

    @property
    def answer(self) -> int:
        """Bytes of what a frozen layer answers: HQQ's in 16 bits also where its input is wider."""
        return self.element if self.keeps_inputs else self.inner


def arithmetic_of(run: Run, facts: ModelFacts, storage: Storage) -> Arithmetic:
    fp32_stream = storage.compute == 4 or (storage.autocast and (regime_row(run.regime.name).learns == "every weight" or widened(run, facts)))
    keeps = isinstance(run.regime, Qlora) and run.regime.bits == 2
    wide = storage.autocast and widened(run, facts)
    fused = fuses_layers(run, facts)
    casts_adapted = (
        storage.autocast and not regime_row(run.regime.name).quantised and not fused
    )  # peft/tuners/lora/bnb.py and hqq.py, requires_conversion
    inner = 4 if wide else storage.compute
    return Arithmetic(storage.compute, 4 if fp32_stream else 2, storage.autocast, keeps, casts_adapted, inner, fused)


def widened(run: Run, facts: ModelFacts) -> bool:
    """Under autocast bitsandbytes' layers answer in the dtype of their input (bitsandbytes/nn/modules.py), fp32 after torch's LayerNorm; DoRA's fp32
    result is cast to 16 bits by PEFT's plain layers alone (peft/tuners/lora/bnb.py and hqq.py, requires_conversion). The residual stream follows."""
    return isinstance(run.regime, Qlora) and (run.regime.dora or (facts.layer_norm and run.regime.bits > 2))


def norm_bytes(facts: ModelFacts, arithmetic: Arithmetic, learns: bool) -> int:
    """One RMSNorm: its fp32 input, one fp32 factor, and for the gain's gradient the normalised values (a gain may multiply in fp32).

    liger's keeps its input and one factor (trainers/kernels/layers.py).
    torch's LayerNorm keeps its input, mean and factor; under autocast CUDA runs it in fp32 (aten/src/ATen/autocast_mode.h, AT_FORALL_FP32).
    """
    if arithmetic.fused:
        return arithmetic.residual * facts.hidden + 4
    if facts.layer_norm:
        return (4 if arithmetic.own_casts else arithmetic.residual) * facts.hidden + 8
    if not learns:
        return 4 * facts.hidden + 4
    gain = 4 if facts.traits.float_gain else arithmetic.residual
    return (4 + gain) * facts.hidden + 4


def last_state_element(facts: ModelFacts, arithmetic: Arithmetic) -> int:
    """Bytes of an element of the last norm's output: CUDA's autocast runs torch's LayerNorm in fp32."""
    return 4 if facts.layer_norm and arithmetic.own_casts else arithmetic.residual


def norms_bytes(facts: ModelFacts, arithmetic: Arithmetic, learns: bool) -> int:
    """All of one layer; parallel ones share their input, unless each makes an fp32 copy of it; those behind attention and MLP read their answers."""
    own = facts.norms_per_layer * norm_bytes(facts, arithmetic, learns)
    if arithmetic.fused:
        return own - (arithmetic.residual - arithmetic.element) * facts.hidden * (facts.norms_per_layer - 2)
    copies = arithmetic.own_casts and arithmetic.residual < 4
    return own - (arithmetic.residual * facts.hidden if facts.traits.parallel and not copies else 0)


def qk_norm_bytes(facts: ModelFacts, arithmetic: Arithmetic, learns: bool) -> int:
    if not facts.qk_norm:
        return 0
    heads = facts.heads + facts.kv_heads
    if arithmetic.fused:
        return (arithmetic.element * facts.head_dim + 4) * heads
    gain = 4 if facts.traits.float_gain else arithmetic.element
    return (4 + (gain if learns else 0)) * heads * facts.head_dim + 4 * heads


def input_bytes(facts: ModelFacts, arithmetic: Arithmetic, learns: bool) -> int:
    """Inputs that layers keep for their weights' gradients: two shared ones (attention, MLP), or one cast per layer, unless what they take is in 16
    bits already: a gain that multiplies in fp32, and liger's norms, answer in the dtype of the residual stream, others in that of their weight."""
    as_stream = facts.traits.float_gain or arithmetic.fused
    if learns and arithmetic.own_casts and not (as_stream and arithmetic.residual == arithmetic.element):
        return arithmetic.element * facts.hidden * sum(reads_stream(module) for module in layer_modules(facts))
    if learns:
        return 2 * arithmetic.element * facts.hidden
    return arithmetic.element * facts.hidden * (1 + dense_mlp(facts)) if arithmetic.keeps_inputs else 0


def dense_mlp(facts: ModelFacts) -> bool:
    """Whether linear layers of the MLP, or of experts that all tokens share, read the stream."""
    return any(module.kind == "linear" and ".mlp." in module.name and reads_stream(module) for module in layer_modules(facts))


def layer_modules(facts: ModelFacts) -> list[ModuleKind]:
    """Those of the last layer: the first of the backward pass, and in mixtures never one of the leading dense ones."""
    return [module for module in facts.modules if module.layers and module.layers[-1] == facts.layers - 1]


def last_part(module: ModuleKind) -> str:
    return module.name.rsplit(".", 1)[-1]


def reads_stream(module: ModuleKind) -> bool:
    return module.kind in ("linear", "router") and last_part(module) not in CLOSING


def attention_bytes(facts: ModelFacts, arithmetic: Arithmetic, attention: str | None, batch: Batch, output_kept: bool) -> int:
    """Flash and memory-efficient kernels: q, k, v, output, log-sum-exp. Eager: fp32 scores, their 16-bit copy, and k and v repeated.

    `output_kept`: the output projection keeps what it takes.
    """
    queries, keys, element = facts.heads * facts.head_dim, facts.kv_heads * facts.head_dim, arithmetic.element
    if attention == "eager":
        copies = 4 + (element if element == 2 else 0) + (element if facts.traits.capped_scores else 0)
        return copies * facts.heads * batch.length + (4 if output_kept else 3) * element * queries
    kept = element * 2 * (queries + keys) + 4 * facts.heads
    fused = any(last_part(module) in FUSED_QKV for module in layer_modules(facts))
    if fused and not facts.traits.unrotated and arithmetic.inner == element:
        kept += element * (queries + keys)  # the values are a view of the fused projection, and keep all of it
    if output_kept and facts.traits.joined_heads and attention != "varlen" and not arithmetic.fused:
        kept += element * queries
    # a mask tensor makes transformers repeat k and v, in place where there is one head of them
    return kept + (2 * element * (queries - keys) if batch.masked and facts.kv_heads > 1 else 0)


def keeps_attention_output(run: Run, facts: ModelFacts, arithmetic: Arithmetic, learns: bool) -> bool:
    """As the output projection's own input, and not as the copy that an adapter makes of it."""
    if learns or arithmetic.keeps_inputs:
        return True
    regime = run.regime
    if not isinstance(regime, Lora) or arithmetic.casts_adapted or regime.dropout > 0:
        return False
    return any(".mlp." not in module.name and not reads_stream(module) for module in adapter_targets(regime, facts))


def mlp_width(facts: ModelFacts) -> int:
    """Of the dense MLP of a layer, or of the experts that all tokens share."""
    return sum(
        module.inputs for module in layer_modules(facts) if module.kind == "linear" and ".mlp." in module.name and last_part(module) in CLOSING
    )


def fused_gate(facts: ModelFacts) -> bool:
    """Whether gate and up are one projection."""
    return any(last_part(module) == "gate_up_proj" for module in layer_modules(facts) if module.kind == "linear")


def mlp_bytes(facts: ModelFacts, arithmetic: Arithmetic, learns: bool) -> int:
    """Gated: gate, its activation, up, and their product where the layer below keeps it. Ungated: the inner value and its activation."""
    product = arithmetic.element * (1 if learns or arithmetic.keeps_inputs else 0)
    if arithmetic.fused:  # the activation is computed again
        return (2 * arithmetic.element + product) * mlp_width(facts)
    if facts.traits.composed_gelu and arithmetic.own_casts:
        # CUDA's autocast takes powers in fp32 (aten/src/ATen/autocast_mode.h, AT_FORALL_FP32): the inner value, tanh, and its sum with one
        return (3 * 4 + arithmetic.element + product) * mlp_width(facts)
    kept = (3 if facts.gated_mlp else 1) + (3 if facts.traits.composed_gelu else 0)
    return (kept * arithmetic.inner + product) * mlp_width(facts)


def expert_element(arithmetic: Arithmetic, learns: bool) -> int:
    """Bytes of an operand of the experts' products: autocast leaves weights that learn in fp32 (transformers/integrations/moe.py, _grouped_mm)."""
    return 4 if learns and arithmetic.own_casts else arithmetic.element


def expert_bytes(facts: ModelFacts, element: int, learns: bool) -> int:
    """Per routed copy of a token: gate and up, activation, output; where experts learn, gathered input and product. The router's fp32 scores."""
    if not any(module.kind == "experts" for module in layer_modules(facts)):
        return 0
    kept = (2 * facts.hidden + 4 * facts.intermediate) if learns else (facts.hidden + 3 * facts.intermediate)
    return facts.experts_per_token * element * kept + 4 * facts.experts


def experts_keep_inputs(run: Run, facts: ModelFacts, learns: bool) -> bool:
    """They learn, or PEFT adds adapters to their weights, whose sum has a gradient."""
    return learns or (isinstance(run.regime, Lora) and len(expert_targets(run.regime, facts)) > 0)


def mixture_layers(facts: ModelFacts) -> int:
    return max((module.instances for module in facts.modules if module.kind == "experts"), default=0)


def adapter_bytes(run: Run, facts: ModelFacts, arithmetic: Arithmetic) -> int:
    """Every adapter keeps its input and its inner value; where no cast or dropout makes a copy, q, k, v share one, and so do gate and up."""
    regime = run.regime
    if not isinstance(regime, Lora):
        return 0
    return adapted_bytes(regime, facts, arithmetic, [module for module in adapter_targets(regime, facts) if in_last_layer(module, facts)])


def mlp_adapter_bytes(run: Run, facts: ModelFacts, arithmetic: Arithmetic) -> int:
    """The part of those in the MLP."""
    regime = run.regime
    if not isinstance(regime, Lora):
        return 0
    targets = [module for module in adapter_targets(regime, facts) if in_last_layer(module, facts) and ".mlp." in module.name]
    return adapted_bytes(regime, facts, arithmetic, targets)


def in_last_layer(module: ModuleKind, facts: ModelFacts) -> bool:
    return module.layers[-1:] == (facts.layers - 1,)


def adapted_bytes(regime: Lora, facts: ModelFacts, arithmetic: Arithmetic, targets: list[ModuleKind]) -> int:
    element = arithmetic.element
    inner = element * regime.rank * len(targets)
    dropout = sum(module.inputs for module in targets) if regime.dropout > 0 else 0  # a mask of one byte
    dora = dora_bytes(arithmetic, targets) if regime.dora else 0
    if arithmetic.fused:
        return inner + dropout + element * shared_inputs(facts, targets)
    if arithmetic.casts_adapted or regime.dropout > 0:
        return inner + dropout + dora + element * sum(module.inputs for module in targets)
    if arithmetic.inner > element:  # autocast copies all but attention's output, which is narrow already
        return inner + dora + element * sum(module.inputs for module in targets if reads_stream(module) or ".mlp." in module.name)
    return inner + dora + element * (0 if arithmetic.keeps_inputs else shared_inputs(facts, targets))


def dora_bytes(arithmetic: Arithmetic, targets: list[ModuleKind]) -> int:
    """Answers of base and adapter, for the gradient of the magnitude that scales them; that of a widened base is as wide as its input."""
    wide = [module.outputs for module in targets if reads_stream(module) or ".mlp." in module.name]
    return 2 * arithmetic.element * sum(module.outputs for module in targets) + (arithmetic.answer - arithmetic.element) * sum(wide)


def shared_inputs(facts: ModelFacts, targets: list[ModuleKind]) -> int:
    """Distinct inputs of adapters that attention and norms do not keep already."""
    attention = any(reads_stream(module) and ".mlp." not in module.name for module in targets)
    mlp = any(reads_stream(module) and ".mlp." in module.name for module in targets)
    products = sum(module.inputs for module in targets if not reads_stream(module) and ".mlp." in module.name)
    return facts.hidden * (attention + mlp) + products


def layer_bytes(run: Run, facts: ModelFacts, arithmetic: Arithmetic, batch: Batch, learns: bool) -> int:
    """Everything that one layer keeps per token."""
    return (
        norms_bytes(facts, arithmetic, learns)
        + qk_norm_bytes(facts, arithmetic, learns)
        + input_bytes(facts, arithmetic, learns)
        + attention_bytes(facts, arithmetic, run.training.attention, batch, keeps_attention_output(run, facts, arithmetic, learns))
        + mlp_bytes(facts, arithmetic, learns)
        + expert_bytes(facts, expert_element(arithmetic, learns), experts_keep_inputs(run, facts, learns))
        + adapter_bytes(run, facts, arithmetic)
        + (2 * facts.hidden if facts.residual_dropout else 0)  # two masks of one byte (aten native_dropout)
    )
