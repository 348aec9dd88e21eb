"""What a GPU that was not measured may need more or less than the one that was, in bytes, each with its reason.

Every measurement of benchmarks/results was made on NVIDIA H200s. What the formulas count inside of torch is the same elsewhere but for the terms
below; what lies outside of torch depends on the card and its driver.
"""

import re
from dataclasses import dataclass

from conf.shardings import sharding_row
from launcher.facts.node import is_before_ampere
from launcher.memory.constants import CUBLAS_WORKSPACE, GIB, MIB
from launcher.memory.job import Job
from launcher.memory.step.query_sums import MOST, PROCESSORS, query_sums
from launcher.memory.step.recomputation import kept_layers
from launcher.memory.weights.resident import workspace

MEASURED = "H200"
# Patterns of the driver's names. A MIG slice of any card has fewer processors than the card, and counts as another one.
SLICE = r"\bMIG\b"
SAME_PROCESSORS = r"\bG?H[12]00\b"  # GH100, as the H200 has it; the H100 for PCIe has 114 of its 132 processors
BLACKWELL = r"\bG?B[23]00\b|\bRTX 50|\bRTX PRO\b"

# The context: 1.29 GiB on an H200, of which a bare loop has 0.75 and the kernels of all libraries the rest (constants.py). CUDA keeps local memory
# for every thread that may be resident (CUDA programming guide, device memory heap and stack limits), so a card with fewer processors keeps less: a
# T4 has 40. The kernels are built for each generation apart. Less: nearly all of the bare 0.75 GiB, and a quarter of the kernels. More: 12 % of the
# bare one (a B200 has 148 processors), and a third of the kernels.
CONTEXT_LESS, CONTEXT_MORE = int(0.85 * GIB), int(0.27 * GIB)
CONTEXT_SAME = int(0.15 * GIB)  # of the same processors: a seventh of the bare context is gone where 114 of 132 are on
# ATen/cuda/CublasHandlePool.cpp, parseChosenWorkspaceSize: 32 MiB on Hopper and Blackwell, else 2 x 4096 + 8 x 16 KiB; for each thread.
WORKSPACE_ELSEWHERE = (2 * 4096 + 8 * 16) * 1024
# launcher/memory/step/column_sums.py: about 132 MiB for the 132 x 2048 threads of an H200; as much less where there are fewer, and 12 % more on 148.
SUMS_LESS, SUMS_MORE = 132 * MIB, 16 * MIB
# NCCL keeps buffers for every channel and peer, and opens 2 channels over PCIe to 32 over NVSwitch (NCCL user guide, NCCL_MAX_NCHANNELS).
# conf/shardings.py has what two H200 over NVLink held.
NCCL_MORE = int(0.3 * GIB)
# A card that no formula has seen: the largest error of a set that they had not seen and met no fault in: 1.4 % (docs/reference/measured_memory.md).
UNSEEN = 0.02


@dataclass(frozen=True)
class Span:
    """Bytes that a GPU may need less or more than predicted, because it is not the one that was measured."""

    less: int
    more: int
    reason: str


def spans_of(job: Job) -> tuple[Span, ...]:
    """Nothing for the measured card, and for a CPU node."""
    name = job.run.node.gpu_name or ""
    part = re.search(SLICE, name) is not None
    if not job.gpu or (re.search(rf"\b{MEASURED}\b", name) and not part):
        return ()
    hopper, newer = re.search(SAME_PROCESSORS, name) is not None, re.search(BLACKWELL, name) is not None
    same = hopper and not part
    context = Span(CONTEXT_SAME, CONTEXT_SAME, "CUDA context") if same else Span(CONTEXT_LESS, CONTEXT_MORE, "CUDA context")
    smaller = workspace(job) // CUBLAS_WORKSPACE * (CUBLAS_WORKSPACE - WORKSPACE_ELSEWHERE)
    # training.deterministic states their size (launcher/launch/backends.py)
    workspaces = () if hopper or newer or job.run.training.deterministic else (Span(smaller, 0, "cuBLAS workspaces"),)
    sums = () if same else (Span(SUMS_LESS, SUMS_MORE, "sums of columns"),)
    nccl = sharding_row(job.run.sharding.name).nccl
    network = (Span(nccl, NCCL_MORE, "NCCL"),) if job.split.ranks > 1 else ()
    plain = attention_matrices(job)
    fewest, here, most = (query_sums(job, count) * job.tokens for count in (1, PROCESSORS, MOST))
    ordered = (Span(here - fewest, most - here, "sums in one order"),) if here > fewest and not same else ()
    attention = (Span(0, plain, "attention without flash kernels"),) if plain else ()
    return (context, *workspaces, *sums, *network, *ordered, *attention)


def attention_matrices(job: Job) -> int:
    """Before Ampere torch has no flash attention, and no memory-efficient one in bf16: scores and softmax are whole matrices then, in fp32, with
    their gradients in the layer that is at work (ATen/native/transformers/attention.cpp, _scaled_dot_product_attention_math)."""
    run = job.run
    if run.training.attention != "sdpa" or not is_before_ampere(run.node.gpu_name):
        return 0
    matrix = 4 * job.batch.samples * job.facts.heads * job.batch.length**2
    kept = max(1, kept_layers(job)) if run.training.gradient_checkpointing else job.facts.layers
    return (kept + 3) * matrix
