"""The node a job would run on: this machine as its GPU driver and kernel report it, or the node that was named."""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from conf.schema import Node, Run, SettledNode
from launcher.errors import ConfigError
from launcher.facts.host_memory import host_memory

STATE_THE_NODE = (
    "State the node yourself: node=cpu, a named node such as node=h100_80, or node.auto=false with node.gpus, node.gpu_name, node.gpu_memory."
)

# Dense bf16 peaks (fp16 where the chip has no bf16), TFLOP/s, from NVIDIA's data sheet of each product; figures "with sparsity" are halved.
# The first pattern found in NVML's product name counts. MIG slices and variants with other peaks (H100 NVL, RTX 4090 D, laptops) have none.
PEAK_TFLOPS: tuple[tuple[str, float | None], ...] = (
    (r"\bMIG\b|\bNVL\b|\bLaptop\b|\b4090 D\b|\bMax-Q\b", None),
    (r"\bB200\b", 2250),
    (r"\bH200\b", 989),
    (r"\bH100 PCIe\b", 756),
    (r"\bH100\b", 989),
    (r"\bA100\b", 312),
    (r"\bL40S\b", 362),
    (r"\bL4\b", 121),
    (r"\bA10\b", 125),
    (r"\bRTX 4090\b", 165),
    (r"\bV100-PCIE\b", 112),
    (r"\bV100-SXM", 125),
    (r"\bT4\b", 65),
)

BEFORE_AMPERE = ("V100", "T4", "P100", "P40", "TITAN", "GTX", "RTX 20")  # parts of the driver's names

AMPERE = r"\bA\d+[A-Z]?\b|\bRTX 30\d\d\b"  # A100, A10G, RTX A6000, RTX 3090


@dataclass(frozen=True)
class Gpu:
    """One CUDA device: a whole GPU, or a MIG instance with its own memory. Sizes in bytes."""

    index: int  # of the board, in PCI order
    board: str  # UUID of the board
    uuid: str
    name: str
    total: int
    free: int
    mig: bool
    users: tuple[str, ...]  # processes that hold memory on it
    pids: tuple[int, ...] = ()  # of the users, in their order


@dataclass(frozen=True)
class NodeFacts:
    node: SettledNode
    host_memory_source: str
    gpu_free: tuple[int, ...]  # bytes, per GPU of this machine; empty where the node is not this machine
    notes: tuple[str, ...]
    gpu_users: tuple[str, ...] = ()  # who holds memory on the GPUs of this machine, one sentence a GPU
    here: bool = True  # ranks could start on this machine; false: its disk says nothing about the node's


def settle_node(node: Node, nodes: int, root: Path = Path("/"), *, queued: bool = False) -> NodeFacts:
    """Fill what `node` leaves open; what it states stays.

    Args:
        nodes: how many nodes the job uses; all are assumed to be alike.
        queued: a batch system chooses the nodes. What node=auto leaves open of them is read by launcher/facts/partition.py.
        root: where /proc and /sys are.

    Raises:
        ConfigError: when the visible GPUs differ, cannot be read, or are fewer than stated.
    """
    if not node.auto or (queued and is_stated(node)):
        return settle_named(node, root, queued=queued)
    gpus, notes = visible_gpus()
    settled = settle_auto(node, gpus)
    taken = gpus[: settled.gpus]
    users = tuple(f"GPU {gpu.index}: {', '.join(gpu.users)}" for gpu in taken if gpu.users)
    notes += tuple(f"GPU {gpu.index} is in use: {', '.join(gpu.users)}." for gpu in taken if gpu.users)
    if nodes > 1:
        notes += (f"node=auto read only this machine. The {nodes} nodes are assumed to be like it.",)
    memory, source = stated_or_host_memory(node, root)
    return NodeFacts(replace(settled, host_memory=memory), source, tuple(gpu.free for gpu in taken), notes, users)


def settle_named(node: Node, root: Path, *, queued: bool) -> NodeFacts:
    if node.gpus is None:
        raise ConfigError(f"node.gpus has no value, and node.auto is false (node={node.name}). Set node.gpus, or use node=auto.")
    if node.gpus > 0 and node.gpu_memory is None:
        raise ConfigError(
            f"node.gpu_memory has no value, and node.gpus is {node.gpus} (node={node.name}). "
            "Set it to the memory of one GPU, for example 80GB, or use node=auto."
        )
    here = not queued and (node.gpus == 0 or len(readable_gpus(root)) >= node.gpus)
    if node.host_memory is None and (node.gpus > 0 or queued):
        note = (
            f"node={node.name} does not state its host memory, so host memory is not judged. Set node.host_memory to that node's, for example 500GB."
        )
        return NodeFacts(settled_node(node, node.gpus), "unknown", (), (note,), here=here)
    memory, source = stated_or_host_memory(node, root)
    return NodeFacts(settled_node(replace(node, host_memory=memory), node.gpus), source, (), (), here=here)


