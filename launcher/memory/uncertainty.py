"""How far an estimate may be from the truth: what the runs on record showed of jobs of its kind."""

from conf.schema import Fsdp, Lora, Qlora, Zero
from conf.stages import compares_joined
from launcher.facts.model.families import FAMILIES
from launcher.memory.cards import MEASURED, UNSEEN, spans_of
from launcher.memory.job import Job, counts_plain_kernels
from launcher.memory.ranges import Range, Ranges, Uncertainty
from launcher.memory.weights.parameters import is_expert_target, packed_experts

Shares = tuple[float, float]  # how much less and how much more than predicted may be measured, as shares of what is predicted

# Each row of the three tables is as wide as 95 to 99 % of the runs on record ask that the row is for; docs/calibration.md counts them by sharding,
# regime and family, and tests/benchmarks/memory/test_calibration.py holds the counts.
DRIVER_ONE, DRIVER_ONE_FUSED, DRIVER_EAGER = (0.09, 0.08), (0.13, 0.04), (0.09, 0.12)
DRIVER_SEVERAL, DRIVER_DEEPSPEED, DRIVER_OFFLOADED = (0.07, 0.13), (0.05, 0.24), (0.05, 0.36)
HOST_ONE, HOST_ONE_TWO_BITS, HOST_SEVERAL = (0.09, 0.10), (0.03, 0.18), (0.07, 0.09)
HOST_CPUS = (0.16, 0.29)  # memory/cpu.jsonl: every run; -16 % was seen elsewhere too


def ranges_of(job: Job) -> Ranges:
    kind, spans = uncertainty_of(job), spans_of(job)
    less, more = sum(span.less for span in spans), sum(span.more for span in spans)
    share = max(kind.share, UNSEEN) if spans else kind.share
    driver, host = driver_shares(job), host_shares(job)
    place = f"{'one or two' if job.split.ranks > 1 else 'one'} {MEASURED}"
    unseen = f"no run was measured on this GPU; {', '.join(span.reason for span in spans)} may differ from those of an {MEASURED}"
    beside = f", and what may differ from an {MEASURED}" if spans else ""
    return Ranges(
        needed=Range(share, share, less, more, unseen if spans else kind.source),
        driver=Range(max(driver[0], share), max(driver[1], share), less, more, as_measured(driver, place) + beside),
        host=Range(*host, 0, 0, as_measured(host, place)) if job.gpu else Range(*HOST_CPUS, 0, 0, CPUS),
    )


def driver_shares(job: Job) -> Shares:
    """Of what nvidia-smi shows. DeepSpeed frees and takes large blocks on streams of its own, which the replay of the allocator does not follow; a
    step of training.kernels=fused reuses more of them than the replay does."""
    run = job.run
    if job.split.ranks > 1:
        engine = DRIVER_DEEPSPEED if isinstance(run.sharding, Zero) else DRIVER_SEVERAL
        return DRIVER_OFFLOADED if job.split.host_weights else engine
    if run.training.kernels == "fused":
        return DRIVER_ONE_FUSED
    return DRIVER_EAGER if run.training.attention == "eager" else DRIVER_ONE


def host_shares(job: Job) -> Shares:
    """Of the host memory of a node with GPUs."""
    if job.split.ranks > 1:
        return HOST_SEVERAL
    return HOST_ONE_TWO_BITS if isinstance(job.run.regime, Qlora) and job.run.regime.bits == 2 else HOST_ONE


def as_measured(shares: Shares, place: str) -> str:
    return f"-{shares[0]:.0%} to +{shares[1]:.0%} as in 95 to 99 % of the runs on {place}"


def uncertainty_of(job: Job) -> Uncertainty:
    """The largest of the kinds that the job belongs to, on the card that was measured."""
    return max((row for applies, row in kinds(job) if applies), key=lambda row: row.share)


def kinds(job: Job) -> tuple[tuple[bool, Uncertainty], ...]:
    """Measured on one H200: six sets of jobs, each predicted before it was measured (benchmarks/results/memory/h200_*.jsonl, 323 jobs), and
    stages/h200_stages*.jsonl; on two: memory/h200x2_*.jsonl and stages/h200x2_stages*.jsonl, 105. The ranges are what the present formulas say of all
    of them; "before" is what a set showed that the formulas had not seen."""
    return (*kinds_of_model(job), *kinds_of_training(job), *kinds_of_sharding(job), (not job.gpu, Uncertainty(HOST_CPUS[1], CPUS)))


CPUS = f"-{HOST_CPUS[0]:.0%} to +{HOST_CPUS[1]:.0%} as in all runs on CPUs"


