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

    @property
    def instances(self) -> int:
        return len(self.layers) if self.layers else 1


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
