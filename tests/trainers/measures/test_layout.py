"""What a rank writes of the memory that it used; the driver's library is faked."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pynvml
import pytest

from conf.run_dir import RunDir
from trainers.measures.host import Held, HostPeaks
from trainers.measures.layout import held_on_gpu, write_peak
from trainers.ranks.place import Place

MIB = 2**20


def test_a_rank_on_a_cpu_writes_its_host_peak_and_no_phases_of_a_gpu(tmp_path: Path) -> None:
    run_dir, host = RunDir(tmp_path), HostPeaks()
    host.end("load")
    write_peak(run_dir, Place(rank=1, local_rank=1, world=2), None, host)
    found = json.loads(run_dir.peak_file(1).read_text())
    assert set(found) == {"rank", "host", "host_phases"}
    assert found["rank"] == 1
    assert 50 * MIB < found["host"] < 2**40  # bytes, not the kibibytes of the kernel: an interpreter with torch holds more than 50 MiB
    assert found["host"] == max(one["anonymous"] + one["shared"] for one in found["host_phases"].values())


def test_the_kinds_of_host_memory_are_written_for_every_phase(tmp_path: Path) -> None:
    looks = iter([Held(1, 0, 9), Held(5, 2, 9), Held(3, 0, 9), Held(4, 1, 8), Held(4, 1, 8)])
    run_dir, host = RunDir(tmp_path), HostPeaks(lambda: next(looks))
    host.end("load")
    host.end("training")
    write_peak(run_dir, Place(rank=0, local_rank=0, world=1), None, host)
    assert json.loads(run_dir.peak_file(0).read_text()) == {
        "rank": 0,
        "host": 7,
        "host_phases": {"load": {"anonymous": 5, "shared": 2, "files": 9}, "training": {"anonymous": 4, "shared": 1, "files": 8}},
    }


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """NVML with these processes on its GPU; answers with the UUIDs that were asked for."""

    def fake(*users: tuple[int, int | None]) -> list[str]:
        asked: list[str] = []
        processes = [SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in users]
        monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
        monkeypatch.setattr(pynvml, "nvmlShutdown", lambda: None)
        monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByUUID", lambda uuid: asked.append(uuid))
        monkeypatch.setattr(pynvml, "nvmlDeviceGetComputeRunningProcesses", lambda handle: processes)
        return asked

    return fake


def test_the_driver_tells_what_this_process_holds_among_others(driver: Callable[..., list[str]]) -> None:
    asked = driver((os.getpid() + 1, 100 * MIB), (os.getpid(), 7 * MIB))
    assert held_on_gpu("550e8400") == 7 * MIB
    assert asked == ["GPU-550e8400"]


def test_a_process_alone_on_its_gpu_is_this_one_whatever_number_the_host_gives_it(driver: Callable[..., list[str]]) -> None:
    driver((os.getpid() + 1, 9 * MIB))
    assert held_on_gpu("550e8400") == 9 * MIB


@pytest.mark.parametrize("users", [(), ((1, 5), (2, 6)), ((os.getpid(), None),)])
def test_nothing_is_recorded_where_the_driver_does_not_tell(driver: Callable[..., list[str]], users: tuple[tuple[int, int | None], ...]) -> None:
    driver(*users)
    assert held_on_gpu("550e8400") is None


def test_a_driver_that_refuses_costs_the_figure_and_not_the_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(uuid: str) -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlShutdown", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByUUID", refuse)
    assert held_on_gpu("550e8400") is None
    assert "The GPU memory that nvidia-smi shows for this process is not recorded: Not Found" in capsys.readouterr().out
