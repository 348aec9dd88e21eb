"""Memory cells whose weights are loaded from files, predicted with formulas that have seen the first."""

from dataclasses import replace

from benchmarks.memory.chosen import CHUNKED, FREEZE, FULL_AMP, FULL_BF16, FUSED, LORA, OFF, QLORA2, QLORA4, QLORA8, MemoryCell, cell

EAGER, PACKED = "training.attention=eager", "data.packing=true"


def filed(name: str, model: str, micro_batch: int, length: int, *choices: str, gpus: int = 1) -> MemoryCell:
    return replace(cell(name, model, micro_batch, length, *choices, gpus=gpus), from_files=True)


LLAMA = (
    filed("full_bf16-kept", "llama3.2_1b", 1, 2048, FULL_BF16, OFF),
    filed("full_bf16-chunked-accumulated", "llama3.2_1b", 2, 2048, FULL_BF16, CHUNKED, "training.accumulation=4"),
    filed("full_bf16-kept-fused-adamw_8bit", "llama3.2_1b", 4, 512, FULL_BF16, OFF, FUSED, "optim=adamw_8bit"),
    filed("full_amp-chunked-paged_lion_8bit", "llama3.2_1b", 1, 4096, FULL_AMP, CHUNKED, "optim=paged_lion_8bit"),
    filed("full_amp-sgd", "llama3.2_1b", 2, 1024, FULL_AMP, "optim=sgd"),
    filed("full_bf16-muon", "llama3.2_1b", 2, 2048, FULL_BF16, "optim=muon"),
    filed("full_bf16-eager", "llama3.2_1b", 1, 1024, FULL_BF16, EAGER),
    filed("freeze-first-fused", "llama3.2_1b", 2, 2048, FREEZE, FUSED, "regime.layers=-4"),
    filed("freeze-8-adafactor", "llama3.2_1b", 1, 8192, FREEZE, CHUNKED, "regime.layers=8 optim=adafactor"),
    filed("lora-64-kept", "llama3.2_1b", 4, 512, LORA, OFF, "regime.rank=64"),
    filed("lora-mlp-dropout", "llama3.2_1b", 8, 512, LORA, "regime.targets=[gate_proj,up_proj,down_proj] regime.dropout=0.05"),
    filed("lora-dora-kept", "llama3.2_1b", 1, 1024, LORA, OFF, "regime.dora=true"),
    filed("lora-packed-chunked", "llama3.2_1b", 2, 4096, LORA, CHUNKED, PACKED),
    filed("lora-chunked-16", "llama3.2_1b", 16, 1024, LORA, CHUNKED),
    filed("qlora8-kept-fused", "llama3.2_1b", 4, 1024, QLORA8, OFF, FUSED),
    filed("qlora4-chunked", "llama3.2_1b", 1, 32768, QLORA4, CHUNKED),
    filed("qlora2-chunked-lion", "llama3.2_1b", 2, 4096, QLORA2, CHUNKED, "optim=lion"),
    filed("full_bf16-chunked-sgd", "llama3.2_3b", 1, 2048, FULL_BF16, CHUNKED, "optim=sgd"),
    filed("lora-kept-fused-128", "llama3.2_3b", 1, 2048, LORA, OFF, FUSED, "regime.rank=128"),
    filed("qlora4-kept", "llama3.2_3b", 2, 1024, QLORA4, OFF),
    filed("lora-q_v-chunked", "llama3.1_8b", 1, 8192, LORA, CHUNKED, "regime.targets=[q_proj,v_proj] regime.rank=8"),
    filed("qlora4-fused-single_quant", "llama3.1_8b", 2, 2048, QLORA4, FUSED, "regime.double_quant=false"),
)

