"""The cells of the memory measurements, as overrides: families x regimes x batch x length x checkpointing x loss x optimizer."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

FULL_BF16 = "regime=full training.precision=bf16"
FULL_AMP = "regime=full training.precision=bf16_amp"
LORA = "regime=lora"
QLORA8, QLORA4, QLORA2 = "regime=qlora regime.bits=8", "regime=qlora regime.bits=4", "regime=qlora regime.bits=2"
FREEZE = "regime=freeze"
OFF = "training.gradient_checkpointing=false"
CHUNKED, FUSED = "training.loss=chunked", "training.loss=fused"

HEAD = """defaults: [local, _self_]
name: {name}
path: null
init: random
tokenizer: bytes
architecture: {{{shape}}}
"""

# Published shapes, with fewer layers where the whole would only repeat them.
SHAPES = {
    "phi3_mini": "model_type: phi3, vocab_size: 32064, hidden_size: 3072, intermediate_size: 8192, num_hidden_layers: 8, num_attention_heads: 32, "
    "num_key_value_heads: 32, max_position_embeddings: 4096, tie_word_embeddings: false, pad_token_id: 0, eos_token_id: 2, bos_token_id: 1",
    "gemma2_2b": "model_type: gemma2, vocab_size: 256000, hidden_size: 2304, intermediate_size: 9216, num_hidden_layers: 8, num_attention_heads: 8, "
    "num_key_value_heads: 4, head_dim: 256, max_position_embeddings: 8192, tie_word_embeddings: true",
    "gemma3_1b": "model_type: gemma3_text, vocab_size: 262144, hidden_size: 1152, intermediate_size: 6912, num_hidden_layers: 12, "
    "num_attention_heads: 4, num_key_value_heads: 1, head_dim: 256, sliding_window: 512, max_position_embeddings: 32768, tie_word_embeddings: true",
    "gpt2_medium": "model_type: gpt2, vocab_size: 50257, n_embd: 1024, n_layer: 24, n_head: 16, n_positions: 1024",
    "pythia_1.4b": "model_type: gpt_neox, vocab_size: 50304, hidden_size: 2048, intermediate_size: 8192, num_hidden_layers: 24, "
    "num_attention_heads: 16, max_position_embeddings: 2048, tie_word_embeddings: false",
    "gpt2_small": "model_type: gpt2, vocab_size: 50257, n_embd: 768, n_layer: 12, n_head: 12, n_positions: 1024",
    "pythia_410m": "model_type: gpt_neox, vocab_size: 50304, hidden_size: 1024, intermediate_size: 4096, num_hidden_layers: 24, "
    "num_attention_heads: 16, max_position_embeddings: 2048, tie_word_embeddings: false",
    "qwen3_0.6b": "model_type: qwen3, vocab_size: 151936, hidden_size: 1024, intermediate_size: 3072, num_hidden_layers: 28, "
    "num_attention_heads: 16, num_key_value_heads: 8, head_dim: 128, max_position_embeddings: 40960, tie_word_embeddings: true",
    "olmo2_1b": "model_type: olmo2, vocab_size: 100352, hidden_size: 2048, intermediate_size: 8192, num_hidden_layers: 16, "
    "num_attention_heads: 16, num_key_value_heads: 16, max_position_embeddings: 4096, tie_word_embeddings: false",
    "mistral_7b_cut": "model_type: mistral, vocab_size: 32768, hidden_size: 4096, intermediate_size: 14336, num_hidden_layers: 6, "
    "num_attention_heads: 32, num_key_value_heads: 8, sliding_window: null, max_position_embeddings: 32768, tie_word_embeddings: false",
    "qwen3_8b_cut": "model_type: qwen3, vocab_size: 151936, hidden_size: 4096, intermediate_size: 12288, num_hidden_layers: 6, "
    "num_attention_heads: 32, num_key_value_heads: 8, head_dim: 128, max_position_embeddings: 40960, tie_word_embeddings: false",
    "qwen2.5_7b_cut": "model_type: qwen2, vocab_size: 152064, hidden_size: 3584, intermediate_size: 18944, num_hidden_layers: 6, "
    "num_attention_heads: 28, num_key_value_heads: 4, max_position_embeddings: 32768, tie_word_embeddings: false",
    "mixtral_cut": "model_type: mixtral, vocab_size: 32000, hidden_size: 4096, intermediate_size: 14336, num_hidden_layers: 2, "
    "num_attention_heads: 32, num_key_value_heads: 8, num_local_experts: 8, num_experts_per_tok: 2, max_position_embeddings: 32768, "
    "tie_word_embeddings: false",
    "qwen2_moe_cut": "model_type: qwen2_moe, vocab_size: 151936, hidden_size: 2048, intermediate_size: 5632, moe_intermediate_size: 1408, "
    "shared_expert_intermediate_size: 5632, num_hidden_layers: 4, num_attention_heads: 16, num_key_value_heads: 16, num_experts: 60, "
    "num_experts_per_tok: 4, max_position_embeddings: 8192, tie_word_embeddings: false",
    "qwen3_moe_cut": "model_type: qwen3_moe, vocab_size: 151936, hidden_size: 2048, intermediate_size: 6144, moe_intermediate_size: 768, "
    "num_hidden_layers: 4, num_attention_heads: 32, num_key_value_heads: 4, head_dim: 128, num_experts: 128, num_experts_per_tok: 8, "
    "max_position_embeddings: 40960, tie_word_embeddings: false",
    "deepseek_cut": "model_type: deepseek_v3, vocab_size: 102400, hidden_size: 2048, intermediate_size: 10944, moe_intermediate_size: 1408, "
    "num_hidden_layers: 4, num_attention_heads: 16, num_key_value_heads: 16, n_routed_experts: 64, n_shared_experts: 2, num_experts_per_tok: 6, "
    "first_k_dense_replace: 1, kv_lora_rank: 512, q_lora_rank: 1536, qk_rope_head_dim: 64, v_head_dim: 128, qk_nope_head_dim: 128, n_group: 1, "
    "topk_group: 1, max_position_embeddings: 4096, tie_word_embeddings: false",
}


@dataclass(frozen=True)
class MemoryCell:
    name: str
    model: str
    micro_batch: int
    length: int
    choices: tuple[str, ...]  # overrides
    gpus: int = 1
    from_files: bool = False  # weights are loaded from a folder of bases.py; else made at random when the cell starts
    rows: str = "samples.json"  # of write_samples in cells.py

    @property
    def overrides(self) -> list[str]:
        return [f"model={self.model}", f"training.micro_batch={self.micro_batch}", f"data.cutoff={self.length}", *self.choices]


def cell(name: str, model: str, micro_batch: int, length: int, *choices: str, gpus: int = 1) -> MemoryCell:
    overrides = tuple(override for text in choices for override in text.split())
    return MemoryCell(f"{name}/{model}/{micro_batch}x{length}", model, micro_batch, length, overrides, gpus)


def write_shapes(folder: Path, more: Mapping[str, str] | None = None) -> Path:
    """The shapes and `more` of them as choices of the group `model`, in a folder for --config-dir."""
    (folder / "model").mkdir(parents=True, exist_ok=True)
    for name, shape in {**SHAPES, **(more or {})}.items():
        text = HEAD.format(name=name, shape=shape)
        (folder / "model" / f"{name}.yaml").write_text(text, encoding="utf-8")
    return folder


CHOSEN_ONE_GPU = (
    cell("full_bf16", "llama3.2_1b", 4, 512, FULL_BF16),
    cell("full_bf16-chunked", "llama3.2_1b", 1, 8192, FULL_BF16, CHUNKED),
    cell("full_amp-kept", "llama3.2_1b", 2, 2048, FULL_AMP, OFF),
    cell("full_amp-fused-adamw_8bit", "llama3.2_1b", 8, 512, FULL_AMP, FUSED, "optim=adamw_8bit"),
    cell("lora", "llama3.2_1b", 2, 4096, LORA),
    cell("lora-chunked", "llama3.2_1b", 1, 32768, LORA, CHUNKED),
    cell("lora-kept-chunked-lion", "llama3.2_1b", 4, 1024, LORA, OFF, CHUNKED, "optim=lion"),
    cell("qlora4-fused-paged_adamw_8bit", "llama3.2_1b", 1, 16384, QLORA4, FUSED, "optim=paged_adamw_8bit"),
    cell("qlora4-kept", "llama3.2_1b", 8, 512, QLORA4, OFF),
    cell("qlora8-chunked", "llama3.2_1b", 2, 2048, QLORA8, CHUNKED),
    cell("qlora2-kept", "llama3.2_1b", 2, 1024, QLORA2, OFF),
    cell("freeze-kept-sgd", "llama3.2_1b", 4, 1024, FREEZE, OFF, "optim=sgd"),
    cell("freeze-chunked", "llama3.2_1b", 1, 4096, FREEZE, CHUNKED),
    cell("full_amp-muon", "llama3.2_1b", 2, 1024, FULL_AMP, "optim=muon"),
    cell("full_bf16-chunked-adamw_foreach", "qwen2.5_0.5b", 2, 1024, FULL_BF16, CHUNKED, "optim=adamw_foreach"),
    cell("full_amp-chunked-paged_adamw", "qwen2.5_0.5b", 2, 1024, FULL_AMP, CHUNKED, "optim=paged_adamw"),
    cell("full_bf16-chunked-lion", "qwen2.5_0.5b", 2, 1024, FULL_BF16, CHUNKED, "optim=lion"),
    cell("full_amp-chunked-lion_8bit", "qwen2.5_0.5b", 2, 1024, FULL_AMP, CHUNKED, "optim=lion_8bit"),
    cell("full_bf16-chunked-paged_lion_8bit", "qwen2.5_0.5b", 2, 1024, FULL_BF16, CHUNKED, "optim=paged_lion_8bit"),
    cell("full_amp-chunked-adafactor", "qwen2.5_0.5b", 2, 1024, FULL_AMP, CHUNKED, "optim=adafactor"),
    cell("full_bf16-chunked-sgd", "qwen2.5_0.5b", 2, 1024, FULL_BF16, CHUNKED, "optim=sgd"),
    cell("full_bf16-chunked-muon", "qwen2.5_0.5b", 2, 1024, FULL_BF16, CHUNKED, "optim=muon"),
    cell("full_bf16-chunked-paged_adamw_8bit", "qwen2.5_0.5b", 2, 1024, FULL_BF16, CHUNKED, "optim=paged_adamw_8bit"),
    cell("full_bf16-chunked-adamw_8bit", "qwen2.5_0.5b", 2, 1024, FULL_BF16, CHUNKED, "optim=adamw_8bit"),
    cell("lora-fused", "qwen2.5_0.5b", 1, 32768, LORA, FUSED),
    cell("lora-accumulated", "qwen2.5_0.5b", 2, 2048, LORA, "training.accumulation=2"),
    cell("lora-eager", "qwen2.5_0.5b", 2, 1024, LORA, "training.attention=eager"),
    cell("lora-packed", "qwen2.5_0.5b", 2, 2048, LORA, "data.packing=true"),
    cell("lora-kept-dropout", "qwen2.5_0.5b", 4, 512, LORA, OFF, "regime.dropout=0.1"),
    cell("lora-chunked-dora", "qwen2.5_0.5b", 4, 512, LORA, CHUNKED, "regime.dora=true"),
    cell("full_amp-kept-chunked", "qwen2.5_0.5b", 4, 1024, FULL_AMP, OFF, CHUNKED),
    cell("full_bf16-chunked", "qwen2.5_0.5b", 1, 16384, FULL_BF16, CHUNKED),
    cell("lora-kept-fused", "qwen2.5_1.5b", 2, 2048, LORA, OFF, FUSED),
    cell("full_bf16-fused", "qwen2.5_1.5b", 1, 8192, FULL_BF16, FUSED),
    cell("qlora4", "qwen2.5_1.5b", 8, 512, QLORA4),
    cell("qlora8-kept", "qwen2.5_1.5b", 1, 4096, QLORA8, OFF),
    cell("lora", "llama3.2_3b", 2, 2048, LORA),
    cell("full_bf16-adamw_8bit", "llama3.2_3b", 1, 2048, FULL_BF16, "optim=adamw_8bit"),
    cell("qlora4-chunked", "llama3.2_3b", 1, 8192, QLORA4, CHUNKED),
    cell("lora", "llama3.1_8b", 1, 4096, LORA),
    cell("qlora4", "llama3.1_8b", 1, 4096, QLORA4),
    cell("full_bf16", "mistral_7b_cut", 2, 2048, FULL_BF16),
    cell("lora-chunked", "mistral_7b_cut", 1, 16384, LORA, CHUNKED),
    cell("qlora4-kept", "mistral_7b_cut", 2, 1024, QLORA4, OFF),
    cell("full_bf16-chunked-adamw_8bit", "qwen3_8b_cut", 2, 2048, FULL_BF16, CHUNKED, "optim=adamw_8bit"),
    cell("lora-kept", "qwen3_8b_cut", 1, 4096, LORA, OFF),
    cell("qlora2", "qwen3_8b_cut", 4, 512, QLORA2),
    cell("full_amp-chunked-lion_8bit", "qwen2.5_7b_cut", 2, 1024, FULL_AMP, CHUNKED, "optim=lion_8bit"),
    cell("lora-q_v", "qwen2.5_7b_cut", 1, 4096, LORA, "regime.targets=[q_proj,v_proj]"),
    cell("full_bf16", "phi3_mini", 2, 2048, FULL_BF16),
    cell("lora-kept", "phi3_mini", 2, 2048, LORA, OFF),
    cell("qlora4-chunked", "phi3_mini", 1, 4096, QLORA4, CHUNKED),
    cell("full_bf16-eager", "gemma2_2b", 1, 2048, FULL_BF16, "training.attention=eager"),
    cell("lora-eager", "gemma2_2b", 1, 2048, LORA, "training.attention=eager"),
    cell("full_bf16", "gemma3_1b", 2, 1024, FULL_BF16),
    cell("lora", "gemma3_1b", 1, 4096, LORA),
    cell("full_amp", "gpt2_medium", 4, 1024, FULL_AMP),
    cell("full_bf16-kept", "gpt2_medium", 4, 1024, FULL_BF16, OFF),
    cell("full_bf16", "pythia_1.4b", 2, 2048, FULL_BF16),
    cell("lora-kept", "pythia_1.4b", 2, 2048, LORA, OFF),
    cell("full_bf16-sgd", "mixtral_cut", 1, 2048, FULL_BF16, "optim=sgd"),
    cell("lora", "mixtral_cut", 1, 4096, LORA),
    cell("full_bf16", "qwen2_moe_cut", 2, 1024, FULL_BF16),
    cell("lora", "qwen2_moe_cut", 1, 4096, LORA),
    cell("full_bf16", "qwen3_moe_cut", 2, 1024, FULL_BF16),
    cell("lora", "qwen3_moe_cut", 1, 4096, LORA),
    cell("full_bf16", "deepseek_cut", 2, 1024, FULL_BF16),
    cell("lora", "deepseek_cut", 1, 4096, LORA),
)

# Ten more were predicted (memory/h200x2_chosen_predicted.jsonl); they are measured with weights from files, in from_files.py.
CHOSEN_TWO_GPUS = (
    cell("lora-ddp", "llama3.2_1b", 2, 2048, LORA, gpus=2),
    cell("full_amp-zero2_offload", "llama3.2_1b", 2, 2048, FULL_AMP, "sharding=zero2_offload", gpus=2),
    cell("full_amp-zero3_offload", "llama3.2_1b", 2, 2048, FULL_AMP, "sharding=zero3_offload", gpus=2),
    cell("lora-zero3_offload", "llama3.2_1b", 2, 2048, LORA, "sharding=zero3_offload", gpus=2),
    cell("lora-fsdp2", "llama3.2_1b", 2, 2048, LORA, "sharding=fsdp2", gpus=2),
    cell("full_bf16-zero2-chunked", "llama3.2_3b", 1, 2048, FULL_BF16, CHUNKED, "sharding=zero2", gpus=2),
    cell("qlora4-ddp", "llama3.2_3b", 2, 1024, QLORA4, gpus=2),
    cell("qlora4-zero3", "llama3.2_3b", 2, 1024, QLORA4, "sharding=zero3", gpus=2),
    cell("qlora8-zero2", "llama3.2_1b", 2, 1024, QLORA8, "sharding=zero2", gpus=2),
    cell("freeze-ddp-kept", "llama3.2_1b", 2, 1024, FREEZE, OFF, gpus=2),
    cell("full_bf16-zero3", "mistral_7b_cut", 2, 2048, FULL_BF16, "sharding=zero3", gpus=2),
    cell("full_bf16-fsdp2", "mistral_7b_cut", 2, 2048, FULL_BF16, "sharding=fsdp2", gpus=2),
    cell("lora-zero2-kept-chunked", "qwen3_8b_cut", 2, 2048, LORA, OFF, CHUNKED, "sharding=zero2", gpus=2),
)
