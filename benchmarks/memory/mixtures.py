"""Cells of quantised mixtures: whole models of random weights, which are drawn and quantised where they train, and cut ones in every bits.

The experts of a whole model in 16 bits would fill more than the disk or the host of most machines with one GPU: none is written.
"""

from benchmarks.memory.chosen import OFF, QLORA2, QLORA4, QLORA8, cell

# Published shapes with fewer layers; transformers has no sdpa for gpt-oss.
SHAPES = {
    "olmoe_cut": "model_type: olmoe, vocab_size: 50304, hidden_size: 2048, intermediate_size: 1024, num_hidden_layers: 4, num_attention_heads: 16, "
    "num_key_value_heads: 16, num_experts: 64, num_experts_per_tok: 8, max_position_embeddings: 4096, tie_word_embeddings: false",
    "gpt_oss_cut": "model_type: gpt_oss, vocab_size: 201088, hidden_size: 2880, intermediate_size: 2880, num_hidden_layers: 4, "
    "num_attention_heads: 64, num_key_value_heads: 8, head_dim: 64, sliding_window: 128, num_local_experts: 32, num_experts_per_tok: 4, "
    "max_position_embeddings: 131072, tie_word_embeddings: false",
}
EAGER = "training.attention=eager"

WHOLE = (
    cell("qlora4", "mixtral_8x7b", 1, 2048, QLORA4),
    cell("qlora4", "qwen3_30b_a3b", 1, 2048, QLORA4),
    cell("qlora4", "mixtral_8x22b", 1, 2048, QLORA4),
    cell("qlora4-kept", "mixtral_8x7b", 1, 1024, QLORA4, OFF),
    cell("qlora8", "mixtral_8x7b", 1, 2048, QLORA8),
    cell("qlora2", "mixtral_8x7b", 1, 2048, QLORA2),
)
CUT = tuple(
    cell(f"{name}{suffix}", model, samples, length, bits, *parts)
    for model in ("mixtral_cut", "qwen3_moe_cut", "qwen2_moe_cut", "deepseek_cut")
    for name, bits in (("qlora8", QLORA8), ("qlora4", QLORA4), ("qlora2", QLORA2))
    for suffix, parts, samples, length in (("", (), 1, 2048), ("-kept", (OFF,), 2, 1024))
    if not (model == "deepseek_cut" and name == "qlora8")  # bitsandbytes' 8-bit layers refuse its keys' inputs of four dimensions
)
UNTABLED = (
    cell("qlora4", "olmoe_cut", 1, 2048, QLORA4),
    cell("qlora2-kept", "olmoe_cut", 2, 1024, QLORA2, OFF),
    cell("qlora4-eager", "gpt_oss_cut", 1, 1024, QLORA4, EAGER),
    cell("qlora8-eager-kept", "gpt_oss_cut", 1, 512, QLORA8, EAGER, OFF),
)
MIXTURES_ONE_GPU = (*WHOLE, *CUT, *UNTABLED)
MIXTURES_TWO_GPUS = (
    cell("qlora4-ddp", "mixtral_cut", 1, 2048, QLORA4, gpus=2),
    cell("qlora8-zero2", "mixtral_cut", 1, 2048, QLORA8, "sharding=zero2", gpus=2),
    cell("qlora4-zero2-kept", "qwen3_moe_cut", 1, 1024, QLORA4, "sharding=zero2", OFF, gpus=2),
    cell("qlora2-ddp", "qwen3_moe_cut", 1, 1024, QLORA2, gpus=2),
)
