"""Tiny models of the families that tests compare: sizes that no preset has, small enough for a step in milliseconds."""

from typing import Any

SIZES: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
WIDE = SIZES | {"hidden_size": 64, "intermediate_size": 128}  # whole blocks of quantised layers
WINDOW = {"sliding_window": 4}
OF_FAMILY: dict[str, dict[str, Any]] = {
    "gpt2": {"vocab_size": 96, "n_embd": 32, "n_layer": 2, "n_head": 4, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
    "gemma3_text": SIZES | WINDOW | {"head_dim": 8, "layer_types": ["sliding_attention", "full_attention"]},
    "mistral": SIZES | WINDOW,
    "phi3": SIZES | WINDOW,
    "qwen2": SIZES | WINDOW | {"use_sliding_window": True, "max_window_layers": 1},
    "qwen3": SIZES | {"head_dim": 8},
    "deepseek_v3": SIZES
    | {"num_key_value_heads": 4, "q_lora_rank": 16, "kv_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 6}
    | {"n_routed_experts": 4, "n_group": 1, "topk_group": 1, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "first_k_dense_replace": 1},
    "mixtral": SIZES | WINDOW | {"num_local_experts": 4},
    "qwen2_moe": SIZES | {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16},
    "qwen3_moe": SIZES | {"head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
}
