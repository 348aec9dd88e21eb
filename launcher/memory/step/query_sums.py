"""The fp32 sums of the queries' gradient that flash attention makes in its backward pass."""

from launcher.memory.job import Job

PROCESSORS, MOST = 132, 148  # of an H200, and of the card that has most (B200): launcher/memory/cards.py


def query_sums(job: Job, processors: int = PROCESSORS) -> int:
    """Bytes a token. With training.deterministic=true there are as many copies as give every processor a block of one head and one sample to itself,
    so that sums are added in one order (ATen/native/transformers/cuda/flash_attn/flash_api.cpp, mha_bwd and mha_varlen_bwd: nsplits)."""
    heads = job.facts.heads
    copies = -(-processors // (heads * job.batch.samples)) if job.run.training.deterministic and job.gpu else 1
    return 4 * heads * job.facts.head_dim * copies
