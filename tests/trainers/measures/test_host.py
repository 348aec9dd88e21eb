"""The host memory of this very process: what is anonymous, what is shared, what belongs to a file, and which phase took it."""

import mmap
from collections.abc import Iterator
from pathlib import Path

import pytest

from trainers.measures.host import Held, HostPeaks, held, read

MIB = 2**20
SIZE = 64 * MIB
NOISE = 8 * MIB  # of the interpreter, whose heap grows and shrinks by itself


def test_memory_that_was_written_is_anonymous() -> None:
    before = held()
    block = mmap.mmap(-1, SIZE, flags=mmap.MAP_PRIVATE)
    block.write(bytes(SIZE))
    after = held()
    assert after.anonymous - before.anonymous == pytest.approx(SIZE, abs=NOISE)
    assert after.shared == before.shared
    block.close()


def test_memory_that_processes_share_counts_and_cannot_be_dropped() -> None:
    before = held()
    block = mmap.mmap(-1, SIZE, flags=mmap.MAP_SHARED)
    block.write(bytes(SIZE))
    after = held()
    assert after.shared - before.shared == SIZE
    assert after.fixed - before.fixed == pytest.approx(SIZE, abs=NOISE)
    block.close()


def test_pages_of_a_mapped_file_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(b"1" * SIZE)
    before = held()
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as weights:
        assert sum(weights[start] for start in range(0, SIZE, mmap.PAGESIZE)) == ord("1") * SIZE // mmap.PAGESIZE
        after = held()
    assert after.files - before.files == SIZE
    assert after.fixed - before.fixed == pytest.approx(0, abs=NOISE)


def looks(*sizes: int) -> Iterator[Held]:
    """Anonymous bytes; files grow all the time and count for nothing."""
    return (Held(size, 1, 100 * number) for number, size in enumerate(sizes))


def test_each_phase_keeps_its_fullest_look_and_the_next_begins_with_what_is_there() -> None:
    seen = looks(1, 9, 4, 5, 5, 7, 6)
    peaks = HostPeaks(lambda: next(seen))  # 1
    peaks.note()  # 9
    peaks.end("load")  # 4 at its end; 5 is there when the next begins
    peaks.note()  # 5
    peaks.end("training")  # 7, and 6 afterwards
    assert {phase: one.anonymous for phase, one in peaks.by_phase.items()} == {"load": 9, "training": 7}
    assert peaks.highest == Held(9, 1, 100)
    assert peaks.highest.fixed == 10


def test_the_watching_thread_sees_what_comes_and_goes_between_two_borders() -> None:
    peaks = HostPeaks()
    peaks.watch()
    before = held().anonymous
    block = mmap.mmap(-1, SIZE, flags=mmap.MAP_PRIVATE)
    block.write(bytes(SIZE))
    while peaks.fullest.anonymous < before + SIZE // 2:  # the next look is at most 0.05 s away
        pass
    block.close()
    peaks.end("load")
    assert peaks.by_phase["load"].anonymous - before == pytest.approx(SIZE, abs=NOISE)


def test_a_kernel_that_tells_no_kinds_has_all_of_it_counted() -> None:
    assert read("VmHWM:\t     300 kB\nVmRSS:\t     100 kB\nThreads:\t5\n") == Held(100 * 1024, 0, 0)
    assert read("VmRSS:\t 6 kB\nRssAnon:\t 1 kB\nRssFile:\t 2 kB\nRssShmem:\t 3 kB\n") == Held(1024, 3 * 1024, 2 * 1024)