def readable_gpus(root: Path) -> tuple[Gpu, ...]:
    """The GPUs of this machine, where a plan for a stated node only asks whether they could be that node's. Without a driver nothing is loaded."""
    if not (root / "proc/driver/nvidia").is_dir():
        return ()
    try:
        return visible_gpus()[0]
    except ConfigError:
        return ()


def may_be_elsewhere(run: Run) -> bool:
    """A local run on a described GPU node can be planned on any machine, which then lacks that node's paths; Slurm's nodes share theirs."""
    return not run.node.auto and run.node.gpus > 0 and run.cluster.name == "local"


def settled_node(node: Node, gpus: int) -> SettledNode:
    """The node with `gpus` GPUs."""
    return SettledNode(**{**vars(node), "gpus": gpus})


def settle_auto(node: Node, gpus: Sequence[Gpu]) -> SettledNode:
    """The node with the GPU fields that it leaves open filled from `gpus`."""
    wanted = len(gpus) if node.gpus is None else node.gpus
    if wanted > len(gpus):
        raise ConfigError(f"node.gpus={wanted}, but {len(gpus)} GPUs are visible here. Lower node.gpus, or name another node (node=h100_80, ...).")
    if wanted == 0:
        return settled_node(replace(node, gpu_name=None, gpu_memory=None, tflops=None), 0)
    refuse_mixed(gpus)
    name = gpus[0].name
    known = replace(
        node,
        gpu_name=name if node.gpu_name is None else node.gpu_name,
        gpu_memory=min(gpu.total for gpu in gpus) if node.gpu_memory is None else node.gpu_memory,
        tflops=peak_tflops(name) if node.tflops is None else node.tflops,
    )
    return settled_node(known, wanted)


def is_stated(node: Node) -> bool:
    """Whether node=auto has nothing left to ask for."""
    return node.gpus is not None and (node.gpus == 0 or node.gpu_memory is not None) and node.host_memory is not None


def refuse_absent_gpus(node: Node) -> None:
    """A named node may be planned for anywhere; ranks start here only if its GPUs are here.

    Raises:
        ConfigError: when this machine has fewer.
    """
    if node.auto or not node.gpus:
        return
    found, notes = visible_gpus()
    if len(found) < node.gpus:
        raise ConfigError(
            f"node={node.name} has {node.gpus} GPU{'s' * (node.gpus > 1)}, but {len(found)} are visible here. {' '.join((*notes, ''))}"
            "Start it on such a node, submit it with cluster=slurm, or use node=cpu or node=auto. `regimen plan` works anywhere."
        )


def refuse_mixed(gpus: Sequence[Gpu]) -> None:
    if len({gpu.name for gpu in gpus}) > 1:
        # UUIDs, not indices: CUDA numbers the fastest first unless CUDA_DEVICE_ORDER=PCI_BUS_ID, NVML by PCI bus.
        listed = ", ".join(f"{gpu.uuid} ({gpu.name})" for gpu in gpus)
        raise ConfigError(f"The visible GPUs differ: {listed}. Choose GPUs of one type with CUDA_VISIBLE_DEVICES=UUID,UUID,...")


def peak_tflops(name: str) -> float | None:
    """Dense 16-bit matrix peak of one GPU by NVML's product name; None where it is not known."""
    return next((peak for pattern, peak in PEAK_TFLOPS if re.search(pattern, name)), None)


def is_before_ampere(name: str | None) -> bool:
    return any(part in (name or "") for part in BEFORE_AMPERE)


def is_before_ada(name: str | None) -> bool:
    return is_before_ampere(name) or re.search(AMPERE, name or "") is not None


def visible_gpus() -> tuple[tuple[Gpu, ...], tuple[str, ...]]:
    """What CUDA would see on this machine, and notes on why it is not more.

    Raises:
        ConfigError: when there is a driver that cannot be read.
    """
    import pynvml

    try:
        pynvml.nvmlInit()
    except (pynvml.NVMLError_LibraryNotFound, pynvml.NVMLError_DriverNotLoaded) as error:
        return (), (f"There is no NVIDIA driver here ({error}), so this is a CPU node.",)
    except pynvml.NVMLError as error:
        raise ConfigError(f"The NVIDIA driver does not answer: {error}. {STATE_THE_NODE}") from error
    try:
        boards = tuple(read_board(pynvml, index) for index in range(pynvml.nvmlDeviceGetCount()))
    except pynvml.NVMLError as error:
        raise ConfigError(f"A GPU of this machine cannot be read: {error}. `nvidia-smi` shows which. {STATE_THE_NODE}") from error
    finally:
        pynvml.nvmlShutdown()
    return select(boards, os.environ.get("CUDA_VISIBLE_DEVICES"))


