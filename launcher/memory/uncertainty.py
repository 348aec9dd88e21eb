"""How far an estimate may be from the truth: the largest error that was measured among jobs of its kind, rounded up."""

from dataclasses import dataclass

from conf.schema import Fsdp, Lora, Zero
from launcher.memory.job import TRACED, Job
from launcher.memory.optimizer import UNMEASURED
from launcher.model_facts.families import FAMILIES


@dataclass(frozen=True)
class Uncertainty:
    share: float  # of what is predicted, to both sides
    source: str  # the kind of job that it comes from


def uncertainty_of(job: Job) -> Uncertainty:
    """The largest of the kinds that the job belongs to."""
    return max((row for applies, row in kinds(job) if applies), key=lambda row: row.share)


def kinds(job: Job) -> tuple[tuple[bool, Uncertainty], ...]:
    """Measured: benchmarks/results/h200_memory.jsonl and h200_stages.jsonl (56 jobs of sft and 18 of the other stages, of which none was further
    off, on one H200), h200x2_sft.jsonl and h200x2_memory.jsonl (45 on two)."""
    run, facts, ranks = job.run, job.facts, job.split.ranks
    return (
        (True, Uncertainty(0.01, "one GPU, families and optimizers that were measured: at most 0.9 %")),
        (run.training.loss == "chunked", Uncertainty(0.025, "chunked loss: -2.1 to +1.2 %")),
        (facts.mixture, Uncertainty(0.02, "mixtures of experts: -1.2 to +0.8 %")),
        (ranks > 1, Uncertainty(0.01, "DDP: at most 0.1 %")),
        (isinstance(run.sharding, Zero) and ranks > 1, Uncertainty(0.015, "ZeRO on two GPUs: at most 0.8 %")),
        (job.split.host_states, Uncertainty(0.03, "offload on two GPUs: -1.5 to 0 %")),
        (isinstance(run.sharding, Fsdp) and ranks > 1, Uncertainty(0.02, "FSDP2 on two GPUs: at most 0.5 %, few models")),
        (ranks > 4, Uncertainty(0.03, "more than four GPUs: none was measured")),
        (isinstance(run.regime, Lora) and run.regime.dora, Uncertainty(0.02, "DoRA: one job was measured")),
        (run.optim.name in UNMEASURED, Uncertainty(0.03, "an optimizer that was traced, but never measured")),
        (facts.family in FAMILIES and facts.family not in TRACED, Uncertainty(0.06, "a family whose formulas were not met by a trace")),
        (facts.family == "deepseek_v3", Uncertainty(0.3, "latent attention: traces of adapters without checkpointing need up to 29 % more")),
        (facts.family not in FAMILIES, Uncertainty(0.15, "a family without a table, counted on transformers' meta device")),
        (not job.gpu, Uncertainty(0.13, "memory of processes: four runs on CPUs, -5 to +13 %")),
    )
