"""What a rank really is and really used: the wrapper around its model, dtypes, peaks of memory."""

import json
import resource
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer

from conf.run_dir import RunDir, write_text_atomically
from trainers.place import Place


def write_layout(trainer: Trainer, run_dir: RunDir, place: Place) -> None:
    """layout/rank-N.json: a test, or a doubting user, reads here what ran."""
    run_dir.layouts.mkdir(exist_ok=True)
    write_text_atomically(run_dir.layout_file(place.rank), json.dumps(layout(trainer, place), indent=1))


def layout(trainer: Trainer, place: Place) -> dict[str, Any]:
    engine = trainer.model_wrapped
    trained = [parameter for parameter in trainer.model.parameters() if parameter.requires_grad]
    optimizer = trainer.optimizer
    inner = getattr(optimizer, "optimizer", optimizer)
    return {
        "rank": place.rank,
        "world": torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1,
        "wrapper": type(engine).__name__,
        "zero_stage": engine.zero_optimization_stage() if type(engine).__name__ == "DeepSpeedEngine" else None,
        "sharded_parameters": sum(is_split(parameter) for parameter in trainer.model.parameters()),
        "device": str(trainer.args.device),
        "optimizer": type(inner).__name__,
        "trained_dtypes": sorted({str(parameter.dtype) for parameter in trained}),
        "state_dtypes": state_dtypes(inner),
        "master_dtypes": master_dtypes(engine),
        "attention": trainer.model.config._attn_implementation,
    }


def is_split(parameter: torch.nn.Parameter) -> bool:
    """Whether this rank holds only its share: FSDP2 makes DTensors, ZeRO-3 leaves its mark on the parameter."""
    return type(parameter.data).__name__ == "DTensor" or hasattr(parameter, "ds_id")


def state_dtypes(optimizer: Any) -> list[str]:
    """Dtypes of the optimizer's states that are as large as their weights (a step counter is not)."""
    states = optimizer.state.values() if optimizer is not None else ()
    return sorted({str(value.dtype) for state in states for value in state.values() if torch.is_tensor(value) and value.numel() > 1})


def master_dtypes(engine: Any) -> list[str]:
    """Dtypes of the copies that a DeepSpeed optimizer updates."""
    wrapped = getattr(engine, "optimizer", None)
    groups = getattr(wrapped, "single_partition_of_fp32_groups", None) or getattr(wrapped, "fp32_partitioned_groups_flat", None)
    return sorted({str(tensor.dtype) for tensor in groups}) if groups else []


def write_peak(run_dir: RunDir, place: Place) -> None:
    run_dir.peaks.mkdir(exist_ok=True)
    write_text_atomically(run_dir.peak_file(place.rank), json.dumps({"rank": place.rank, **peak()}))


def peak() -> dict[str, int]:
    """Peaks in bytes: what torch allocated and reserved on the GPU, what the process held on the host."""
    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if not torch.cuda.is_available():
        return {"host": host}
    free, total = torch.cuda.mem_get_info()
    return {"host": host, "allocated": torch.cuda.max_memory_allocated(), "reserved": torch.cuda.max_memory_reserved(), "device_used": total - free}


def write_memory(run_dir: RunDir) -> None:
    """memory.json: predicted and measured, per rank. Rank 0, after all ranks wrote their peaks."""
    measured = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(run_dir.peaks.glob("rank-*.json"))]
    predicted = predicted_memory(run_dir.plan)
    report = {"predicted": predicted, "measured": measured, "sentence": memory_sentence(predicted, measured)}
    write_text_atomically(run_dir.memory, json.dumps(report, indent=1))


def predicted_memory(plan: Path) -> dict[str, Any]:
    """Allocated and host bytes as planned; empty for a folder that was made without a plan."""
    memory = json.loads(plan.read_text(encoding="utf-8"))["memory"] if plan.exists() else {}
    return {key: memory[key] for key in ("allocated", "required", "nvml", "host") if key in memory}


def memory_sentence(predicted: dict[str, Any], measured: list[dict[str, int]]) -> str:
    """Predicted against measured, in words."""
    key, scale = ("allocated", 2**30) if any("allocated" in rank for rank in measured) else ("host", 2**30)
    found = max(rank[key] for rank in measured) if key == "allocated" else sum(rank[key] for rank in measured)
    if key not in predicted:
        return f"peak {key} memory: measured {found / scale:.2f} GiB."
    error = 100 * (predicted[key] - found) / found
    return f"peak {key} memory: predicted {predicted[key] / scale:.2f} GiB, measured {found / scale:.2f} GiB ({error:+.1f} %)."
