"""Numbers that no formula gives: measured, or read in a library's source. Bytes unless a name says otherwise."""

GIB = 2**30
MIB = 2**20

# Outside of torch's allocator: NVML's figure of the process minus torch reserved, one H200, torch 2.11.0+cu130, the 70 runs of
# benchmarks/results/memory/h200_from_files.jsonl: 1.270 to 1.289 GiB, and 1.348 where bitsandbytes multiplies in 8 bits through cuBLASLt.
# A bare loop without transformers' Trainer and its libraries takes 0.75.
CUDA_CONTEXT = int(1.287 * GIB)
INT8_LIBRARY = int(0.061 * GIB)
# 44 runs with training.kernels=fused (h200_fused.jsonl, h200_fused_again.jsonl): 0.072 to 0.080 GiB less; no thread of torch's own multiplies there.
# Seven runs with GaLore: 0.096 to 0.098 GiB more, for the singular values of its projections (torch.linalg.svd through cuSOLVER and MAGMA).
ONE_THREAD = int(0.072 * GIB)
LINEAR_ALGEBRA = int(0.097 * GIB)

# Inside of torch's allocator: of each thread that multiplies, on Hopper (ATen/cuda/CublasHandlePool.cpp).
CUBLAS_WORKSPACE = 32 * MIB

# Smallest cap that still runs less peak allocated. Before an allocation fails the allocator gives back every free page, but pages of 20 MiB that a
# living block touches stay whole: a number of pages, not a share. Of nine jobs under caps on an H200 (benchmarks/results/memory/h200_caps*.jsonl)
# adapters needed 5 to 14 pages more, full training in 16 bits 7 to 19 at 78 GB, and an 8-bit AdamW under autocast, whose casts lie between
# gradients and states, 12 to 19; the replay of segment.py with a cap gives 18 there, and 2 to 7 without autocast. Two large adapter jobs without
# checkpointing and one with an 8-bit AdamW needed 2.0 to 2.3 % more than allocated, at most 0.9 % more than pages and share give: gate.margin covers
# that.
FRAGMENTED_PAGES = 9
FRAGMENTED_PAGES_AUTOCAST = 19
FRAGMENTATION = 0.01

# DeepSpeed 0.19.8, runtime/zero/config.py: the defaults of stage3_max_live_parameters and sub_group_size, in elements.
MAX_LIVE = 1_000_000_000
SUB_GROUP = 1_000_000_000

# bitsandbytes/optim/optimizer.py: min_8bit_size; smaller tensors keep 32-bit states. Block size of the 8-bit states' scales.
SMALL_TENSOR = 4096
PAGED_TENSOR = 100_000  # elements, get_state_buffer: states of smaller tensors stay on the GPU
STATE_BLOCK = 256

HQQ_SEARCH = (
    22.375  # bytes an element of a matrix on the GPU: its fp32 copy, and fp16 steps of hqq/core/optimize.py (tests/trainers/model/test_experts.py)
)

# Host memory of a rank that nothing can drop, before it holds a model: anonymous and shared pages when loading and when training, less what the
# terms of host.py say. Set by eight cells of results/memory/h200_from_files.jsonl and memory/h200x2_from_files.jsonl: lora-kept/mistral_7b_cut/4x512,
# full_bf16-kept/qwen3_0.6b/1x4096, qlora8/qwen3_8b_cut/1x4096 and lora/gpt2_medium/8x1024 (0.89 to 0.92 and 1.41 to 1.48 GiB);
# qlora4/mixtral_cut/1x2048 and lora-kept/qwen3_moe_cut/1x2048 (1.66, 1.64);
# full_bf16-zero1/llama3.2_1b/2x2048 and lora-zero3/llama3.1_8b/1x2048 (1.07, 1.57 to 1.59).
RANK_HOST_LOADING = int(0.91 * GIB)
RANK_HOST_TRAINING = int(1.45 * GIB)
EXPERT_KERNELS = int(0.2 * GIB)  # torch's grouped matrix products
DEEPSPEED = int(0.15 * GIB)
RANK_HOST_CPU = int(0.38 * GIB)  # memory/cpu.jsonl: three ranks of demo models hold 0.378 to 0.400 GiB, with at most 0.022 of training
# glibc's malloc maps blocks of at least this size one by one, however often smaller ones were freed (mallopt(3), M_MMAP_THRESHOLD).
MALLOC_MAPS = 32 * MIB
# On a CPU: what malloc and the kernels' scratch hold above what is alive, as a share of it. Of thirteen runs (memory/cpu.jsonl) half
# are met within 9 %; LoRA under ZeRO-3 holds most, 28 % more than this.
CPU_SLACK = 0.3
DATALOADER_WORKER = int(0.25 * GIB)  # what a forked worker does not share
