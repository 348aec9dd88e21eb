"""The records of measured cells, and how far a prediction is from one."""

import json
from pathlib import Path

MENDED = {  # measured with a trainer that is another one today
    "qlora8-zero2/mixtral_cut/1x2048": "ZeRO's buckets held more than what learns",
    "qlora4-zero2-kept/qwen3_moe_cut/1x1024": "ZeRO's buckets held more than what learns",
    "freeze-chunked-galore/qwen2.5_0.5b/2x2048": "GaLore kept every direction of a projector",
    "full_amp-chunked-galore/qwen2.5_0.5b/2x1024": "GaLore kept every direction of a projector",
    "lora-fused-q_v/gemma3_1b/2x2048": "liger's GEGLU stood in the place of the model's MLP",
    "freeze-fused-2/gemma3_1b/2x4096": "liger's GEGLU stood in the place of the model's MLP",
    **dict.fromkeys(
        (
            "qlora4/mixtral_cut/1x2048",
            "qlora4/qwen3_moe_cut/2x1024",
            "qlora4/deepseek_cut/1x4096",
            "qlora4-kept/qwen2_moe_cut/1x2048",
            "qlora4-chunked/deepseek_cut/2x1024",
            "qlora8-chunked/qwen2_moe_cut/4x2048",
        ),
        "experts were not quantised",
    ),
}
MEASURED_IN = {"load": "load", "forward": "forward", "loss": "forward", "backward": "backward", "optimizer": "optimizer step", "save": "save"}
Errors = dict[str, list[float]]  # of one cell by figure, relative to what was measured


def records(path: Path) -> list[dict]:
    return [record for record in map(json.loads, path.read_text().splitlines()) if "measured" in record]


def failed(path: Path) -> list[str]:
    return [record["cell"] for record in map(json.loads, path.read_text().splitlines()) if "measured" not in record]


def seen_by_driver(rank: dict, outside: int) -> int:
    """At the peak. The driver was asked at the end: what it says is of no use where torch had given pages back since."""
    told = rank.get("nvml") or 0
    return told if told > rank["reserved"] else rank["reserved"] + outside


def by_phase(phases: dict[str, dict]) -> dict[str, int]:
    """The highest of the predicted phases that fall into each measured one."""
    highest: dict[str, int] = {}
    for name, phase in phases.items():
        measured = MEASURED_IN.get(name.replace(":", " ").split()[0])
        if measured is not None:
            highest[measured] = max(highest.get(measured, 0), phase["bytes"])
    return highest


def driver_error(predicted: dict, ranks: list[dict]) -> float:
    return predicted["nvml"] / max(seen_by_driver(rank, sum(predicted["outside"].values())) for rank in ranks) - 1


def errors(predicted: dict, ranks: list[dict]) -> Errors:
    fullest = max(ranks, key=lambda rank: rank["allocated"])
    phases = [size / fullest["phases"][name] - 1 for name, size in by_phase(predicted["phases"]).items() if fullest["phases"].get(name)]
    found = {"allocated": [predicted["allocated"] / fullest["allocated"] - 1], "phases": phases, "nvidia-smi": [driver_error(predicted, ranks)]}
    if all("host_phases" in rank for rank in ranks):
        found["host"] = [predicted["host"] / sum(rank["host"] for rank in ranks) - 1]
    return found
