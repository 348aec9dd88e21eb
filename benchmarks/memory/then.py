"""A measured cell by the present formulas, with the trainer of the day on which it was measured."""

from dataclasses import replace
from functools import partial
from pathlib import Path

from benchmarks.memory.cells import overrides
from benchmarks.memory.chosen import MemoryCell
from conf.schema import Run
from launcher.composition.compose import compose
from launcher.gate.judge import Judged, judge_run
from launcher.memory.allocator.blocks import blocks_of
from launcher.memory.allocator.replay import replayed
from launcher.memory.constants import CUBLAS_WORKSPACE
from launcher.memory.job import job_of, worst_batch
from launcher.memory.step.stage_phases import copy_terms
from launcher.memory.terms import MemoryEstimate, total
from launcher.memory.weights.held import as_held

# The last runs whose first step made cuBLAS' workspaces, in the midst of its logits (trainers/callbacks/workspaces.py): until this day, and on it
# those of the machine of 16 cores, which had one H200.
LATE_UNTIL, LATE_CORES = "2026-11-30", 16

# Until this day DDP kept its gradients beside its buckets, and ZeRO-1 and 2 had buckets of 500 million elements. A record that names its own bucket
# has the smaller ones.
BUCKETS_UNTIL, BUCKETED = "2026-11-30", ("ddp", "zero1", "zero2", "zero2_offload")


def judge_cell(cell: MemoryCell, work: Path) -> Judged:
    """`work` holds shapes/ and data/ (write_shapes, write_samples).

    Raises:
        ConfigError: where the cell would be refused today.
    """
    return judge_run(compose([*overrides(cell, work / "data"), "node=h200_141", f"node.gpus={cell.gpus}"], [work / "shapes"]))


def is_late(record: dict) -> bool:
    day, cores = record["surroundings"]["date"], record["surroundings"].get("cpus")
    return bool(day < LATE_UNTIL or (day == LATE_UNTIL and cores == LATE_CORES))


def had_other_buckets(run: Run, record: dict) -> bool:
    named = record.get("layout", {}).get("reduce_bucket") not in (None, 500_000_000)
    return record["gpus"] > 1 and run.sharding.name in BUCKETED and record["surroundings"]["date"] <= BUCKETS_UNTIL and not named


def estimate_then(judged: Judged, record: dict) -> MemoryEstimate:
    return with_late_workspaces(judged) if is_late(record) else judged.estimate


def with_late_workspaces(judged: Judged) -> MemoryEstimate:
    job = job_of(as_held(judged.run), judged.facts, worst_batch(judged.run, judged.facts))
    late = replace(blocks_of(job), workspaces=0, late_workspace=CUBLAS_WORKSPACE)
    return replace(judged.estimate, replayed=partial(replayed, late, total(copy_terms(job))))
