"""One row per architecture: what transformers 5.23 assumes where config.json is silent, how its modules are listed, and what else it does."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from launcher.facts.model.facts import ModelFacts, Traits
from launcher.facts.model.fields import Fields
from launcher.facts.model.modules import (
    Kinds,
    all_layers,
    around,
    deepseek_v3_modules,
    gated_mlp,
    gpt2_modules,
    gpt_neox_modules,
    mixtral_modules,
    phi3_modules,
    qwen2_moe_modules,
    qwen3_moe_modules,
    rms_norms,
    split_attention,
)

TWO_NORMS = ("input_layernorm", "post_attention_layernorm")
FOUR_NORMS = (*TWO_NORMS, "pre_feedforward_layernorm", "post_feedforward_layernorm")


@dataclass(frozen=True)
class Family:
    modules: Callable[[ModelFacts, Fields], Kinds]
    traits: Traits
    # Defaults of models/*/configuration_*.py. Sizes without a row here must be in config.json.
    defaults: Mapping[str, int | float | bool | None]
    own_names: Mapping[str, str] = field(default_factory=dict)
    norms_per_layer: int = 2
    layer_norm: bool = False
    qk_norm: bool = False
    gated_mlp: bool = True
    mlp_ratio: int | None = None  # of the MLP's width to the hidden one, where config.json states none
    expert_width: str | None = None  # key that holds the width of one expert; None: a dense model


def dense_modules(qkv_bias: bool | str, o_bias: bool | str, mlp_bias: bool | str, norms: tuple[str, ...]) -> Callable[[ModelFacts, Fields], Kinds]:
    """Llama's layout; each bias is always there, never there, or named by a key."""

    def modules(facts: ModelFacts, fields: Fields) -> Kinds:
        mlp = gated_mlp("model.layers.*.mlp", facts.hidden, facts.intermediate, fields.switch(mlp_bias), all_layers(facts))
        attention = split_attention(facts, fields.switch(qkv_bias), fields.switch(o_bias))
        return around(facts, (*attention, *mlp, *rms_norms(facts, *norms)))

    return modules


QWEN = {"max_position_embeddings": 32768, "tie_word_embeddings": False, "use_sliding_window": False, "sliding_window": 4096}
SPARSE = {"decoder_sparse_step": 1, "mlp_only_layers": None}
GEMMA = {"num_key_value_heads": 4, "head_dim": 256, "tie_word_embeddings": True, "attention_bias": False, "sliding_window": 4096}

