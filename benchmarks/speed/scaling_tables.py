"""Tables of one and two GPUs for docs/reference/measured_speed.md and docs/concepts/predicted_time.md, from the raw lines."""

import json
import statistics
from pathlib import Path
from typing import Any

from benchmarks.speed.scaling_cells import CELLS, Cell

MEASURED, PROFILES = "speed/h200x2_scaling.jsonl", "speed/h200x2_profiles.jsonl"
MEASURED_ALONE, PROFILES_ALONE = "speed/h200_scaling.jsonl", "speed/h200_scaling_profiles.jsonl"
GIB = 2**30
Line = dict[str, Any]
HEAD = """## From one GPU to two

Tokens/s of one of two GPUs over those of one GPU without a sharding, by the same kernels, in the same call ({count} runs on {gpus}, {dates};
`benchmarks/speed/scaling.py`, `benchmarks/results/{file}`). 1b-full: 4 rows of 4096 tokens a GPU in bf16, without checkpointing;
8b-lora: rank 16 on all linear layers, 4 rows of 2048. Shardings that split weights compute with plain kernels: the fused ones cannot read
such weights. A row without settings is what regimen chooses; in the others the settings of the engine differ as they say.
"""
HEAD_ALONE = """## What an engine costs on one GPU

The same jobs on one GPU under each engine ({count} runs on {gpus}, {dates}; `benchmarks/speed/scaling.py measure --gpus 1`,
`benchmarks/results/{file}`): what an engine adds to a step before anything goes between GPUs. Plain ranks have no wrapper when there is one
of them; the rows of ddp have the wrapper of several, and are predicted without it.
"""
COLUMNS = ("job", "GPUs", "sharding", "settings", "tokens/s a GPU", "of one GPU", "goal", "step, ms", "predicted, ms", "off")
MEMORY = ("allocated, GiB", "predicted, GiB")
SETTINGS = {
    "ddp/100MB": "buckets of 100 MiB instead of 25",
    "ddp/copies": "gradients beside the buckets, as before",
    "ddp/few-channels": "NCCL_MAX_CTAS=8",
    "ddp/each-gradient": "each gradient divided by a kernel of its own",
    "zero1/waiting": "DeepSpeed's own steps, in which the host waits",
    "zero2/waiting": "DeepSpeed's own steps, in which the host waits",
    "zero3/layers-waiting": "whole layers, with DeepSpeed's meter of throughput",
    "zero2/deepspeeds-own": "buckets of 500 million elements, reduced as copies, as before",
    "zero2/256M": "buckets of 268 million elements",
    "zero2/one-stream": "without overlap_comm",
    "zero3/layers": "whole layers gathered and reduced at once, two ahead",
    "zero3/layers-kept": "the same, kept from forward to backward",
    "zero3/layers-4-ahead": "whole layers, four ahead",
    "zero3/layers-whole-bucket": "whole layers, without reduce_scatter",
    "zero3/large-buckets": "modules one by one, in buckets of a layer",
    "fsdp2/kept": "sharding.reshard_after_forward=false",
    "fsdp2/2-ahead": "two layers gathered ahead instead of one",
    "fsdp2/few-channels": "NCCL_MAX_CTAS=8",
}


def newest(path: Path) -> dict[str, Line]:
    """By cell, the last run that ended well."""
    if not path.exists():
        return {}
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {line["cell"]: line for line in lines if line.get("exit_code", 0) == 0}


def scaling_lines(results: Path) -> list[str]:
    return [*section(results, HEAD_ALONE, "one", MEASURED_ALONE, PROFILES_ALONE), *section(results, HEAD, "two", MEASURED, PROFILES)]


def section(results: Path, head: str, gpus: str, measured: str, profiles: str) -> list[str]:
    found = newest(results / measured)
    if not found:
        return []
    facts = [line["surroundings"] for line in found.values()]
    head = head.format(
        count=len(found),
        gpus=f"{gpus} {facts[-1]['gpus'][0].split(',')[0]}",
        dates=", ".join(sorted({fact["date"] for fact in facts})),
        file=measured,
    )
    table = [
        f"| {' | '.join((*COLUMNS, *MEMORY))} |",
        "|---" * len((*COLUMNS, *MEMORY)) + "|",
        *(row(cell, found) for cell in CELLS if cell.name in found),
    ]
    return ["", head, *table, *profile_lines(results, profiles)]


def row(cell: Cell, found: dict[str, Line]) -> str:
    line = found[cell.name]
    job, gpus, *named = cell.name.split("/")
    sharding = "none, plain kernels" if named == ["plain"] else "none" if named == ["fused"] else named[0]
    share = f"{share_of(cell, found):.1%}" if cell.compared in found and cell.name != cell.compared else ""
    goal = f"{cell.goal:.0%}" if cell.goal else ""
    times = f"{line['step'] * 1e3:.1f} | {line['predicted']['step'] * 1e3:.1f} | {off(line):+.1%}"
    memory = f"{line['allocated'] / GIB:.2f} | {line['predicted_allocated'] / GIB:.2f}"
    settings = SETTINGS["/".join(named)] if len(named) > 1 else ""
    return f"| {job} | {gpus} | {sharding} | {settings} | {line['tokens_per_second']:,.0f} | {share} | {goal} | {times} | {memory} |"


def share_of(cell: Cell, found: dict[str, Line]) -> float:
    return float(found[cell.name]["tokens_per_second"] / found[cell.compared]["tokens_per_second"])


def off(line: Line) -> float:
    """Predicted over measured seconds, less one."""
    return float(line["predicted"]["step"] / line["step"] - 1)


def profile_lines(results: Path, profiles: str) -> list[str]:
    found = newest(results / profiles)
    rows = [
        f"| {cell.name} | " + " | ".join(f"{found[cell.name][key]:.1f}" for key in ("step", "computing", "between_gpus", "exposed", "idle")) + " |"
        for cell in CELLS
        if cell.name in found
    ]
    if not rows:
        return []
    return [
        "",
        "Where the time of such a step goes on rank 0 while a profiler follows it, in milliseconds: kernels that compute, kernels of NCCL, and of",
        "these what no kernel that computes hides; idle is the rest, in which the GPU waits for the host",
        f"(`benchmarks/results/{profiles}`, kernel by kernel).",
        "",
        "| cell | step | computing | between GPUs | exposed | idle |",
        "|---|---|---|---|---|---|",
        *rows,
    ]


def two_gpu_lines(results: Path) -> list[str]:
    """How far predicted times were off, of cells whose settings are regimen's own."""
    found = newest(results / MEASURED)
    own = [found[cell.name] for cell in CELLS if cell.name in found and cell.gpus == 2 and cell.name.count("/") == 2]
    if not own:
        return []
    errors = [abs(off(line)) for line in own]
    return [
        "",
        f"Of two GPUs, {len(own)} cells (`results/{MEASURED}`, one for each sharding, and adapters under DDP), predicted before they were measured:",
        f"median {statistics.median(errors):.1%}, worst {max(errors):.1%} off ([measured](../reference/measured_speed.md#from-one-gpu-to-two)).",
    ]
