"""The third grid of memory cells, on one GPU: none of the others, weights loaded from files, predicted with formulas that have seen both.

The fourth is small: what the third showed to be wrong, mended, in cells that nobody has seen.
"""

from benchmarks.memory.chosen import CHUNKED, FREEZE, FULL_AMP, FULL_BF16, FUSED, LORA, OFF, QLORA2, QLORA4, QLORA8
from benchmarks.memory.from_files import EAGER, PACKED, filed

DROPOUT, ADAFACTOR = "regime.dropout=0.1", "optim=adafactor"

LLAMA = (
    filed("full_bf16-eager-kept", "llama3.2_1b", 1, 2048, FULL_BF16, OFF, EAGER),
    filed("full_bf16-kept-chunked-lion", "llama3.2_1b", 2, 4096, FULL_BF16, OFF, CHUNKED, "optim=lion"),
    filed("full_amp-fused-lion", "llama3.2_1b", 2, 4096, FULL_AMP, FUSED, "optim=lion"),
    filed("full_amp-chunked-adafactor", "llama3.2_1b", 4, 1024, FULL_AMP, CHUNKED, ADAFACTOR),
    filed("full_bf16-chunked", "llama3.2_1b", 3, 1024, FULL_BF16, CHUNKED),
    filed("full_bf16-chunked", "llama3.2_1b", 7, 512, FULL_BF16, CHUNKED),
    filed("full_bf16-adafactor", "llama3.2_1b", 1, 2048, FULL_BF16, ADAFACTOR),
    filed("freeze-kept", "llama3.2_1b", 2, 2048, FREEZE, OFF, "regime.layers=4"),
    filed("freeze-fused-adamw_8bit", "llama3.2_1b", 1, 16384, FREEZE, FUSED, "optim=adamw_8bit"),
    filed("lora-kept-fused", "llama3.2_1b", 4, 2048, LORA, OFF, FUSED),
    filed("lora-chunked-dropout", "llama3.2_1b", 1, 16384, LORA, CHUNKED, DROPOUT),
    filed("lora-chunked-accumulated", "llama3.2_1b", 4, 1024, LORA, CHUNKED, "training.accumulation=2"),
    filed("lora-packed-kept", "llama3.2_1b", 2, 2048, LORA, OFF, PACKED),
    filed("qlora8-fused", "llama3.2_1b", 1, 8192, QLORA8, FUSED),
    filed("qlora8-kept-chunked", "llama3.2_1b", 2, 2048, QLORA8, OFF, CHUNKED),
    filed("qlora4-dora-chunked", "llama3.2_1b", 1, 4096, QLORA4, CHUNKED, "regime.dora=true"),
    filed("qlora4-kept-fused", "llama3.2_1b", 4, 1024, QLORA4, OFF, FUSED),
    filed("qlora2-fused", "llama3.2_1b", 4, 2048, QLORA2, FUSED),
    filed("qlora2-kept-chunked", "llama3.2_1b", 2, 2048, QLORA2, OFF, CHUNKED),
    filed("lora-chunked", "llama3.2_3b", 2, 4096, LORA, CHUNKED),
    filed("qlora8-kept", "llama3.2_3b", 1, 2048, QLORA8, OFF),
    filed("qlora2-chunked", "llama3.2_3b", 1, 8192, QLORA2, CHUNKED),
    filed("full_bf16-fused-paged_lion_8bit", "llama3.2_3b", 1, 4096, FULL_BF16, FUSED, "optim=paged_lion_8bit"),
)