FAMILIES: dict[str, Family] = {
    "llama": Family(
        modules=dense_modules("attention_bias", "attention_bias", "mlp_bias", TWO_NORMS),
        traits=Traits(traced=True, varlen=True, head_alone=True, fused_loss=True),
        defaults={"max_position_embeddings": 2048, "tie_word_embeddings": False, "attention_bias": False, "mlp_bias": False},
    ),
    "mistral": Family(
        modules=dense_modules(False, False, False, TWO_NORMS),
        traits=Traits(traced=True, varlen=True, head_alone=True, fused_loss=True),
        defaults={"num_key_value_heads": 8, "max_position_embeddings": 131072, "tie_word_embeddings": False, "sliding_window": 4096},
    ),
    "qwen2": Family(
        modules=dense_modules(True, False, False, TWO_NORMS),
        traits=Traits(traced=True, varlen=True, head_alone=True, fused_loss=True),
        defaults={**QWEN, "num_key_value_heads": 32},
    ),
    "qwen3": Family(
        modules=dense_modules("attention_bias", "attention_bias", False, TWO_NORMS),
        traits=Traits(traced=True, varlen=True, head_alone=True, fused_loss=True),
        defaults={**QWEN, "num_key_value_heads": 32, "head_dim": 128, "attention_bias": False},
        qk_norm=True,
    ),
    "phi3": Family(
        modules=phi3_modules,
        traits=Traits(traced=True, varlen=True, head_alone=True, fused_loss=True, joined_heads=True),
        defaults={"max_position_embeddings": 4096, "tie_word_embeddings": False, "sliding_window": None},
    ),
    "gemma2": Family(
        modules=dense_modules("attention_bias", "attention_bias", False, FOUR_NORMS),
        traits=Traits(traced=True, fused_loss=True, capped_scores=True, two_masks=True, float_gain=True),
        defaults={**GEMMA, "max_position_embeddings": 8192, "final_logit_softcapping": 30.0},
        norms_per_layer=4,
    ),
    "gemma3_text": Family(
        modules=dense_modules("attention_bias", "attention_bias", False, FOUR_NORMS),
        traits=Traits(traced=True, varlen=True, head_alone=True, fused_loss=True, two_masks=True, float_gain=True),
        # Published Gemma 3 files leave out the number of heads and the vocabulary where they equal these.
        defaults={**GEMMA, "num_attention_heads": 8, "vocab_size": 262208, "max_position_embeddings": 131072, "final_logit_softcapping": None},
        norms_per_layer=4,
        qk_norm=True,
    ),
    "gpt2": Family(
        modules=gpt2_modules,
        traits=Traits(traced=True, varlen=True, head_alone=True, attention_dropout=0.1, unrotated=True, composed_gelu=True),
        defaults={"max_position_embeddings": 1024, "tie_word_embeddings": True, "resid_pdrop": 0.1},
        own_names={
            "hidden_size": "n_embd",
            "num_hidden_layers": "n_layer",
            "num_attention_heads": "n_head",
            "max_position_embeddings": "n_positions",
            "intermediate_size": "n_inner",
        },
        layer_norm=True,
        gated_mlp=False,
        mlp_ratio=4,
    ),
    "gpt_neox": Family(
        modules=gpt_neox_modules,
        traits=Traits(traced=True, varlen=True, head_alone=True, joined_heads=True, parallel=True),
        defaults={"max_position_embeddings": 2048, "tie_word_embeddings": False, "attention_bias": True},
        layer_norm=True,
        gated_mlp=False,
    ),
    "mixtral": Family(
        modules=mixtral_modules,
        traits=Traits(traced=True, varlen=True, head_alone=True, fused_loss=True, float_routes=True),
        defaults={
            "num_key_value_heads": 8,
            "max_position_embeddings": 131072,
            "tie_word_embeddings": False,
            "sliding_window": None,
            "num_experts": 8,
            "num_experts_per_tok": 2,
        },
        own_names={"num_experts": "num_local_experts"},
        expert_width="intermediate_size",
    ),
    "qwen2_moe": Family(
        modules=qwen2_moe_modules,
        traits=Traits(traced=True, varlen=True, head_alone=True, window_in_masks=True),
        defaults={
            **QWEN,
            **SPARSE,
            "num_key_value_heads": 16,
            "moe_intermediate_size": 1408,
            "shared_expert_intermediate_size": 5632,
            "num_experts": 60,
            "num_experts_per_tok": 4,
            "qkv_bias": True,
        },
        expert_width="moe_intermediate_size",
    ),
    "qwen3_moe": Family(
        modules=qwen3_moe_modules,
        traits=Traits(traced=True, varlen=True, head_alone=True, fused_loss=True),
        defaults={
            **QWEN,
            **SPARSE,
            "num_key_value_heads": 4,
            "moe_intermediate_size": 768,
            "num_experts": 128,
            "num_experts_per_tok": 8,
            "attention_bias": False,
        },
        own_names={"num_experts": "num_local_experts"},
        qk_norm=True,
        expert_width="moe_intermediate_size",
    ),
    "deepseek_v3": Family(
        modules=deepseek_v3_modules,
        traits=Traits(traced=True, varlen=True, head_alone=True, fused_loss=True, latent_inputs=True, float_routes=True, expert_adapters=True),
        defaults={
            "max_position_embeddings": 4096,
            "tie_word_embeddings": False,
            "attention_bias": False,
            "moe_intermediate_size": 2048,
            "n_shared_experts": 1,
            "num_experts": 256,
            "num_experts_per_tok": 8,
            "first_k_dense_replace": 3,
            "kv_lora_rank": 512,
            "q_lora_rank": 1536,
            "qk_rope_head_dim": 64,
            "v_head_dim": 128,
            "qk_nope_head_dim": 128,
        },
        own_names={"num_experts": "n_routed_experts"},
        expert_width="moe_intermediate_size",
    ),
}

# What is known of families without a table of modules. transformers counts these.
ADAPTED_EXPERTS = (  # whose names PEFT converts (transformers/conversion_mapping.py, _MODEL_TO_CONVERSION_PATTERN, those like qwen2_moe)
    *("afmoe", "beam", "cohere2_moe", "deepseek_v2", "deepseek_v32", "dots1", "ernie4_5_moe", "exaone_moe", "flex_olmo", "glm4_moe", "glm4_moe_lite"),
    *("glm4v_moe", "glm_moe_dsa", "hunyuan_v1_moe", "longcat_flash", "mellum", "olmoe", "qwen3_omni_moe", "solar_open"),
)
COUNTED: dict[str, Traits] = {
    **{name: Traits(expert_adapters=True) for name in ADAPTED_EXPERTS},
    "deepseek_v2": Traits(fused_loss=True, expert_adapters=True),
    "exaone4": Traits(fused_loss=True),
    "falcon_h1": Traits(fused_loss=True),
    "gemma": Traits(fused_loss=True),
    "glm4": Traits(fused_loss=True),
    "gpt_oss": Traits(fused_loss=True),
    "hunyuan_v1_dense": Traits(fused_loss=True),
    "llama4_text": Traits(fused_loss=True),
    "ministral": Traits(fused_loss=True),
    "nemotron": Traits(fused_loss=True),
    "olmo2": Traits(fused_loss=True, float_gain=True),
    "olmo3": Traits(fused_loss=True),
    "qwen3_next": Traits(fused_loss=True, expert_adapters=True),
    "smollm3": Traits(fused_loss=True),
}
NEUTRAL = Traits()


def traits_of(model_type: object) -> Traits:
    """The traits of the family that a config.json names; the defaults where it names none, or one that is in neither table."""
    if not isinstance(model_type, str):
        return NEUTRAL
    return FAMILIES[model_type].traits if model_type in FAMILIES else COUNTED.get(model_type, NEUTRAL)
