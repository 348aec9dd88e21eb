"""memory.json: predicted against measured memory, for every quantity and every phase."""

import json
from typing import Any

from conf.run_dir import RunDir, write_text_atomically

# The measured phase that a predicted one falls into, by the first word of its name. The whole model's forward pass computes the loss;
# gathering and reducing happen inside of the passes. A loss outside of the model follows its forward pass, which is the border.
MEASURED_IN = {
    "load": "load",
    "forward": "forward",
    "loss": "backward",
    "generation": "generation",
    "gather": "backward",
    "reduce": "backward",
    "backward": "backward",
    "optimizer": "optimizer step",
    "evaluation": "evaluation",
    "save": "save",
}
GIB = 2**30


def write_memory(run_dir: RunDir) -> None:
    """Rank 0, after all ranks wrote their peaks."""
    measured = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(run_dir.peaks.glob("rank-*.json"))]
    plan = json.loads(run_dir.plan.read_text(encoding="utf-8")) if run_dir.plan.exists() else {}
    predicted, highest = predicted_bytes(plan), measured_bytes(measured, ranks_per_node(plan, len(measured)))
    compared = compare(predicted, highest)
    report = {"predicted": predicted, "measured": measured, "compared": compared, "sentence": sentence(highest, compared)}
    write_text_atomically(run_dir.memory, json.dumps(report, indent=1))


def ranks_per_node(plan: dict[str, Any], ranks: int) -> int:
    return int(plan["run"]["cluster"]["ranks_per_node"]) if plan else ranks


def predicted_bytes(plan: dict[str, Any]) -> dict[str, Any]:
    """As planned; empty for a folder that was made without a plan."""
    if not plan:
        return {}
    memory = plan["memory"]
    return {**{key: memory[key] for key in ("allocated", "required", "nvml", "host")}, "phases": predicted_phases(memory["phases"])}


def predicted_phases(phases: dict[str, dict[str, Any]]) -> dict[str, int]:
    """The highest of the predicted phases that fall into each measured one."""
    highest: dict[str, int] = {}
    for name, phase in phases.items():
        measured = measured_phase(name)
        if measured is not None:
            highest[measured] = max(highest.get(measured, 0), phase["bytes"])
    return highest


def measured_phase(predicted: str) -> str | None:
    return MEASURED_IN.get(predicted.replace(":", " ").split()[0])


def measured_bytes(ranks: list[dict[str, Any]], per_node: int) -> dict[str, Any]:
    """The fullest GPU, the fullest node's host memory, and every phase on the rank where it was highest."""
    nodes: dict[int, int] = {}
    for rank in ranks:
        nodes[rank["rank"] // per_node] = nodes.get(rank["rank"] // per_node, 0) + rank["host"]
    on_gpu = [rank for rank in ranks if "allocated" in rank]
    gpu = {"allocated": max(r["allocated"] for r in on_gpu), "nvml": max(r["nvml"] or r["device_used"] for r in on_gpu)} if on_gpu else {}
    names = dict.fromkeys(name for rank in on_gpu for name in rank["phases"])
    phases = {name: max(rank["phases"].get(name, 0) for rank in on_gpu) for name in names}
    return {**gpu, "host": max(nodes.values()), "phases": phases}


def compare(predicted: dict[str, Any], measured: dict[str, Any]) -> dict[str, Any]:
    """Whatever is both predicted and measured."""
    if not predicted:
        return {"phases": {}}
    phases = {name: pair(size, measured["phases"][name]) for name, size in predicted["phases"].items() if name in measured["phases"]}
    return {**{key: pair(predicted[key], measured[key]) for key in ("allocated", "nvml", "host") if key in measured}, "phases": phases}


def pair(predicted: int, measured: int) -> dict[str, Any]:
    """The error is relative to the truth; positive: predicted too much."""
    return {"predicted": predicted, "measured": measured, "error": (predicted - measured) / measured}


def sentence(measured: dict[str, Any], compared: dict[str, Any]) -> str:
    """Predicted against measured, in words."""
    key = "allocated" if "allocated" in measured else "host"
    if key not in compared:
        return f"peak {key} memory: measured {measured[key] / GIB:.2f} GiB."
    found = compared[key]
    whole = f"peak {key} memory: predicted {found['predicted'] / GIB:.2f} GiB, measured {found['measured'] / GIB:.2f} GiB ({found['error']:+.1%})"
    phases = ", ".join(f"{name} {phase['error']:+.1%}" for name, phase in compared["phases"].items())
    return f"{whole}; by phase: {phases}." if phases else f"{whole}."
