"""The cells of host memory on a CPU node: small enough for 4 GiB, with weights that are made when the cell starts."""

from benchmarks.memory.chosen import LORA, OFF, cell

FULL, FULL_AMP = "regime=full training.precision=fp32", "regime=full training.precision=bf16_amp"
LORA_FP32 = f"{LORA} training.precision=fp32"
FREEZE = "regime=freeze regime.layers=1 training.precision=fp32"

ON_CPUS = (
    cell("full", "demo", 8, 128, FULL),
    cell("lora-zero2", "demo", 8, 128, LORA_FP32, "sharding=zero2", gpus=2),
    cell("full-zero3", "demo", 4, 128, FULL, "sharding=zero3", gpus=2),
    cell("full", "gpt2_small", 1, 256, FULL),
    cell("full-kept", "gpt2_small", 2, 256, FULL, OFF),
    cell("full_amp", "gpt2_small", 1, 128, FULL_AMP),
    cell("full-adafactor", "gpt2_small", 2, 128, FULL, "optim=adafactor"),
    cell("full-sgd-chunked", "gpt2_small", 2, 128, FULL, "optim=sgd training.loss=chunked"),
    cell("freeze", "gpt2_small", 4, 128, FREEZE),
    cell("lora", "gpt2_small", 2, 256, LORA_FP32),
    cell("full-ddp", "gpt2_small", 1, 128, FULL, "sharding=ddp", gpus=2),
    cell("full-zero2", "gpt2_small", 1, 128, FULL, "sharding=zero2", gpus=2),
    cell("lora-zero3", "gpt2_small", 2, 128, LORA_FP32, "sharding=zero3", gpus=2),
    cell("lora", "qwen2.5_0.5b", 1, 128, LORA_FP32),
    cell("lora-kept", "qwen2.5_0.5b", 1, 256, LORA_FP32, OFF),
    cell("full-sgd", "qwen3_0.6b", 1, 64, "regime=full training.precision=bf16", "optim=sgd"),
)