QWEN = (
    filed("full_amp-kept", "qwen2.5_0.5b", 2, 1024, FULL_AMP, OFF),
    filed("full_amp-chunked-galore", "qwen2.5_0.5b", 2, 1024, FULL_AMP, CHUNKED, "optim=galore"),
    filed("full_bf16-chunked-galore_8bit", "qwen2.5_0.5b", 2, 1024, FULL_BF16, CHUNKED, "optim=galore_8bit"),
    filed("full_bf16-chunked-apollo", "qwen2.5_0.5b", 2, 1024, FULL_BF16, CHUNKED, "optim=apollo"),
    filed("full_amp-chunked-badam", "qwen2.5_0.5b", 2, 1024, FULL_AMP, CHUNKED, "optim=badam"),
    filed("full_bf16-chunked-badam", "qwen2.5_1.5b", 2, 1024, FULL_BF16, CHUNKED, "optim=badam"),
    filed("freeze-chunked-galore", "qwen2.5_0.5b", 2, 2048, FREEZE, CHUNKED, "regime.layers=12 optim=galore"),
    filed("qlora8-chunked", "qwen2.5_0.5b", 8, 1024, QLORA8, CHUNKED),
    filed("lora-dora-fused", "qwen2.5_0.5b", 4, 1024, LORA, FUSED, "regime.dora=true"),
    filed("lora-fused-dropout", "qwen2.5_1.5b", 4, 1024, LORA, FUSED, DROPOUT),
    filed("qlora4-chunked", "qwen2.5_1.5b", 1, 16384, QLORA4, CHUNKED),
    filed("full_bf16-chunked-adamw_8bit-accumulated", "qwen2.5_1.5b", 1, 4096, FULL_BF16, CHUNKED, "optim=adamw_8bit training.accumulation=2"),
    filed("qlora2-kept-fused", "qwen2.5_1.5b", 1, 2048, QLORA2, OFF, FUSED),
    filed("full_bf16-fused", "qwen3_0.6b", 4, 1024, FULL_BF16, FUSED),
    filed("qlora4-kept", "qwen3_0.6b", 4, 1024, QLORA4, OFF),
    filed("lora-64-chunked", "qwen3_0.6b", 8, 1024, LORA, CHUNKED, "regime.rank=64"),
)

OTHERS = (
    filed("full_amp-chunked-adamw_8bit", "mistral_7b_cut", 2, 2048, FULL_AMP, CHUNKED, "optim=adamw_8bit"),
    filed("lora-kept-fused", "mistral_7b_cut", 2, 2048, LORA, OFF, FUSED),
    filed("qlora4-chunked", "mistral_7b_cut", 1, 16384, QLORA4, CHUNKED),
    filed("qlora2", "mistral_7b_cut", 4, 1024, QLORA2),
    filed("full_amp-chunked", "phi3_mini", 2, 1024, FULL_AMP, CHUNKED),
    filed("lora-kept-chunked", "phi3_mini", 1, 4096, LORA, OFF, CHUNKED),
    filed("qlora8-chunked", "phi3_mini", 1, 4096, QLORA8, CHUNKED),
    filed("qlora2-chunked", "phi3_mini", 2, 2048, QLORA2, CHUNKED),
    filed("full_bf16-eager-kept-adafactor", "gemma2_2b", 1, 1024, FULL_BF16, OFF, EAGER, ADAFACTOR),
    filed("lora-eager-dropout", "gemma2_2b", 1, 4096, LORA, EAGER, DROPOUT),
    filed("qlora8-eager-kept", "gemma2_2b", 1, 1024, QLORA8, OFF, EAGER),
    filed("full_bf16-chunked-adafactor", "gemma3_1b", 2, 2048, FULL_BF16, CHUNKED, ADAFACTOR),
    filed("lora-kept-chunked", "gemma3_1b", 2, 1024, LORA, OFF, CHUNKED),
    filed("qlora4-kept", "gemma3_1b", 2, 2048, QLORA4, OFF),
    filed("lora-kept", "gpt2_medium", 8, 512, LORA, OFF),
    filed("freeze-kept", "gpt2_medium", 8, 1024, FREEZE, OFF),
    filed("full_amp-chunked", "gpt2_medium", 8, 1024, FULL_AMP, CHUNKED),
    filed("qlora4-chunked", "pythia_1.4b", 4, 2048, QLORA4, CHUNKED),
    filed("qlora8-kept", "pythia_1.4b", 2, 1024, QLORA8, OFF),
    filed("lora-chunked", "pythia_1.4b", 8, 1024, LORA, CHUNKED),
    filed("full_bf16-kept-chunked", "pythia_410m", 8, 1024, FULL_BF16, OFF, CHUNKED),
    filed("lora-chunked", "qwen2_moe_cut", 2, 2048, LORA, CHUNKED),
    filed("full_bf16-chunked-adafactor", "qwen2_moe_cut", 1, 1024, FULL_BF16, CHUNKED, ADAFACTOR),
    filed("qlora4-kept", "qwen2_moe_cut", 1, 2048, QLORA4, OFF),
    filed("lora-chunked", "deepseek_cut", 2, 2048, LORA, CHUNKED),
    filed("lora-kept-chunked", "deepseek_cut", 1, 2048, LORA, OFF, CHUNKED),
    filed("qlora4-chunked", "deepseek_cut", 2, 1024, QLORA4, CHUNKED),
    filed("lora", "olmo2_1b", 4, 1024, LORA),
    filed("full_bf16-kept-adamw_8bit", "olmo2_1b", 1, 2048, FULL_BF16, OFF, "optim=adamw_8bit"),
)