QWEN = (
    filed("full_amp", "qwen2.5_0.5b", 8, 512, FULL_AMP),
    filed("full_amp-kept-fused", "qwen2.5_0.5b", 2, 2048, FULL_AMP, OFF, FUSED),
    filed("full_bf16-kept-chunked-16", "qwen2.5_0.5b", 16, 512, FULL_BF16, OFF, CHUNKED),
    filed("full_bf16-fused-paged_adamw", "qwen2.5_0.5b", 1, 32768, FULL_BF16, FUSED, "optim=paged_adamw"),
    filed("full_amp-packed-chunked", "qwen2.5_0.5b", 1, 4096, FULL_AMP, CHUNKED, PACKED),
    filed("full_amp-chunked-adamw_foreach", "qwen2.5_0.5b", 1, 2048, FULL_AMP, CHUNKED, "optim=adamw_foreach"),
    filed("freeze-kept-chunked-adamw_8bit", "qwen2.5_0.5b", 4, 2048, FREEZE, OFF, CHUNKED, "regime.layers=6 optim=adamw_8bit"),
    filed("lora-kept-accumulated", "qwen2.5_0.5b", 1, 1024, LORA, OFF, "training.accumulation=3"),
    filed("qlora8-dropout-chunked", "qwen2.5_0.5b", 4, 2048, QLORA8, CHUNKED, "regime.dropout=0.1"),
    filed("qlora4-dora", "qwen2.5_0.5b", 2, 1024, QLORA4, "regime.dora=true"),
    filed("full_bf16-chunked-lion_8bit", "qwen2.5_1.5b", 4, 1024, FULL_BF16, CHUNKED, "optim=lion_8bit"),
    filed("lora-4-chunked", "qwen2.5_1.5b", 1, 16384, LORA, CHUNKED, "regime.rank=4"),
    filed("qlora2", "qwen2.5_1.5b", 1, 2048, QLORA2),
    filed("qlora4-kept-chunked", "qwen2.5_7b_cut", 2, 2048, QLORA4, OFF, CHUNKED),
    filed("full_bf16-fused-adafactor", "qwen2.5_7b_cut", 1, 4096, FULL_BF16, FUSED, "optim=adafactor"),
    filed("full_amp-chunked", "qwen3_0.6b", 2, 2048, FULL_AMP, CHUNKED),
    filed("full_bf16-kept", "qwen3_0.6b", 1, 4096, FULL_BF16, OFF),
    filed("lora-kept-chunked-dropout", "qwen3_0.6b", 8, 512, LORA, OFF, CHUNKED, "regime.dropout=0.1"),
    filed("qlora8", "qwen3_8b_cut", 1, 4096, QLORA8),
    filed("lora-o_down-fused", "qwen3_8b_cut", 2, 2048, LORA, FUSED, "regime.targets=[o_proj,down_proj]"),
)

OTHERS = (
    filed("full_bf16-chunked-adamw_8bit", "mistral_7b_cut", 1, 8192, FULL_BF16, CHUNKED, "optim=adamw_8bit"),
    filed("lora-kept", "mistral_7b_cut", 4, 512, LORA, OFF),
    filed("qlora8-fused", "mistral_7b_cut", 1, 4096, QLORA8, FUSED),
    filed("full_amp-kept-lion", "phi3_mini", 1, 1024, FULL_AMP, OFF, "optim=lion"),
    filed("lora-qkv", "phi3_mini", 4, 1024, LORA, "regime.targets=[qkv_proj]"),
    filed("qlora2-kept", "phi3_mini", 1, 2048, QLORA2, OFF),
    filed("full_amp-eager-adamw_8bit", "gemma2_2b", 1, 1024, FULL_AMP, EAGER, "optim=adamw_8bit"),
    filed("lora-eager-kept", "gemma2_2b", 1, 1024, LORA, EAGER, OFF),
    filed("qlora4-eager", "gemma2_2b", 1, 4096, QLORA4, EAGER),
    filed("full_amp", "gemma3_1b", 1, 2048, FULL_AMP),
    filed("lora-kept", "gemma3_1b", 2, 1024, LORA, OFF),
    filed("lora", "gpt2_medium", 8, 1024, LORA),
    filed("full_amp-kept-sgd", "gpt2_small", 8, 512, FULL_AMP, OFF, "optim=sgd"),
    filed("freeze", "gpt2_small", 16, 1024, FREEZE),
    filed("full_amp", "pythia_410m", 4, 2048, FULL_AMP),
    filed("full_bf16-kept-lion", "pythia_410m", 1, 2048, FULL_BF16, OFF, "optim=lion"),
    filed("qlora4", "pythia_1.4b", 4, 1024, QLORA4),
    filed("lora-kept", "mixtral_cut", 2, 512, LORA, OFF),
    filed("qlora4", "mixtral_cut", 1, 2048, QLORA4),
    filed("lora-q_v-kept", "qwen2_moe_cut", 2, 512, LORA, OFF, "regime.targets=[q_proj,v_proj]"),
    filed("full_bf16-lion_8bit", "qwen2_moe_cut", 1, 2048, FULL_BF16, "optim=lion_8bit"),
    filed("qlora4", "qwen3_moe_cut", 2, 1024, QLORA4),
    filed("lora-kept", "qwen3_moe_cut", 1, 2048, LORA, OFF),
    filed("lora-kept", "deepseek_cut", 1, 1024, LORA, OFF),
    filed("qlora4", "deepseek_cut", 1, 4096, QLORA4),
    filed("full_bf16-sgd", "deepseek_cut", 1, 2048, FULL_BF16, "optim=sgd"),
    filed("full_bf16", "olmo2_1b", 2, 1024, FULL_BF16),
    filed("lora-kept", "olmo2_1b", 1, 4096, LORA, OFF),
    filed("qlora4", "olmo2_1b", 4, 512, QLORA4),
)

