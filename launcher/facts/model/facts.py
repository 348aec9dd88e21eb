"""What a model consists of, as numbers: its widths and its kinds of modules."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ModuleKind:
    """Modules of one name, alike in every layer that holds one."""

    name: str  # dotted path as transformers 5 names it, `*` for the number of the layer: model.layers.*.self_attn.q_proj
    kind: str  # linear | head | embedding | norm | router | experts (one 3-D parameter, no nn.Linear) | other
    inputs: int  # of a linear, a router, a head or one expert; 0 otherwise
    outputs: int
    parameters: int  # of one instance, bias included; a tied head has 0
    layers: tuple[int, ...]  # numbers of the layers that hold one; (): one instance outside of the layers
    # Of a linear layer: whether it is torch's own or a Conv1D. Those of a class of their own get adapters, but are never quantised
    # (transformers/integrations/bitsandbytes.py, replace_with_bnb_linear: type(module) is nn.Linear). Of experts: whether they can be packed.
    plain: bool = True

    @property
    def instances(self) -> int:
        return len(self.layers) if self.layers else 1


@dataclass(frozen=True)
class Traits:
    """What a family does that its sizes do not show. The defaults are those of a family that was only counted."""

    # What we have compared or traced, so that a formula or an option may be trusted.
    traced: bool = False  # the formulas of activations are those of its own operations (tests/launcher/memory/tracing)
    varlen: bool = False  # packed rows under varlen learn what single rows learn (tests/trainers/model/test_attention.py)
    head_alone: bool = False  # its logits are the head's product and nothing more (tests/trainers/stages/shared/test_chunked_loss.py)
    # What liger-kernel 0.8.5 has a fused loss for (transformers/monkey_patch.py, MODEL_TYPE_TO_APPLY_LIGER_FN); it leaves every other model as it is,
    # without a message. tests/gpu/test_fused_loss.py compares this with the installed version.
    fused_loss: bool = False
    # Its attention.
    attention_dropout: float = 0.0  # transformers' default where config.json names none
    capped_scores: bool = False  # a tanh caps the scores, and eager attention keeps it (modeling_gemma2.py, eager_attention_forward)
    window_in_masks: bool = False  # only the masks of transformers hold its sliding window, so kernels without a mask do not know it
    two_masks: bool = False  # of layers with and without a sliding window (modeling_gemma2.py, causal_mask_mapping)
    unrotated: bool = False  # no rotary tables: queries and keys stay views of the fused projection (modeling_gpt2.py)
    # It rotates a part of each head and joins it with the rest: flash attention and cuDNN return the layout of such queries, and the input of the
    # output projection is a copy (transformers/integrations/sdpa_attention.py, the last transpose; torch's at::empty_like(q)).
    joined_heads: bool = False
    latent_inputs: bool = False  # keys and values come from an input of four dimensions, which bitsandbytes' 8-bit layers refuse
    # Its norms and its MLP.
    float_gain: bool = False  # RMSNorm multiplies by its gain in fp32, before it casts (modeling_gemma2.py and modeling_olmo2.py)
    parallel: bool = False  # attention and MLP read the same states, through a norm each (modeling_gpt_neox.py, use_parallel_residual)
    # The activation is gelu_new: operations of Python that keep three values more than torch's kernel: tanh, its sum with one, and half of the inner
    # value (transformers/activations.py, NewGELUActivation).
    composed_gelu: bool = False
    float_routes: bool = False  # the weights of its experts' outputs are fp32 (modeling_mixtral.py, MixtralTopKRouter)
    expert_adapters: bool = False  # PEFT knows how to convert its experts, and its other layers have names of experts


@dataclass(frozen=True)
class ModelFacts:
    """Everything that memory and throughput depend on; counts are exact."""

    family: str  # model_type of config.json
    hidden: int
    layers: int
    intermediate: int  # width of a dense MLP; of a mixture: of one expert
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    max_positions: int
    tied: bool  # the output head is the embedding
    gated_mlp: bool
    experts: int  # per mixture layer; 0: a dense model
    experts_per_token: int
    norms_per_layer: int  # over the hidden width; those of queries and keys are `qk_norm`
    layer_norm: bool  # with a bias, by torch's own kernel; else RMS norms
    qk_norm: bool
    logit_softcap: bool
    sliding_window: int | None
    modules: tuple[ModuleKind, ...]
    residual_dropout: bool = False  # behind the embedding, the attention and the MLP
    traits: Traits = Traits()
    architecture: str = ""  # of a family without a table, the text of its config.json: its layers are traced (trace.py)

    @property
    def parameters(self) -> int:
        return sum(module.parameters * module.instances for module in self.modules)

    def layer_parameters(self, number: int) -> int:
        return sum(module.parameters for module in self.modules if number in module.layers)

    @property
    def mixture(self) -> bool:
        return self.experts > 0

    @property
    def linears(self) -> tuple[ModuleKind, ...]:
        return tuple(module for module in self.modules if module.kind == "linear")
