"""node_facts against a driver library that answers as nvml.h documents; the H200's replies were recorded (driver 580.159.04)."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from conf.schema import Node
from launcher.composition.compose import compose
from launcher.errors import ConfigError
from launcher.facts.host_memory import host_memory
from launcher.facts.model import model_facts
from launcher.facts.node import NodeFacts, is_before_ada, peak_tflops, settle_node
from launcher.gate.settle import settled
from launcher.gate.verdict import judge
from launcher.memory.estimate import estimate

AUTO = Node(name="auto", auto=True, gpus=None, gpu_name=None, gpu_memory=None, host_memory=None, tflops=None)
H200_TOTAL = 150754820096
H200_FREE = 150109880320


@dataclass(frozen=True)
class Board:
    name: str = "NVIDIA H200"
    uuid: str = "GPU-b4072719-ce64-5a65-cc32-3d58dee2ddee"
    total: int = H200_TOTAL
    free: int = H200_FREE
    processes: tuple[tuple[int, int | None], ...] = ()
    has_mig: bool = True
    mig_on: bool = False
    slots: tuple["Board | None", ...] = field(default=())  # None: an empty slot


class NVMLError(Exception):
    pass


class NotSupported(NVMLError):
    pass


class NotFound(NVMLError):
    pass


class LibraryNotFound(NVMLError):
    pass


class DriverNotLoaded(NVMLError):
    pass


class LibRmVersionMismatch(NVMLError):
    pass


class Driver(ModuleType):
    """The functions of NVML that are used, over boards given as data."""

    NVMLError = NVMLError
    NVMLError_NotSupported = NotSupported
    NVMLError_NotFound = NotFound
    NVMLError_LibraryNotFound = LibraryNotFound
    NVMLError_DriverNotLoaded = DriverNotLoaded
    NVML_DEVICE_MIG_ENABLE = 1

    def __init__(self, boards: tuple[Board, ...], init_error: NVMLError | None = None) -> None:
        super().__init__("pynvml")
        self.boards = boards
        self.init_error = init_error

    def nvmlInit(self) -> None:  # noqa: N802 - the names of NVML's C functions
        if self.init_error is not None:
            raise self.init_error

    def nvmlShutdown(self) -> None:  # noqa: N802
        pass

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self.boards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Board:  # noqa: N802
        return self.boards[index]

    def nvmlDeviceGetUUID(self, board: Board) -> str:  # noqa: N802
        return board.uuid

    def nvmlDeviceGetName(self, board: Board) -> str:  # noqa: N802
        return board.name

    def nvmlDeviceGetMemoryInfo(self, board: Board) -> SimpleNamespace:  # noqa: N802
        return SimpleNamespace(total=board.total, free=board.free, used=board.total - board.free)

    def nvmlDeviceGetMigMode(self, board: Board) -> list[int]:  # noqa: N802
        if not board.has_mig:
            raise NotSupported("Not Supported")
        return [int(board.mig_on), int(board.mig_on)]

    def nvmlDeviceGetMaxMigDeviceCount(self, board: Board) -> int:  # noqa: N802
        return len(board.slots)

    def nvmlDeviceGetMigDeviceHandleByIndex(self, board: Board, slot: int) -> Board:  # noqa: N802
        part = board.slots[slot]
        if part is None:
            raise NotFound("Not Found")
        return part

    def nvmlDeviceGetComputeRunningProcesses(self, board: Board) -> list[SimpleNamespace]:  # noqa: N802
        return [SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in board.processes]


Settle = Callable[..., NodeFacts]


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """64 GiB and no limit."""
    write(tmp_path / "proc/meminfo", "MemTotal:       67108864 kB\nMemFree:         1024 kB\n")
    return tmp_path


@pytest.fixture
def settle(monkeypatch: pytest.MonkeyPatch, machine: Path) -> Settle:
    def run(*boards: Board, node: Node = AUTO, nodes: int = 1, visible: str | None = None, init_error: NVMLError | None = None) -> NodeFacts:
        monkeypatch.setitem(sys.modules, "pynvml", Driver(boards, init_error))
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if visible is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        return settle_node(node, nodes, machine)

    return run


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def h200(number: int) -> Board:
    return Board(uuid=f"GPU-{number}0000000", free=H200_FREE - number)


def test_one_h200_is_read_as_the_driver_reports_it(settle: Settle) -> None:
    facts = settle(Board())
    assert vars(facts.node) == vars(replace(AUTO, gpus=1, gpu_name="NVIDIA H200", gpu_memory=150754820096, host_memory=64 * 2**30, tflops=989))
    assert facts.gpu_free == (150109880320,)
    assert facts.notes == ()


def test_several_nodes_are_taken_to_be_like_this_one_with_a_note(settle: Settle) -> None:
    assert "The 4 nodes are assumed to be like it" in settle(Board(), nodes=4).notes[0]


@pytest.mark.parametrize(
    ("visible", "free"),
    [
        (None, (0, 1, 2)),
        ("2,0", (2, 0)),
        (" 1 ", (1,)),
        ("GPU-2", (2,)),
        ("GPU-10000000,0", (1, 0)),
        ("", ()),
        ("-1", ()),
        ("0,-1,2", (0,)),
        ("0,7,2", (0,)),
        ("1,1", (1,)),
        ("NoDevFiles", ()),
    ],
)
def test_cuda_visible_devices_counts_up_to_its_first_wrong_word(settle: Settle, visible: str | None, free: tuple[int, ...]) -> None:
    facts = settle(h200(0), h200(1), h200(2), visible=visible)
    assert facts.node.gpus == len(free)
    assert facts.gpu_free == tuple(H200_FREE - number for number in free)


def test_a_hidden_gpu_is_told(settle: Settle) -> None:
    assert "'7' is not a further GPU" in settle(h200(0), visible="0,7").notes[0]
    assert "CUDA_VISIBLE_DEVICES is empty" in settle(h200(0), visible="").notes[0]


def test_a_machine_without_driver_is_a_cpu_node_with_a_note(settle: Settle) -> None:
    facts = settle(init_error=LibraryNotFound("NVML Shared Library Not Found"))
    assert vars(facts.node) == vars(replace(AUTO, gpus=0, host_memory=64 * 2**30))
    assert facts.notes == ("There is no NVIDIA driver here (NVML Shared Library Not Found), so this is a CPU node.",)


def test_a_driver_that_is_broken_is_not_taken_for_a_cpu_node(settle: Settle) -> None:
    with pytest.raises(ConfigError, match=r"does not answer: Driver/library version mismatch.*node=cpu"):
        settle(init_error=LibRmVersionMismatch("Driver/library version mismatch"))


def test_gpus_of_different_types_are_refused_until_one_type_is_chosen(settle: Settle) -> None:
    t4 = Board(name="Tesla T4", uuid="GPU-t4", total=16106127360, free=16000000000, has_mig=False)
    with pytest.raises(ConfigError, match=r"GPU-t4 \(Tesla T4\).*CUDA_VISIBLE_DEVICES=UUID"):
        settle(h200(0), t4)
    assert settle(h200(0), t4, visible="GPU-t4").node.gpu_name == "Tesla T4"


def test_what_the_node_states_stays(settle: Settle) -> None:
    stated = replace(AUTO, gpus=2, gpu_memory=10, host_memory=20, tflops=30.0)
    facts = settle(h200(0), h200(1), h200(2), node=stated)
    assert vars(facts.node) == vars(replace(stated, gpu_name="NVIDIA H200"))
    assert facts.host_memory_source == "node.host_memory"
    assert facts.gpu_free == (H200_FREE, H200_FREE - 1)


def test_more_gpus_than_visible_are_refused(settle: Settle) -> None:
    with pytest.raises(ConfigError, match=r"node.gpus=4, but 1 GPUs are visible"):
        settle(h200(0), node=replace(AUTO, gpus=4))


def test_processes_on_a_gpu_are_told(settle: Settle) -> None:
    facts = settle(Board(processes=((4711, 2**30), (4712, None))))
    assert facts.notes == ("GPU 0 is in use: process 4711 holds 1024 MiB, process 4712.",)
    assert facts.gpu_users == ("GPU 0: process 4711 holds 1024 MiB, process 4712",)


def test_a_mig_instance_is_the_capacity_that_the_gate_judges(settle: Settle) -> None:
    facts = settle(mig_board())
    run = compose(["model=llama3.1_8b", "data=demo", "regime=lora", "gate.floor=advisory", "training.precision=bf16", "cluster.ranks_per_node=1"])
    run = settled(replace(run, node=facts.node), facts.node)
    described = model_facts(run.model.architecture or {}, "test")

    verdict = judge(run, described, estimate(run, described), facts.gpu_free)

    (peak,) = (check for check in verdict.checks if check.rule == "GPU_PEAK")
    assert peak.have == 20900000000  # of the slice, not of the board


def mig_board() -> Board:
    parts = tuple(Board(name="NVIDIA A100-SXM4-40GB MIG 3g.20gb", uuid=f"MIG-{n}", total=20937965568, free=20900000000 - n) for n in (0, 1))
    return Board(name="NVIDIA A100-SXM4-40GB", uuid="GPU-a", mig_on=True, slots=(parts[0], None, parts[1]))


@pytest.mark.parametrize(("visible", "free"), [(None, 20900000000), ("0", 20900000000), ("GPU-a", 20900000000), ("MIG-1", 20899999999)])
def test_a_mig_board_is_one_instance_with_its_own_memory(settle: Settle, visible: str | None, free: int) -> None:
    facts = settle(mig_board(), visible=visible)
    assert (facts.node.gpus, facts.node.gpu_memory, facts.node.tflops) == (1, 20937965568, None)
    assert facts.gpu_free == (free,)
    assert "MIG mode" in facts.notes[0]


def test_a_mig_board_without_instances_is_refused(settle: Settle) -> None:
    with pytest.raises(ConfigError, match="MIG mode, but no instance can be read"):
        settle(Board(mig_on=True, slots=(None,)))


def test_a_named_node_is_not_filled_from_this_machine(settle: Settle) -> None:
    named = Node(name="h100_80", auto=False, gpus=8, gpu_name="H100-80GB", gpu_memory=85520809984, host_memory=None, tflops=989)
    facts = settle(Board(), node=named)
    assert vars(facts.node) == vars(named)
    assert facts.gpu_free == ()
    assert "host memory is not judged" in facts.notes[0]


def test_the_cpu_node_has_the_memory_of_this_machine(settle: Settle) -> None:
    cpu = Node(name="cpu", auto=False, gpus=0, gpu_name=None, gpu_memory=None, host_memory=None, tflops=None)
    facts = settle(Board(), node=cpu)
    assert vars(facts.node) == vars(replace(cpu, host_memory=64 * 2**30))
    assert facts.host_memory_source == "MemTotal"


@pytest.mark.parametrize("missing", ["gpus", "gpu_memory"])
def test_a_named_node_must_state_its_gpus(settle: Settle, missing: str) -> None:
    named = Node(name="mine", auto=False, gpus=1, gpu_name="x", gpu_memory=1, host_memory=1, tflops=None)
    with pytest.raises(ConfigError, match=rf"node\.{missing} has no value"):
        settle(node=replace(named, **{missing: None}))


def test_a_cgroup_v2_limit_anywhere_above_the_process_counts(machine: Path) -> None:
    write(machine / "proc/self/cgroup", "0::/slurm/job_7/step_0\n")
    write(machine / "sys/fs/cgroup/slurm/job_7/step_0/memory.max", "max\n")
    write(machine / "sys/fs/cgroup/slurm/job_7/memory.max", f"{2**30}\n")
    assert host_memory(machine) == (2**30, "cgroup v2 limit")


def test_a_cgroup_v1_limit_counts_and_its_unlimited_value_does_not(machine: Path) -> None:
    write(machine / "proc/self/cgroup", "9:cpu,cpuacct:/x\n4:memory:/job\n0::/\n")
    write(machine / "sys/fs/cgroup/memory/job/memory.limit_in_bytes", "9223372036854771712\n")
    assert host_memory(machine) == (64 * 2**30, "MemTotal")
    write(machine / "sys/fs/cgroup/memory/job/memory.limit_in_bytes", str(2**31))
    assert host_memory(machine) == (2**31, "cgroup v1 limit")


def test_in_a_container_the_root_of_the_mount_is_the_group(machine: Path) -> None:
    write(machine / "proc/self/cgroup", "0::/docker/0123\n")
    write(machine / "sys/fs/cgroup/memory.max", str(2**32))
    assert host_memory(machine) == (2**32, "cgroup v2 limit")


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H100 NVL", None),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", None),
        ("NVIDIA L40S", 362),
        ("NVIDIA L40", None),
        ("NVIDIA L4", 121),
        ("NVIDIA A10", 125),
        ("NVIDIA A10G", None),
        ("NVIDIA GeForce RTX 4090", 165),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("Tesla V100-SXM2-32GB", 125),
        ("Tesla T4", 65),
        ("NVIDIA B200", 2250),
        ("NVIDIA Something New", None),
    ],
)
def test_peaks_are_those_of_the_data_sheets(name: str, peak: float | None) -> None:
    assert peak_tflops(name) == peak


NAMED = Node(name="h100_80", auto=False, gpus=2, gpu_name="H100-80GB", gpu_memory=85520809984, host_memory=None, tflops=989)


def test_a_named_node_is_here_where_its_gpus_could_be(settle: Settle, machine: Path) -> None:
    assert not settle(h200(0), h200(1), node=NAMED).here  # no driver is loaded, and none is asked
    (machine / "proc/driver/nvidia").mkdir(parents=True)
    assert settle(h200(0), h200(1), node=NAMED).here
    assert not settle(h200(0), node=NAMED).here
    assert not settle(init_error=LibraryNotFound("NVML Shared Library Not Found"), node=NAMED).here
    assert not settle(init_error=LibRmVersionMismatch("Driver/library version mismatch"), node=NAMED).here
    assert settle(h200(0)).here


def test_the_host_memory_of_a_queued_job_is_not_that_of_this_machine(machine: Path) -> None:
    cpu = Node(name="cpu", auto=False, gpus=0, gpu_name=None, gpu_memory=None, host_memory=None, tflops=None)
    facts = settle_node(cpu, 1, machine, queued=True)
    assert (facts.node.host_memory, facts.here) == (None, False)
    assert "node=cpu does not state its host memory" in facts.notes[0]
    assert settle_node(replace(cpu, host_memory=2**30), 1, machine, queued=True).node.host_memory == 2**30


@pytest.mark.parametrize(
    ("name", "before"),
    [
        *((name, True) for name in ("NVIDIA A100-SXM4-80GB", "NVIDIA A10G", "NVIDIA RTX A6000", "NVIDIA GeForce RTX 3090", "Tesla T4", "A800")),
        *((name, False) for name in ("NVIDIA H200", "NVIDIA L40S", "NVIDIA L4", "NVIDIA GeForce RTX 4090", "NVIDIA RTX 6000 Ada Generation")),
        *((name, False) for name in ("NVIDIA GH200 480GB", "NVIDIA B200", "NVIDIA GeForce RTX 5090", None)),
    ],
)
def test_gpus_before_ada_are_known_by_their_names(name: str | None, before: bool) -> None:
    assert is_before_ada(name) == before
