"""How far an estimate may be from the truth: the largest error that was measured among jobs of its kind, rounded up."""

from dataclasses import dataclass

from conf.schema import Fsdp, Lora, Qlora, Zero
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
    """Measured: two sets of jobs, each predicted before it was measured (benchmarks/results/h200_memory.jsonl and h200_memory2.jsonl, 138 on one
    H200; h200x2_memory.jsonl and h200x2_memory2.jsonl, 34 on two), and h200_stages.jsonl. "Before" is what the formulas that had seen the first set
    said of the second; the others are what they say now of both."""
    return (*kinds_of_model(job), *kinds_of_training(job), *kinds_of_sharding(job), (not job.gpu, Uncertainty(0.13, CPUS)))


CPUS = "memory of processes: four runs on CPUs, -5 to +13 %"


def kinds_of_model(job: Job) -> tuple[tuple[bool, Uncertainty], ...]:
    facts, small_loss = job.facts, job.run.training.loss != "plain"
    latent = facts.family == "deepseek_v3"
    return (
        (facts.mixture, Uncertainty(0.015, "mixtures of experts: -0.2 to 0 %, but 1.2 % of an earlier set")),
        (
            facts.family in FAMILIES and facts.family not in TRACED,
            Uncertainty(0.03, "GPT-2 and latent attention: -1.3 to +0.1 %; before, up to -34 %"),
        ),
        (latent and job.census.adapters > 0 and small_loss, Uncertainty(0.2, "adapted experts under small logits: traces need up to 21 % more")),
        (facts.family not in FAMILIES, Uncertainty(0.15, "a family without a table, counted on transformers' meta device; one was measured")),
    )


def kinds_of_training(job: Job) -> tuple[tuple[bool, Uncertainty], ...]:
    run, regime = job.run, job.run.regime
    bits = regime.bits if isinstance(regime, Qlora) else 16
    return (
        (True, Uncertainty(0.01, "one GPU, families and optimizers that were measured: at most 0.8 %")),
        (run.training.loss == "chunked", Uncertainty(0.02, "chunked loss: -1.1 to +0.2 %; before, one of 42 +4.1 %")),
        (run.training.attention == "eager", Uncertainty(0.015, "eager attention: -1.3 to 0 %")),
        (run.optim.name == "adafactor", Uncertainty(0.015, "Adafactor: -1.1 to +0.2 %")),
        (bits == 8 and run.training.loss != "plain", Uncertainty(0.08, "8-bit layers under small logits: -7.8 to 0 %")),
        (bits == 2, Uncertainty(0.03, "2-bit layers: -2.5 to 0 %")),
        (bits < 16 and job.facts.layer_norm, Uncertainty(0.02, "quantised layers after LayerNorm: one job, +0.3 %; before, -8.5 %")),
        (isinstance(regime, Lora) and regime.dora, Uncertainty(0.02, "DoRA: three jobs, at most 0.1 %; before, -1.9 %")),
        (run.optim.name in UNMEASURED, Uncertainty(0.03, "an optimizer that was traced, but never measured")),
    )


def kinds_of_sharding(job: Job) -> tuple[tuple[bool, Uncertainty], ...]:
    sharding, ranks = job.run.sharding, job.split.ranks
    return (
        (ranks > 1, Uncertainty(0.01, "DDP, ZeRO-1 and ZeRO-2: at most 0.1 %")),
        (isinstance(sharding, Zero) and sharding.stage == 3 and ranks > 1, Uncertainty(0.025, "ZeRO-3: at most 0.5 %; before, +2.4 %")),
        (job.split.host_states, Uncertainty(0.03, "offload on two GPUs: -2.1 to 0 %; before, -6.3 %")),
        (isinstance(sharding, Fsdp) and ranks > 1, Uncertainty(0.02, "FSDP2: seven jobs, -0.4 to 0 %; before, +13.9 %")),
        (ranks > 4, Uncertainty(0.03, "more than four GPUs: none was measured")),
    )
