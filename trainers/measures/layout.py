"""What a rank really is and really used: the wrapper around its model, dtypes, its peaks of memory."""

import json
import os
from collections.abc import Sequence
from typing import Any

import torch
from transformers import Trainer

from conf.run_dir import RunDir, write_text_atomically
from trainers.measures.host import HostPeaks
from trainers.measures.phases import Peaks
from trainers.ranks.place import Place


def write_layout(trainer: Trainer, run_dir: RunDir, place: Place) -> None:
    """layout/rank-N.json: a test, or a user who wants to be sure, reads here what ran."""
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
        "reduce_bucket": reduce_bucket(engine),
        "gradient_views": getattr(engine, "gradient_as_bucket_view", None),
        "sharded_parameters": sum(is_split(parameter) for parameter in trainer.model.parameters()),
        "device": str(trainer.args.device),
        "optimizer": type(inner).__name__,
        "trained_dtypes": sorted({str(parameter.dtype) for parameter in trained}),
        "state_dtypes": state_dtypes(inner),
        "master_dtypes": master_dtypes(engine),
        "attention": trainer.model.config._attn_implementation,
    }


def reduce_bucket(engine: Any) -> int | None:
    """Elements of one bucket of DeepSpeed's."""
    return getattr(getattr(engine, "optimizer", None), "reduce_bucket_size", None)


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


def write_peak(run_dir: RunDir, place: Place, peaks: Peaks | None, host: HostPeaks) -> None:
    """peak/rank-N.json. `peaks`: what the phases of this rank took on its GPU; None on a CPU."""
    run_dir.peaks.mkdir(exist_ok=True)
    found = {"rank": place.rank, **host_peak(host), **(gpu_peak(peaks) if peaks is not None else {})}
    write_text_atomically(run_dir.peak_file(place.rank), json.dumps(found))


def host_peak(host: HostPeaks) -> dict[str, Any]:
    """Bytes: what nothing can drop, at most, and every kind of it and of mapped files at the fullest moment of each phase."""
    return {"host": host.highest.fixed, "host_phases": {phase: one._asdict() for phase, one in host.by_phase.items()}}


def gpu_peak(peaks: Peaks) -> dict[str, Any]:
    """Bytes: what torch allocated and reserved at most, what the driver counts on the whole GPU and for this process now (None: not reported),
    and the highest of each phase."""
    free, total = torch.cuda.mem_get_info()
    allocated, reserved = peaks.highest
    own = held_on_gpu(str(torch.cuda.get_device_properties(torch.cuda.current_device()).uuid))
    return {"allocated": allocated, "reserved": reserved, "device_used": total - free, "nvml": own, "phases": peaks.by_phase}


def held_on_gpu(uuid: str) -> int | None:
    """The bytes that nvidia-smi shows for this process; None where the driver does not report them."""
    import pynvml

    try:
        pynvml.nvmlInit()
        try:
            handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
            users = [(user.pid, user.usedGpuMemory) for user in pynvml.nvmlDeviceGetComputeRunningProcesses(handle)]
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError as error:  # MIG instances have UUIDs of another form, and containers may hide the processes
        print(f"The GPU memory that nvidia-smi shows for this process is not recorded: {error}", flush=True)
        return None
    return of_this_process(users, os.getpid())


def of_this_process(users: Sequence[tuple[int, int | None]], pid: int) -> int | None:
    """In a container the driver may report the host's ids of processes. A process can then be recognised only if it is the only one."""
    own = [used for user, used in users if user == pid]
    if own:
        return own[0]
    return users[0][1] if len(users) == 1 else None
