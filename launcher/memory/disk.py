"""Disk under the run folder: checkpoints, the final model, and what an adapter needs beside it."""

from conf.committed import KEPT_WHOLE
from conf.regimes import regime_row
from conf.schema import Badam, Lora, Run
from launcher.memory.job import Job
from launcher.memory.terms import Term
from launcher.memory.weights.optimizer import state_bytes
from launcher.memory.weights.parameters import packed_experts, weight_bytes


def checkpoint_bytes(job: Job) -> int:
    """What learns, its masters and its states; frozen weights are not saved again."""
    per_element = max(job.storage.weight, job.storage.master)
    saved = job.census.base if isinstance(job.run.optim, Badam) else job.census.trained  # BAdam: layers that had their turn have changed too
    return per_element * saved + state_bytes(job.run, job.census, job.storage)


def checkpoint_tensors(job: Job) -> int:
    """What one rank without a split writes of weights and states: an adapter, or every weight, frozen ones included."""
    adapter = regime_row(job.run.regime.name).learns == "an adapter"
    weights = job.storage.weight * job.census.trained if adapter else weight_bytes(job.run, job.census, job.storage)
    return weights + state_bytes(job.run, job.census, job.storage)


def kept(run: Run) -> int:
    """As trainers/checkpoints/keeping.py prunes while the run trains."""
    return max(run.checkpoint.keep, KEPT_WHOLE)


def on_top(run: Run) -> str:
    return f", {KEPT_WHOLE} until the run is finished," if kept(run) > run.checkpoint.keep else ""


def disk_terms(job: Job) -> tuple[Term, ...]:
    run: Run = job.run
    one = checkpoint_bytes(job)
    adapter = regime_row(run.regime.name).learns == "an adapter"
    final = job.storage.weight * job.census.trained if adapter else job.storage.weight * job.census.base
    return (
        Term("checkpoints", one * kept(run), f"checkpoint.keep={run.checkpoint.keep}{on_top(run)} x what learns with its states"),
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
