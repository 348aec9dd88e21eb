"""What each fact about a machine is judged to be."""

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from launcher.facts.node import Gpu
from launcher.verbs.doctor import (
    Finding,
    check_machine,
    judge_gpus,
    judge_memlock,
    judge_output,
    judge_packages,
    judge_shm,
    judge_tool,
    judge_torch,
    lines,
    requirements,
)

GIB = 2**30
H200 = Gpu(0, "GPU-0", "GPU-0", "NVIDIA H200", 150754820096, 150109880320, mig=False, users=())


def test_gpus_are_counted_with_their_memory() -> None:
    assert judge_gpus((H200, H200), ()) == [Finding("GPUs", "ok", "2 x NVIDIA H200, 140.40 GiB each")]


def test_a_machine_without_gpus_is_told_that_it_trains_on_the_cpu() -> None:
    assert judge_gpus((), ("No NVIDIA driver here.",)) == [Finding("GPUs", "warn", "No NVIDIA driver here", "Training runs on the CPU")]


def test_a_busy_gpu_is_a_warning() -> None:
    busy = Gpu(3, "GPU-3", "GPU-3", "NVIDIA H200", 10, 5, mig=False, users=("process 7 holds 900 MiB",))
    assert [(finding.name, finding.state, finding.found) for finding in judge_gpus((busy,), ())][1:] == [("GPU 3", "warn", "process 7 holds 900 MiB")]


@pytest.mark.parametrize(
    ("version", "driver", "states"),
    [
        ("2.13.0+cpu", 13000, ["fail"]),
        ("2.13.0+cu130", 12080, ["fail"]),
        ("2.13.0+cu130", 13000, ["ok"]),
        ("2.12.0+cu128", 12040, ["ok"]),
        ("2.13.0", 12080, []),
    ],
)
def test_a_build_of_torch_that_cannot_use_the_gpus_fails(version: str, driver: int, states: list[str]) -> None:
    assert [finding.state for finding in judge_torch(version, (H200,), driver)] == states


def test_the_build_of_torch_does_not_matter_without_gpus() -> None:
    assert judge_torch("2.13.0+cpu", (), 0) == []


def test_missing_and_wrong_packages_are_named_with_the_command_that_helps() -> None:
    wanted = ["torch>=2.11,<2.14", "PyYAML>=6", "peft==1.0", "liger-kernel; extra == 'gpu'"]
    findings = judge_packages(wanted, {"torch": "2.14.1", "pyyaml": "6.0"})
    assert findings == [
        Finding("torch", "fail", "2.14.1 is not <2.14,>=2.11", "Run pip install 'torch<2.14,>=2.11'"),
        Finding("peft", "fail", "is not installed", "Run pip install 'peft==1.0'"),
    ]


def test_packages_within_their_ranges_are_one_line() -> None:
    wanted = ["torch>=2.11,<2.14", "PyYAML>=6"]
    assert judge_packages(wanted, {"torch": "2.13.0+cpu", "pyyaml": "6.0"}) == [Finding("packages", "ok", "all 2 within their ranges")]


def test_the_requirements_are_those_of_the_project() -> None:
    assert any(text.startswith("torch>=") for text in requirements())


def test_a_tool_that_is_not_there_is_a_warning() -> None:
    assert judge_tool("g++", None, "apt-get install -y g++") == Finding("g++", "warn", "is not there", "apt-get install -y g++")
    assert judge_tool("g++", "/usr/bin/g++", "").state == "ok"


@pytest.mark.parametrize(
    ("free", "writable", "state"), [(100 * GIB, True, "ok"), (5 * GIB, True, "warn"), (GIB // 2, True, "fail"), (100 * GIB, False, "fail")]
)
def test_the_output_folder_needs_room_and_permission(free: int, writable: bool, state: str) -> None:
    assert judge_output(Path("/data"), free, writable=writable).state == state


def test_the_shared_memory_of_a_container_by_default_is_too_small() -> None:
    assert judge_shm(64 * 2**20).state == "warn"
    assert judge_shm(GIB).state == "ok"


@pytest.mark.parametrize(("limit", "on_gpus", "state"), [(resource.RLIM_INFINITY, True, "ok"), (8 * 2**20, True, "warn"), (8 * 2**20, False, "ok")])
def test_locked_memory_matters_with_gpus(limit: int, on_gpus: bool, state: str) -> None:
    assert judge_memlock(limit, on_gpus=on_gpus).state == state


def test_lines_are_aligned_and_end_with_what_to_do() -> None:
    findings = [Finding("g++", "warn", "is not there", "apt-get install -y g++"), Finding("packages", "ok", "all 2 within their ranges")]
    assert lines(findings) == [
        "warn  g++       is not there. apt-get install -y g++",
        "ok    packages  all 2 within their ranges",
    ]


def test_this_machine_is_checked_without_torch_and_without_making_the_folder(tmp_path: Path) -> None:
    program = (
        "import json, sys; from pathlib import Path; from launcher.verbs.doctor import check_machine; "
        "print(json.dumps([[f.name for f in check_machine(Path(sys.argv[1]))], 'torch' in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path / "a/b")], capture_output=True, text=True, check=True)
    names, torch_loaded = json.loads(done.stdout)
    assert {"GPUs", "g++", "ninja", "Python.h", "output folder", "/dev/shm", "TMPDIR", "ulimit -l"} <= set(names)
    assert not torch_loaded
    assert not (tmp_path / "a").exists()


def test_the_folder_that_is_judged_is_the_nearest_that_exists(tmp_path: Path) -> None:
    found = {finding.name: finding.found for finding in check_machine(tmp_path / "a/b")}
    assert found["output folder"].endswith(f"free in {tmp_path}")
