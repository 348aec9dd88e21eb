"""What this machine has and lacks for training: each finding says what was found and what to do."""

import os
import resource
import shutil
import sys
import sysconfig
import tempfile
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from launcher.command import PACKAGES
from launcher.errors import ConfigError
from launcher.facts.host_speed import python_turn
from launcher.facts.node import Gpu, refuse_mixed, visible_gpus
from launcher.timing.rates import TURN
from launcher.words import GIB, gib

PYPROJECT = PACKAGES / "pyproject.toml"
TIGHT_DISK, FULL_DISK = 20 * GIB, GIB  # a full checkpoint of a 1B model with AdamW: weights and two states in fp32, 12 GB
SMALL_SHM = GIB  # NCCL's troubleshooting guide, "Shared memory": containers default to 64 MiB; it recommends 1 GiB
APT = "apt-get install -y"


@dataclass(frozen=True)
class Finding:
    name: str
    state: Literal["ok", "warn", "fail"]
    found: str
    instead: str = ""  # what to do; empty where all is well


def check_machine(output: Path) -> list[Finding]:
    """Every finding about this machine and the folder that runs would be kept in."""
    gpus, gpu_findings = probe_gpus()
    return [
        *gpu_findings,
        *judge_packages(requirements(), installed_versions()),
        *judge_torch(installed_versions().get("torch", ""), gpus, cuda_of_driver() if gpus else 0),
        *probe_compilers(on_gpus=bool(gpus)),
        *probe_folders(output),
        *([Finding("Python", "ok", turn_said(python_turn()))] if gpus else []),
        judge_memlock(resource.getrlimit(resource.RLIMIT_MEMLOCK)[0], on_gpus=bool(gpus)),
    ]


def lines(findings: Sequence[Finding]) -> list[str]:
    width = max((len(finding.name) for finding in findings), default=0)
    return [f"{finding.state:<4}  {finding.name:<{width}}  {finding.found}{'. ' if finding.instead else ''}{finding.instead}" for finding in findings]


def turn_said(nanoseconds: float) -> str:
    said = f"one turn of a loop takes {nanoseconds:.0f} ns"
    return f"{said}; with node.python_turn={nanoseconds:.0f} plans count with it where a step waits for the host (null: {TURN:.0f})"


def probe_gpus() -> tuple[tuple[Gpu, ...], list[Finding]]:
    try:
        gpus, notes = visible_gpus()
        refuse_mixed(gpus)
    except ConfigError as error:
        return (), [Finding("GPUs", "fail", str(error))]
    return gpus, judge_gpus(gpus, notes)


def judge_gpus(gpus: Sequence[Gpu], notes: Sequence[str]) -> list[Finding]:
    remarks = [Finding("GPUs", "warn", note.rstrip("."), "Training runs on the CPU" if not gpus else "") for note in notes]
    if not gpus:
        return remarks or [Finding("GPUs", "warn", "the driver shows none", "Training runs on the CPU")]
    busy = [
        Finding(f"GPU {gpu.index}", "warn", ", ".join(gpu.users), "End them, or choose others with CUDA_VISIBLE_DEVICES") for gpu in gpus if gpu.users
    ]
    return [Finding("GPUs", "ok", f"{len(gpus)} x {gpus[0].name}, {gib(gpus[0].total)} each"), *remarks, *busy]


def cuda_of_driver() -> int:
    """The newest CUDA that the driver runs, as NVML counts it: 13000 is 13.0."""
    import pynvml

    pynvml.nvmlInit()
    try:
        return int(pynvml.nvmlSystemGetCudaDriverVersion_v2())
    finally:
        pynvml.nvmlShutdown()


def judge_torch(version: str, gpus: Sequence[Gpu], driver_cuda: int) -> list[Finding]:
    """A build of torch that cannot use the GPUs; the local part of the version names the build (2.13.0+cpu, 2.13.0+cu130)."""
    build = version.partition("+")[2]
    if not gpus or not build:
        return []
    if build == "cpu":
        return [
            Finding(
                "torch build", "fail", f"torch {version} is for CPUs, but there are GPUs", "Install a CUDA build: pytorch.org/get-started/locally"
            )
        ]
    major, has = int(build.removeprefix("cu")[:2] if build.startswith("cu") else 0), driver_cuda // 1000
    if major > has:  # minor versions are compatible within a major one (CUDA compatibility guide)
        return [
            Finding(
                "torch build",
                "fail",
                f"torch {version} needs CUDA {major}, but the driver has {has}",
                f"Update the driver, or install torch for cu{has}x",
            )
        ]
    return [Finding("torch build", "ok", f"torch {version}, driver for CUDA {driver_cuda // 1000}.{driver_cuda % 1000 // 10}")]


