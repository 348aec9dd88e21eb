"""Numbers that no formula gives: measured, or read in a library's source. Bytes unless a name says otherwise."""

GIB = 2**30
MIB = 2**20

# Outside of torch's allocator: NVML used minus torch reserved, one H200, torch 2.11.0+cu130, eight runs of benchmarks/results/h200_sft.jsonl
# that had their GPU to themselves (1.296 to 1.298 GiB; 1.36 with int8). A bare loop without transformers' Trainer and its libraries takes 0.75.
CUDA_CONTEXT = int(1.298 * GIB)

# NVML used minus torch reserved minus the context, per GPU of 2 x H200 over NVLink, DeepSpeed 0.19.8, runs that had their GPUs to themselves: full
# training of Llama-3.2-1B in a bare Trainer (2.17, 2.65 and 1.77 GiB with the context), and adapters (benchmarks/results/h200x2_sft.jsonl: 1.58, 2.05
# and 1.77; FSDP2 1.58 and 1.70).
NCCL = {
    "ddp": int(0.87 * GIB),
    "zero1": int(1.35 * GIB),
    "zero2": int(1.35 * GIB),
    "zero2_offload": int(1.35 * GIB),
    "zero3": int(0.47 * GIB),
    "zero3_offload": int(0.47 * GIB),
    "fsdp2": int(0.87 * GIB),  # not measured: one communicator, as DDP
}
NCCL_ADAPTERS = {
    "ddp": int(0.28 * GIB),
    "zero1": int(0.75 * GIB),  # not measured: as ZeRO-2
    "zero2": int(0.75 * GIB),
    "zero2_offload": int(0.75 * GIB),
    "zero3": int(0.47 * GIB),
    "zero3_offload": int(0.47 * GIB),
    "fsdp2": int(0.4 * GIB),
}

# Inside of torch's allocator: 32 MiB on Hopper, for the forward and the backward thread each (ATen/cuda/CublasHandlePool.cpp).
CUBLAS_WORKSPACE = 64 * MIB

# Smallest cap that still runs over peak allocated. Two jobs on an H200 under caps needed 0.2 and 0.5 % more, bisected to 0.5 %
# (benchmarks/results/h200_memory_caps.jsonl); an allocator simulation of four smaller ones gave 1.2 to 3.0 % without the expandable segments
# that the launcher sets.
FRAGMENTATION = 0.01

# DeepSpeed 0.19.8, runtime/zero/config.py: the defaults of reduce_bucket_size, stage3_max_live_parameters and sub_group_size, in elements.
REDUCE_BUCKET = 500_000_000
MAX_LIVE = 1_000_000_000
SUB_GROUP = 1_000_000_000

# bitsandbytes/optim/optimizer.py: min_8bit_size; smaller tensors keep 32-bit states. Block size of the 8-bit states' scales.
SMALL_TENSOR = 4096
PAGED_TENSOR = 100_000  # elements, get_state_buffer: states of smaller tensors stay on the GPU
STATE_BLOCK = 256

# bitsandbytes/functional.py: NF4 holds 4 bits and one fp32 scale per 64 weights; double quantisation holds 8-bit scales and one fp32 per 256 of them.
NF4_BLOCK = 64
NF4_SCALE_BLOCK = 256
# trainers quantise with HQQ in groups of 64 weights: a 16-bit scale and a 16-bit zero each.
HQQ_GROUP = 64

# Host memory of a rank that nothing can drop, before it holds a model. Derived, not measured: a rank on an H200 was resident with 1.32 GiB when its
# weights were loaded and with 2.02 to 2.14 GiB at its end (benchmarks/results/h200_memory.jsonl, host less the weights), of which pages of libraries'
# files are taken to be 0.4 and 0.65 GiB. With 382 MiB anonymous and 139 MiB of files after the imports, measured with torch for CPUs.
RANK_HOST_LOADING = int(0.9 * GIB)
RANK_HOST_TRAINING = int(1.4 * GIB)
RANK_HOST_CPU = int(0.47 * GIB)  # measured: 0.463 and 0.475 GiB
# glibc's malloc maps blocks of at least this size one by one, however often smaller ones were freed (mallopt(3), M_MMAP_THRESHOLD).
MALLOC_MAPS = 32 * MIB
# On a CPU: what malloc and the kernels' scratch hold above what is alive, as a share of it. Four runs with both numbers: two ranks of demo and one of
# 58 M parameters, full in fp32 and LoRA, are met within -5 and +13 %.
CPU_SLACK = 0.2
DATALOADER_WORKER = int(0.25 * GIB)  # what a forked worker does not share

# trainers/loss.py: tokens whose logits exist at a time under training.loss=chunked.
LOSS_CHUNK = 512