VARIANTS_ONE_GPU = (*LLAMA, *QWEN, *OTHERS)

FIXED_ONE_GPU = (
    filed("full_bf16-kept", "pythia_410m", 4, 1024, FULL_BF16, OFF),
    filed("qlora4-kept-chunked", "pythia_1.4b", 4, 1024, QLORA4, OFF, CHUNKED),
    filed("qlora8-chunked", "pythia_1.4b", 2, 2048, QLORA8, CHUNKED),
    filed("full_bf16-kept-chunked", "phi3_mini", 4, 512, FULL_BF16, OFF, CHUNKED),
    filed("qlora4-kept-chunked", "phi3_mini", 2, 1024, QLORA4, OFF, CHUNKED),
    filed("qlora2-kept", "phi3_mini", 2, 1024, QLORA2, OFF),
    filed("full_amp-chunked-badam", "llama3.2_1b", 2, 2048, FULL_AMP, CHUNKED, "optim=badam"),
    filed("full_amp-kept-badam", "qwen2.5_0.5b", 2, 1024, FULL_AMP, OFF, "optim=badam"),
    filed("full_bf16-badam", "qwen2.5_0.5b", 2, 1024, FULL_BF16, "optim=badam"),
    filed("full_amp-chunked-galore", "llama3.2_1b", 2, 1024, FULL_AMP, CHUNKED, "optim=galore"),
    filed("freeze-chunked-galore", "qwen2.5_0.5b", 4, 1024, FREEZE, CHUNKED, "regime.layers=12 optim=galore"),
    filed("full_amp-chunked-apollo", "qwen2.5_0.5b", 2, 1024, FULL_AMP, CHUNKED, "optim=apollo"),
    filed("lora-dora-chunked", "llama3.2_1b", 2, 2048, LORA, CHUNKED, "regime.dora=true"),
    filed("lora-dora-kept-chunked", "qwen2.5_1.5b", 1, 2048, LORA, OFF, CHUNKED, "regime.dora=true"),
    filed("full_amp-chunked-adafactor", "qwen2.5_1.5b", 2, 1024, FULL_AMP, CHUNKED, ADAFACTOR),
    filed("full_bf16-fused-adamw_8bit", "llama3.2_1b", 4, 1024, FULL_BF16, FUSED, "optim=adamw_8bit"),
    filed("lora-eager-kept", "gemma2_2b", 2, 512, LORA, OFF, EAGER),
    filed("qlora8-chunked", "llama3.2_3b", 2, 2048, QLORA8, CHUNKED),
)