def requirements() -> list[str]:
    """What pyproject.toml requires; from the installed package's own record where there is no checkout."""
    if PYPROJECT.is_file():
        return list(tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]["dependencies"])
    return metadata.requires("regimen") or []


def installed_versions() -> dict[str, str]:
    from packaging.utils import canonicalize_name

    return {canonicalize_name(found.metadata["Name"]): found.version for found in metadata.distributions()}


def judge_packages(wanted: Sequence[str], installed: dict[str, str]) -> list[Finding]:
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    needed = [requirement for requirement in map(Requirement, wanted) if requirement.marker is None or requirement.marker.evaluate({"extra": ""})]
    wrong: list[Finding] = []
    for requirement in needed:
        version = installed.get(canonicalize_name(requirement.name))
        remedy = f"Run pip install '{requirement}'"
        if version is None:
            wrong.append(Finding(requirement.name, "fail", "is not installed", remedy))
        elif not requirement.specifier.contains(version, prereleases=True):
            wrong.append(Finding(requirement.name, "fail", f"{version} is not {requirement.specifier}", remedy))
    return wrong or [Finding("packages", "ok", f"all {len(needed)} within their ranges")]


def probe_compilers(*, on_gpus: bool) -> list[Finding]:
    """DeepSpeed compiles its kernels when they are first used."""
    header = Path(sysconfig.get_paths()["include"]) / "Python.h"
    needed = [
        judge_tool("g++", find_program("g++"), f"Run {APT} g++, or use only sharding=ddp"),
        judge_tool("ninja", find_program("ninja"), "Run pip install ninja, or use only sharding=ddp"),
        judge_tool("Python.h", str(header) if header.is_file() else None, f"Run {APT} python3-dev, or use only sharding=ddp"),
    ]
    nvcc = judge_tool("nvcc", find_program("nvcc"), "Install the CUDA toolkit, or do not offload to host memory")
    return [*needed, nvcc] if on_gpus else needed


def find_program(name: str) -> str | None:
    """On the PATH, or beside the interpreter, where the ranks look too."""
    return shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))


def judge_tool(name: str, path: str | None, remedy: str) -> Finding:
    return Finding(name, "warn", "is not there", remedy) if path is None else Finding(name, "ok", path)


def probe_folders(output: Path) -> list[Finding]:
    existing = next(folder for folder in (output.absolute(), *output.absolute().parents) if folder.exists())
    shm = Path("/dev/shm")
    return [
        judge_output(existing, shutil.disk_usage(existing).free, writable=existing.is_dir() and os.access(existing, os.W_OK)),
        judge_shm(shutil.disk_usage(shm).total if shm.is_dir() else 0),
        probe_temporary(),
    ]


def judge_output(folder: Path, free: int, *, writable: bool) -> Finding:
    if not writable:
        return Finding("output folder", "fail", f"{folder} cannot be written", "Set output= to a folder that you may write to")
    if free < FULL_DISK:
        return Finding("output folder", "fail", f"{gib(free)} free in {folder}", "Free some space, or set output= to a different disk")
    if free < TIGHT_DISK:
        return Finding(
            "output folder",
            "warn",
            f"{gib(free)} free in {folder}",
            "Checkpoints of a full run may not fit. Free some space, or set output= to a different disk",
        )
    return Finding("output folder", "ok", f"{gib(free)} free in {folder}")


def judge_shm(size: int) -> Finding:
    if size < SMALL_SHM:
        return Finding("/dev/shm", "warn", f"has {gib(size)}", "Ranks exchange data through it. Start the container with --shm-size=1g or more")
    return Finding("/dev/shm", "ok", gib(size))


def probe_temporary() -> Finding:
    try:
        return Finding("TMPDIR", "ok", tempfile.gettempdir())
    except FileNotFoundError as error:
        return Finding("TMPDIR", "fail", str(error), "Set TMPDIR to a folder that you may write to")


def judge_memlock(limit: int, *, on_gpus: bool) -> Finding:
    """InfiniBand and pinned memory lock pages (NCCL's troubleshooting guide, "Networking issues")."""
    if limit == resource.RLIM_INFINITY:
        return Finding("ulimit -l", "ok", "unlimited")
    if on_gpus:
        return Finding("ulimit -l", "warn", gib(limit), "InfiniBand needs more. Use ulimit -l unlimited, or --ulimit memlock=-1 for a container")
    return Finding("ulimit -l", "ok", gib(limit))