FROM_FILES_ONE_GPU = (*LLAMA, *QWEN, *OTHERS)

FROM_FILES_TWO_GPUS = (
    filed("full_bf16-zero1", "llama3.2_1b", 2, 2048, FULL_BF16, "sharding=zero1", gpus=2),
    filed("full_amp-zero2", "llama3.2_1b", 2, 2048, FULL_AMP, "sharding=zero2", gpus=2),
    filed("full_amp-zero3", "llama3.2_1b", 2, 2048, FULL_AMP, "sharding=zero3", gpus=2),
    filed("full_amp-fsdp2", "llama3.2_1b", 2, 2048, FULL_AMP, "sharding=fsdp2", gpus=2),
    filed("full_bf16-zero3", "llama3.2_3b", 1, 2048, FULL_BF16, "sharding=zero3", gpus=2),
    filed("full_amp-fsdp2", "llama3.2_3b", 1, 2048, FULL_AMP, "sharding=fsdp2", gpus=2),
    filed("full_bf16-ddp-kept", "mistral_7b_cut", 2, 2048, FULL_BF16, OFF, gpus=2),
    filed("full_bf16-zero3-chunked", "llama3.1_8b", 1, 2048, FULL_BF16, CHUNKED, "sharding=zero3", gpus=2),
    filed("full_bf16-zero3", "llama3.1_8b", 1, 2048, FULL_BF16, "sharding=zero3", gpus=2),
    filed("full_bf16-fsdp2", "llama3.1_8b", 1, 2048, FULL_BF16, "sharding=fsdp2", gpus=2),
    filed("lora-zero3", "llama3.1_8b", 1, 2048, LORA, "sharding=zero3", gpus=2),
    filed("full_amp-ddp-chunked", "qwen2.5_0.5b", 4, 1024, FULL_AMP, CHUNKED, gpus=2),
    filed("full_amp-zero1-kept", "qwen2.5_1.5b", 1, 2048, FULL_AMP, OFF, "sharding=zero1", gpus=2),
    filed("full_amp-zero2_offload-chunked", "qwen2.5_1.5b", 1, 2048, FULL_AMP, CHUNKED, "sharding=zero2_offload", gpus=2),
    filed("full_amp-zero3_offload", "qwen2.5_0.5b", 2, 1024, FULL_AMP, "sharding=zero3_offload", gpus=2),
    filed("lora-zero1-kept", "llama3.2_1b", 1, 2048, LORA, OFF, "sharding=zero1", gpus=2),
    filed("lora-zero2_offload", "llama3.2_1b", 2, 2048, LORA, "sharding=zero2_offload", gpus=2),
    filed("lora-fsdp2-kept", "qwen2.5_1.5b", 2, 1024, LORA, OFF, "sharding=fsdp2", gpus=2),
    filed("qlora4-fsdp2", "llama3.2_3b", 1, 2048, QLORA4, "sharding=fsdp2", gpus=2),
    filed("qlora4-zero2-chunked", "llama3.2_1b", 4, 1024, QLORA4, CHUNKED, "sharding=zero2", gpus=2),
    filed("freeze-zero2", "llama3.2_1b", 2, 2048, FREEZE, "sharding=zero2", gpus=2),
    filed("full_bf16-zero2-kept-lion", "qwen3_0.6b", 2, 1024, FULL_BF16, OFF, "sharding=zero2 optim=lion", gpus=2),
)