def kinds_of_model(job: Job) -> tuple[tuple[bool, Uncertainty], ...]:
    facts = job.facts
    return (
        (facts.mixture, Uncertainty(0.015, "mixtures of experts: -0.6 to +1.3 %; before, one of 21 -9.6 %, experts that learn under autocast")),
        (keeps_beside_packed(job), Uncertainty(0.03, KEPT_BESIDE_PACKED)),
        (job.trace is not None, Uncertainty(0.05, TRACED if job.facts.architecture else TRACED_EXPERTS)),
        (job.trace is not None and job.run.training.attention == "eager", Uncertainty(0.12, TRACED_EAGER)),
        (facts.family not in FAMILIES and job.trace is None, Uncertainty(0.15, "a family without a table, whose layers were not traced")),
        (facts.family in FAMILIES and not facts.traits.traced, Uncertainty(0.15, "a family whose operations were not traced")),
    )


def kinds_of_training(job: Job) -> tuple[tuple[bool, Uncertainty], ...]:
    run, regime = job.run, job.run.regime
    bits = regime.bits if isinstance(regime, Qlora) else 16
    return (
        (True, Uncertainty(0.01, "one GPU: at most 0.9 % in the last set, which the formulas had not seen")),
        (counts_plain_kernels(job), Uncertainty(0.6, FUSED_KERNELS)),
        (run.training.loss == "chunked", Uncertainty(0.015, "chunked loss: -0.8 to +1.3 %")),
        (compares_joined(run), Uncertainty(0.15, "training.kernels=fused in a stage that compares answers: measured on no GPU")),
        (bits == 8 and run.training.loss != "plain", Uncertainty(0.03, OUTLIERS)),
        (bits == 8 and job.arithmetic.fused, Uncertainty(0.04, "training.kernels=fused on 8-bit layers: two jobs, -3.4 and +0.8 %")),
        (bits < 16 and job.facts.layer_norm, Uncertainty(0.02, "quantised layers after LayerNorm: six jobs, -1.5 to +0.9 %; before, +3.3 %")),
        (isinstance(regime, Lora) and regime.dora, Uncertainty(0.015, "DoRA: 14 jobs, -0.5 to +1.1 %; before, -4.0 %")),
    )


def keeps_beside_packed(job: Job) -> bool:
    """Without checkpointing, shared experts and dense layers that have no adapter keep more than is counted."""
    packed = job.trace is None and packed_experts(job.run.regime, job.facts) and not job.run.training.gradient_checkpointing
    plain = job.facts.traits.expert_adapters and any(is_expert_target(module) for module in job.facts.linears)
    return bool(packed) and (plain or job.split.ranks > 1)


KEPT_BESIDE_PACKED = "quantised mixtures without checkpointing, with shared experts or several ranks: six jobs, -2.6 to +2.2 %"
TRACED_EXPERTS = (
    "layers whose experts have adapters were traced: none was measured since; families with tables, traced alike, at most 1.5 % off an H200"
)
TRACED = "a family without a table, its layers traced: all jobs of ten such families that were measured on one H200, -0.2 to +3.5 %"
TRACED_EAGER = "a family without a table, its layers traced with eager attention: up to 11.3 % more than a traced step of the whole model (xglm)"
FUSED_KERNELS = "training.kernels=fused: five jobs needed 21 to 55 % less than the plain kernels that are counted"
OUTLIERS = "8-bit layers under small logits: -2.6 to 0 %: bitsandbytes copies the columns of outliers, which only the data tell"


SCORED = "a reward model under ZeRO-3: two jobs, 0 and +11.4 % (0.13 GiB): an embedding that is whole longer than foreseen"
OFFLOADED_WEIGHTS = "offloaded weights that learn: six jobs, -15.9 (0.5 GiB) to 0 %: what is whole beside that is not known"


def kinds_of_sharding(job: Job) -> tuple[tuple[bool, Uncertainty], ...]:
    sharding, ranks = job.run.sharding, job.split.ranks
    return (
        (ranks > 1, Uncertainty(0.01, "DDP, ZeRO-1 and ZeRO-2: at most 0.2 %, in the last set too, which the formulas had not seen")),
        (isinstance(sharding, Zero) and sharding.stage == 3 and ranks > 1, Uncertainty(0.025, "ZeRO-3: at most 0.5 %; before, +2.4 %")),
        (isinstance(sharding, Zero) and sharding.stage == 3 and ranks > 1 and job.run.stage.name == "rm", Uncertainty(0.12, SCORED)),
        (job.split.host_states, Uncertainty(0.03, "offload on two GPUs: -0.6 to 0 % without offloaded weights that learn; before, +13.8 %")),
        (job.split.host_weights and not job.census.adapters, Uncertainty(0.19, OFFLOADED_WEIGHTS)),
        (isinstance(sharding, Fsdp) and ranks > 1, Uncertainty(0.02, "FSDP2: 19 jobs, -0.8 to +0.1 %; before, -1.7 and +13.9 %")),
        (ranks > 4, Uncertainty(0.03, "more than four GPUs: none was measured")),
        (job.run.cluster.nodes > 1, Uncertainty(0.03, "several nodes: none was measured")),
    )