def read_board(nvml: Any, index: int) -> tuple[Gpu, ...]:
    """The CUDA devices of one board: itself, or its MIG instances."""
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    uuid = str(nvml.nvmlDeviceGetUUID(handle))
    if not in_mig_mode(nvml, handle):
        return (read_gpu(nvml, handle, index, uuid, mig=False),)
    instances = tuple(read_gpu(nvml, part, index, uuid, mig=True) for part in mig_handles(nvml, handle))
    if not instances:
        raise ConfigError(
            f"GPU {index} ({uuid}) is in MIG mode, but no instance can be read. Create one (nvidia-smi mig -cgi ... -C). {STATE_THE_NODE}"
        )
    return instances


def in_mig_mode(nvml: Any, handle: Any) -> bool:
    try:
        current, _pending = nvml.nvmlDeviceGetMigMode(handle)
    except nvml.NVMLError_NotSupported:  # GPUs without MIG answer so
        return False
    return bool(current == nvml.NVML_DEVICE_MIG_ENABLE)


def mig_handles(nvml: Any, handle: Any) -> Iterator[Any]:
    for slot in range(nvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
        try:
            yield nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, slot)
        except nvml.NVMLError_NotFound:  # an empty slot
            continue


def read_gpu(nvml: Any, handle: Any, index: int, board: str, *, mig: bool) -> Gpu:
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    processes = nvml.nvmlDeviceGetComputeRunningProcesses(handle)
    users = tuple(process_text(process.pid, process.usedGpuMemory) for process in processes)
    uuid, name = str(nvml.nvmlDeviceGetUUID(handle)), str(nvml.nvmlDeviceGetName(handle))
    return Gpu(index, board, uuid, name, int(memory.total), int(memory.free), mig, users, tuple(process.pid for process in processes))


def process_text(pid: int, used: int | None) -> str:
    return f"process {pid}" if used is None else f"process {pid} holds {used >> 20} MiB"


def select(boards: Sequence[tuple[Gpu, ...]], variable: str | None) -> tuple[tuple[Gpu, ...], tuple[str, ...]]:
    """The devices that CUDA_VISIBLE_DEVICES leaves visible, as the CUDA programming guide says: nothing from the first wrong word on."""
    if variable is None:
        return one_mig_instance(tuple(gpu for board in boards for gpu in board))
    chosen: list[Gpu] = []
    words = [word.strip() for word in variable.split(",")] if variable.strip() else []
    for word in words:
        gpu = find_gpu(boards, word)
        if gpu is None or gpu in chosen:
            note = f"CUDA_VISIBLE_DEVICES={variable}: {word!r} is not a further GPU of this machine. CUDA ignores it and everything after it."
            devices, notes = one_mig_instance(tuple(chosen))
            return devices, (note, *notes)
        chosen.append(gpu)
    if not chosen and boards:
        return (), ("CUDA_VISIBLE_DEVICES is empty, so the GPUs of this machine are hidden and this is a CPU node.",)
    return one_mig_instance(tuple(chosen))


def find_gpu(boards: Sequence[tuple[Gpu, ...]], word: str) -> Gpu | None:
    """By index, by a prefix of a board's UUID (GPU-...), or of a MIG instance's (MIG-...); a board in MIG mode means its first instance."""
    if word.isdecimal():
        return boards[int(word)][0] if int(word) < len(boards) else None
    devices = [gpu for board in boards for gpu in board]
    if word.startswith("GPU-"):
        return next((gpu for gpu in devices if gpu.board.startswith(word)), None)
    return next((gpu for gpu in devices if word.startswith("MIG-") and gpu.mig and gpu.uuid.startswith(word)), None)


def one_mig_instance(gpus: tuple[Gpu, ...]) -> tuple[tuple[Gpu, ...], tuple[str, ...]]:
    """A CUDA process enumerates a single MIG instance, whatever it is given (NVIDIA MIG user guide, CUDA device enumeration)."""
    instances = tuple(gpu for gpu in gpus if gpu.mig)
    if not instances:
        return gpus, ()
    first = instances[0]
    return (first,), (
        f"GPU {first.index} is in MIG mode. CUDA shows a process only one instance, here {first.name}. Ranks are not spread over instances.",
    )


def stated_or_host_memory(node: Node, root: Path) -> tuple[int, str]:
    if node.host_memory is not None:
        return node.host_memory, "node.host_memory"
    return host_memory(root)
