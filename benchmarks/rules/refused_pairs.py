"""Runs what launcher/rules/pairs.py refuses, without the refusal, and records how it really ends.

    python -m benchmarks.rules.refused_pairs --out RESULTS.jsonl [--gpus 2] [--only NAME ...] [--concurrent 3]

Every row of the table names a probe here; candidates that turned out to work are kept, so that they are tried again with newer libraries.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

from conf.run_dir import RunDir, save_run
from launcher.composition.compose import compose
from launcher.facts.node import settle_node
from launcher.gate.settle import settled
from launcher.launch.backends import command
from launcher.rules.ranges import check_values

SMALL = [
    "model=demo",
    "data=demo",
    "training.max_steps=4",
    "training.micro_batch=4",
    "data.max_samples=64",
    "evaluation.interval=0",
    "checkpoint.interval=2",
    "optim.lr=1e-3",
]
PROBES = {
    "int8-zero3": ["regime=qlora", "regime.bits=8", "sharding=zero3"],
    "int8-fsdp2": ["regime=qlora", "regime.bits=8", "sharding=fsdp2"],
    "int4-fsdp2": ["regime=qlora", "regime.bits=4", "sharding=fsdp2"],
    "hqq-zero3": ["regime=qlora", "regime.bits=2", "sharding=zero3"],
    "hqq-fsdp2": ["regime=qlora", "regime.bits=2", "sharding=fsdp2"],
    "hqq-dora": ["regime=qlora", "regime.bits=2", "regime.dora=true"],
    "int8-dora": ["regime=qlora", "regime.bits=8", "regime.dora=true"],
    "dora-zero3": ["regime=lora", "regime.dora=true", "sharding=zero3"],
    "dora-fsdp2": ["regime=lora", "regime.dora=true", "sharding=fsdp2"],
    "offload2-8bit": ["regime=lora", "sharding=zero2_offload", "optim=adamw_8bit"],
    "offload3-bf16": ["regime=full", "training.precision=bf16", "sharding=zero3_offload"],
    "offload2-bf16": ["regime=full", "training.precision=bf16", "sharding=zero2_offload"],
    "offload2-amp": ["regime=full", "training.precision=bf16_amp", "sharding=zero2_offload"],
    "offload3-amp": ["regime=full", "training.precision=bf16_amp", "sharding=zero3_offload"],
    "fsdp2-8bit": ["regime=full", "sharding=fsdp2", "optim=adamw_8bit"],
    "fsdp2-adafactor": ["regime=full", "sharding=fsdp2", "optim=adafactor"],
    "zero3-8bit": ["regime=full", "sharding=zero3", "optim=adamw_8bit"],
    "zero3-adafactor": ["regime=full", "sharding=zero3", "optim=adafactor"],
    "zero2-paged": ["regime=full", "sharding=zero2", "optim=paged_adamw_8bit"],
    "fsdp2-fp16": ["regime=full", "sharding=fsdp2", "training.precision=fp16_amp"],
    "zero2-fp16": ["regime=full", "sharding=zero2", "training.precision=fp16_amp"],
    "fused-zero3": ["regime=full", "sharding=zero3", "training.loss=fused"],
    "fused-fsdp2": ["regime=full", "sharding=fsdp2", "training.loss=fused"],
    "fused-ddp-lora": ["regime=lora", "training.loss=fused"],
    "packing-fsdp2": ["regime=lora", "sharding=fsdp2", "data.packing=true"],
    "freeze-fsdp2": ["regime=freeze", "regime.layers=1", "sharding=fsdp2"],
    "freeze-zero3": ["regime=freeze", "regime.layers=1", "sharding=zero3"],
    "best-fsdp2": ["regime=full", "sharding=fsdp2", "evaluation.best_at_end=true", "evaluation.interval=2"],
    "best-zero3": ["regime=lora", "sharding=zero3", "evaluation.best_at_end=true", "evaluation.interval=2"],
    "generate-fsdp2": ["regime=lora", "sharding=fsdp2", "evaluation.generate=hello"],
    "generate-zero3": ["regime=lora", "sharding=zero3", "evaluation.generate=hello"],
    "paged-cpu": ["optim=paged_adamw_8bit", "node=cpu"],
    "fused-cpu": ["training.loss=fused", "node=cpu"],
    "fp16-cpu": ["training.precision=fp16_amp", "node=cpu"],
    "fsdp2-cpu": ["sharding=fsdp2", "node=cpu"],
}


def probe(name: str, gpus: int, root: Path, limit: float) -> dict[str, object]:
    overrides = [*SMALL, *([] if "node=cpu" in PROBES[name] else [f"node={'auto' if gpus else 'cpu'}"]), "cluster.ranks_per_node=2", *PROBES[name]]
    run = compose(overrides)
    check_values(run)
    run = settled(run, settle_node(run.node, 1).node)
    run_dir = RunDir(root / name)
    run_dir.path.mkdir(parents=True)
    save_run(run, run_dir)
    start = command(run, run_dir)
    record: dict[str, object] = {"probe": name, "overrides": overrides, "date": time.strftime("%Y-%m-%d"), "gpus": gpus, "versions": versions()}
    try:
        done = subprocess.run(start.argv, env=start.environment(os.environ), capture_output=True, text=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        return {**record, "exit_code": None, "message": f"it did not end within {limit:.0f} s", **left(run_dir)}
    return {**record, "exit_code": done.returncode, "message": messages(run_dir) or done.stderr[-300:], **left(run_dir)}


def versions() -> dict[str, str]:
    return {name: version(name) for name in ("torch", "transformers", "peft", "accelerate", "deepspeed", "bitsandbytes", "hqq")}


def messages(run_dir: RunDir) -> str:
    exits = [json.loads(path.read_text()) for path in sorted(run_dir.exits.glob("rank-*.json"))]
    return " | ".join(f"rank {entry['rank']}: {entry['message']}" for entry in exits)


def left(run_dir: RunDir) -> dict[str, object]:
    """Evidence of what really ran: losses and the layout of rank 0."""
    layout = run_dir.layout_file(0)
    lines = run_dir.progress.read_text().splitlines() if run_dir.progress.exists() else []
    losses = [entry["loss"] for entry in map(json.loads, lines) if "loss" in entry]
    log = run_dir.rank_log(0)
    trace = [line for line in log.read_text(errors="replace").splitlines() if line.startswith(("  File", "    "))][-4:] if log.exists() else []
    return {"losses": losses, "layout": json.loads(layout.read_text()) if layout.exists() else None, "last_frames": trace}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--gpus", type=int, default=2)
    parser.add_argument("--only", nargs="*", default=list(PROBES))
    parser.add_argument("--concurrent", type=int, default=1)
    parser.add_argument("--limit", type=float, default=150)
    parser.add_argument("--root", type=Path, default=Path("/tmp/regimen-pairs") / str(os.getpid()))
    arguments = parser.parse_args()

    def work(name: str) -> None:
        record = probe(name, arguments.gpus, arguments.root, arguments.limit)
        with arguments.out.open("a") as file:
            file.write(json.dumps(record) + "\n")
        print(f"{name:<18} exit {record['exit_code']}  {str(record['message'])[:200]}", flush=True)

    with ThreadPoolExecutor(arguments.concurrent) as pool:
        list(pool.map(work, arguments.only))
    return 0


if __name__ == "__main__":
    sys.exit(main())
