"""Disk under the run folder: checkpoints, the final model, and what an adapter needs beside it."""

from conf.committed import KEPT_WHOLE
from conf.regimes import regime_row
from conf.schema import Ddp, Lora, Run, Zero
from launcher.memory.job import Job
from launcher.memory.terms import Term
from launcher.memory.weights.optimizer import state_bytes
from launcher.memory.weights.parameters import packed_experts, weight_bytes


def checkpoint_bytes(job: Job) -> int:
    """The model as files and the states of the optimizer, and beside them what the engine of a split saves for itself: ZeRO its masters, FSDP2 and
    ZeRO-1 and 2 the same weights, and ZeRO-3 its parts of those that are frozen.
    """
    sharding = job.run.sharding
    masters = job.storage.master * job.census.trained
    if isinstance(sharding, Zero) and sharding.stage == 3:
        frozen = 0 if adapts(job) else job.storage.frozen * job.census.frozen
        return checkpoint_tensors(job) + masters + frozen
    return checkpoint_tensors(job) + masters + (0 if isinstance(sharding, Ddp) else saved_weights(job))


def checkpoint_tensors(job: Job) -> int:
    """What one rank without a split writes."""
    return saved_weights(job) + state_bytes(job.run, job.census, job.storage)


def saved_weights(job: Job) -> int:
    """An adapter, or every weight, frozen ones included."""
    return job.storage.weight * job.census.trained if adapts(job) else weight_bytes(job.run, job.census, job.storage)


def adapts(job: Job) -> bool:
    return regime_row(job.run.regime.name).learns == "an adapter"


def kept(run: Run) -> int:
    """As trainers/checkpoints/keeping.py prunes while the run trains."""
    return max(run.checkpoint.keep, KEPT_WHOLE)


def on_top(run: Run) -> str:
    return f", {KEPT_WHOLE} until the run is finished," if kept(run) > run.checkpoint.keep else ""


def disk_terms(job: Job) -> tuple[Term, ...]:
    run: Run = job.run
    one = checkpoint_bytes(job)
    adapter = adapts(job)
    final = job.storage.weight * job.census.trained if adapter else job.storage.weight * job.census.base
    return (
        Term("checkpoints", one * kept(run), f"checkpoint.keep={run.checkpoint.keep}{on_top(run)} x the model with its states"),
        Term("checkpoint in the making", one, "the oldest is removed after the newest is complete"),
        Term("final model", final, "adapter" if adapter else "all weights"),
        *base_terms(job),
    )


def base_terms(job: Job) -> tuple[Term, ...]:
    """An adapter that starts from random weights could not be loaded back without them (trainers/model/build.py, with_saved_base)."""
    regime = job.run.regime
    if not isinstance(regime, Lora):
        return ()
    base = [Term("base", job.storage.frozen * job.census.base, "model.init=random: the adapter's base is written once")]
    changed = [Term("adapter before training", job.storage.weight * job.census.trained, f"regime.init={regime.init} changes the base")]
    written = job.run.model.init == "random" and not packed_experts(regime, job.facts)  # those are drawn again from the seed
    return (*(base if written else ()), *(changed if regime.init != "default" else ()))
