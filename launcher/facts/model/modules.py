"""The kinds of modules of each architecture, as transformers 5.23 builds and names them (models/*/modeling_*.py)."""

from launcher.facts.model.facts import ModelFacts, ModuleKind
from launcher.facts.model.fields import Fields

Kinds = tuple[ModuleKind, ...]


def linear(name: str, inputs: int, outputs: int, bias: bool, layers: tuple[int, ...]) -> ModuleKind:
    return ModuleKind(name, "linear", inputs, outputs, inputs * outputs + (outputs if bias else 0), layers)


def norm(name: str, parameters: int, layers: tuple[int, ...] = ()) -> ModuleKind:
    return ModuleKind(name, "norm", 0, 0, parameters, layers)


def embedding(name: str, rows: int, width: int) -> ModuleKind:
    return ModuleKind(name, "embedding", 0, 0, rows * width, ())


def head(facts: ModelFacts) -> ModuleKind:
    return ModuleKind("lm_head", "head", facts.hidden, facts.vocab, 0 if facts.tied else facts.hidden * facts.vocab, ())


def all_layers(facts: ModelFacts) -> tuple[int, ...]:
    return tuple(range(facts.layers))


def around(facts: ModelFacts, blocks: Kinds) -> Kinds:
    """The modules outside of the layers, which llama and its descendants name alike."""
    return (embedding("model.embed_tokens", facts.vocab, facts.hidden), *blocks, norm("model.norm", facts.hidden), head(facts))


def rms_norms(facts: ModelFacts, *names: str) -> Kinds:
    return tuple(norm(f"model.layers.*.{name}", facts.hidden, all_layers(facts)) for name in names)


def split_attention(facts: ModelFacts, qkv_bias: bool, o_bias: bool) -> Kinds:
    path, layers = "model.layers.*.self_attn", all_layers(facts)
    queries, keys = facts.heads * facts.head_dim, facts.kv_heads * facts.head_dim
    projections = (
        linear(f"{path}.q_proj", facts.hidden, queries, qkv_bias, layers),
        linear(f"{path}.k_proj", facts.hidden, keys, qkv_bias, layers),
        linear(f"{path}.v_proj", facts.hidden, keys, qkv_bias, layers),
        linear(f"{path}.o_proj", queries, facts.hidden, o_bias, layers),
    )
    norms = (norm(f"{path}.q_norm", facts.head_dim, layers), norm(f"{path}.k_norm", facts.head_dim, layers))
    return projections + (norms if facts.qk_norm else ())


def gated_mlp(path: str, hidden: int, width: int, bias: bool, layers: tuple[int, ...]) -> Kinds:
    if not layers:
        return ()
    return (
        linear(f"{path}.gate_proj", hidden, width, bias, layers),
        linear(f"{path}.up_proj", hidden, width, bias, layers),
        linear(f"{path}.down_proj", width, hidden, bias, layers),
    )


def routed_experts(facts: ModelFacts, layers: tuple[int, ...]) -> Kinds:
    """The router and the experts, which transformers 5 holds as two 3-D parameters per layer."""
    if not layers:
        return ()
    path, weights = "model.layers.*.mlp", facts.experts * facts.intermediate * facts.hidden
    return (
        ModuleKind(f"{path}.gate", "router", facts.hidden, facts.experts, facts.hidden * facts.experts, layers),
        ModuleKind(f"{path}.experts.gate_up_proj", "experts", facts.hidden, 2 * facts.intermediate, 2 * weights, layers),
        ModuleKind(f"{path}.experts.down_proj", "experts", facts.intermediate, facts.hidden, weights, layers),
    )


def phi3_modules(facts: ModelFacts, fields: Fields) -> Kinds:
    path, layers, queries = "model.layers.*", all_layers(facts), facts.heads * facts.head_dim
    blocks = (
        linear(f"{path}.self_attn.o_proj", queries, facts.hidden, False, layers),
        linear(f"{path}.self_attn.qkv_proj", facts.hidden, queries + 2 * facts.kv_heads * facts.head_dim, False, layers),
        linear(f"{path}.mlp.gate_up_proj", facts.hidden, 2 * facts.intermediate, False, layers),
        linear(f"{path}.mlp.down_proj", facts.intermediate, facts.hidden, False, layers),
        *rms_norms(facts, "input_layernorm", "post_attention_layernorm"),
    )
    return around(facts, blocks)


def gpt2_modules(facts: ModelFacts, fields: Fields) -> Kinds:
    """Conv1D is GPT-2's transposed linear layer; PEFT and bitsandbytes treat it as one."""
    path, layers, hidden = "transformer.h.*", all_layers(facts), facts.hidden
    return (
        embedding("transformer.wte", facts.vocab, hidden),
        embedding("transformer.wpe", facts.max_positions, hidden),
        norm(f"{path}.ln_1", 2 * hidden, layers),
        linear(f"{path}.attn.c_attn", hidden, 3 * hidden, True, layers),
        linear(f"{path}.attn.c_proj", hidden, hidden, True, layers),
        norm(f"{path}.ln_2", 2 * hidden, layers),
        linear(f"{path}.mlp.c_fc", hidden, facts.intermediate, True, layers),
        linear(f"{path}.mlp.c_proj", facts.intermediate, hidden, True, layers),
        norm("transformer.ln_f", 2 * hidden),
        head(facts),
    )


def gpt_neox_modules(facts: ModelFacts, fields: Fields) -> Kinds:
    path, layers, hidden, bias = "gpt_neox.layers.*", all_layers(facts), facts.hidden, fields.flag("attention_bias")
    return (
        embedding("gpt_neox.embed_in", facts.vocab, hidden),
        norm(f"{path}.input_layernorm", 2 * hidden, layers),
        linear(f"{path}.attention.query_key_value", hidden, 3 * hidden, bias, layers),
        linear(f"{path}.attention.dense", hidden, hidden, bias, layers),
        norm(f"{path}.post_attention_layernorm", 2 * hidden, layers),
        linear(f"{path}.mlp.dense_h_to_4h", hidden, facts.intermediate, True, layers),
        linear(f"{path}.mlp.dense_4h_to_h", facts.intermediate, hidden, True, layers),
        norm("gpt_neox.final_layer_norm", 2 * hidden),
        head(facts),
    )


def mixtral_modules(facts: ModelFacts, fields: Fields) -> Kinds:
    blocks = (
        *split_attention(facts, qkv_bias=False, o_bias=False),
        *routed_experts(facts, all_layers(facts)),
        *rms_norms(facts, "input_layernorm", "post_attention_layernorm"),
    )
    return around(facts, blocks)


def sparse_layers(facts: ModelFacts, fields: Fields) -> tuple[int, ...]:
    dense, step = fields.layer_numbers("mlp_only_layers"), fields.size("decoder_sparse_step")
    return tuple(number for number in all_layers(facts) if number not in dense and (number + 1) % step == 0)


def dense_layers(facts: ModelFacts, sparse: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(number for number in all_layers(facts) if number not in sparse)


def qwen2_moe_modules(facts: ModelFacts, fields: Fields) -> Kinds:
    sparse, path, hidden = sparse_layers(facts, fields), "model.layers.*.mlp", facts.hidden
    shared = fields.size("shared_expert_intermediate_size")
    gate = (linear(f"{path}.shared_expert_gate", hidden, 1, False, sparse),) if sparse else ()
    blocks = (
        *split_attention(facts, qkv_bias=fields.flag("qkv_bias"), o_bias=False),
        *routed_experts(facts, sparse),
        *gated_mlp(f"{path}.shared_expert", hidden, shared, False, sparse),
        *gate,
        *gated_mlp(path, hidden, fields.size("intermediate_size"), False, dense_layers(facts, sparse)),
        *rms_norms(facts, "input_layernorm", "post_attention_layernorm"),
    )
    return around(facts, blocks)


def qwen3_moe_modules(facts: ModelFacts, fields: Fields) -> Kinds:
    sparse, bias = sparse_layers(facts, fields), fields.flag("attention_bias")
    blocks = (
        *split_attention(facts, qkv_bias=bias, o_bias=bias),
        *routed_experts(facts, sparse),
        *gated_mlp("model.layers.*.mlp", facts.hidden, fields.size("intermediate_size"), False, dense_layers(facts, sparse)),
        *rms_norms(facts, "input_layernorm", "post_attention_layernorm"),
    )
    return around(facts, blocks)


def latent_attention(facts: ModelFacts, fields: Fields) -> Kinds:
    """DeepSeek's MLA (arXiv:2412.19437, section 2.1.1): queries, keys and values through low-rank latents."""
    path, layers, bias = "model.layers.*.self_attn", all_layers(facts), fields.flag("attention_bias")
    queries, q_rank, kv_rank = facts.heads * facts.head_dim, fields.optional_size("q_lora_rank"), fields.size("kv_lora_rank")
    values = facts.heads * fields.size("v_head_dim")
    whole_queries = (linear(f"{path}.q_proj", facts.hidden, queries, False, layers),)
    return (
        *(whole_queries if q_rank is None else low_rank_queries(facts.hidden, q_rank, queries, bias, layers)),
        linear(f"{path}.kv_a_proj_with_mqa", facts.hidden, kv_rank + fields.size("qk_rope_head_dim"), bias, layers),
        norm(f"{path}.kv_a_layernorm", kv_rank, layers),
        linear(f"{path}.kv_b_proj", kv_rank, facts.heads * fields.size("qk_nope_head_dim") + values, False, layers),
        linear(f"{path}.o_proj", values, facts.hidden, bias, layers),
    )


def low_rank_queries(hidden: int, rank: int, queries: int, bias: bool, layers: tuple[int, ...]) -> Kinds:
    path = "model.layers.*.self_attn"
    return (
        linear(f"{path}.q_a_proj", hidden, rank, bias, layers),
        norm(f"{path}.q_a_layernorm", rank, layers),
        linear(f"{path}.q_b_proj", rank, queries, False, layers),
    )


def deepseek_v3_modules(facts: ModelFacts, fields: Fields) -> Kinds:
    leading = fields.count("first_k_dense_replace")
    dense, sparse = all_layers(facts)[:leading], all_layers(facts)[leading:]
    path, shared = "model.layers.*.mlp", fields.size("n_shared_experts") * facts.intermediate
    blocks = (
        *latent_attention(facts, fields),
        *routed_experts(facts, sparse),
        *gated_mlp(f"{path}.shared_experts", facts.hidden, shared, False, sparse),
        *gated_mlp(path, facts.hidden, fields.size("intermediate_size"), False, dense),
        *rms_norms(facts, "input_layernorm", "post_attention_layernorm"),
    )
    return around(facts, blocks)
