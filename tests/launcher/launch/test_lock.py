"""Who owns a run folder: races of real processes, dead owners, reused pids."""

import json
import multiprocessing
import os
import socket
import subprocess
import time
from dataclasses import asdict, replace
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from conf.run_dir import RunDir
from launcher.errors import RunLocked
from launcher.launch import lock

ROUNDS = 20
RACERS = 4
FORK = multiprocessing.get_context("fork")


@pytest.fixture
def run_dir(tmp_path: Path) -> RunDir:
    return RunDir(tmp_path)


def dead_owner() -> lock.Owner:
    """An owner whose process ended: its pid was real, and is nobody's now."""
    child = subprocess.Popen(["true"])
    started = lock.process_start(child.pid)
    child.wait()
    return replace(lock.this_process(), pid=child.pid, process_start=started or 1)


def write_lock(run_dir: RunDir, owner: lock.Owner) -> None:
    run_dir.lock.write_text(json.dumps(asdict(owner)))


def race(folders: list[Path], start: Barrier, won: "SimpleQueue[tuple[int, int]]") -> None:
    for number, folder in enumerate(folders):
        owner = lock.this_process()
        start.wait()
        try:
            lock.acquire(RunDir(folder), owner)
            won.put((number, os.getpid()))
        except RunLocked:
            pass
    start.wait()  # nobody dies while others still race: a dead winner's lock may be taken over


def winners(folders: list[Path]) -> dict[int, list[int]]:
    """The pids that acquired each folder, when several processes try at the same moment."""
    start, won = FORK.Barrier(RACERS), FORK.SimpleQueue()
    racers = [FORK.Process(target=race, args=(folders, start, won)) for _ in range(RACERS)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    found: dict[int, list[int]] = {number: [] for number in range(len(folders))}
    while not won.empty():
        number, pid = won.get()
        found[number].append(pid)
    return found


def folders_under(tmp_path: Path) -> list[Path]:
    folders = [tmp_path / str(number) for number in range(ROUNDS)]
    for folder in folders:
        folder.mkdir()
    return folders


def test_of_several_processes_exactly_one_becomes_the_owner(tmp_path: Path) -> None:
    folders = folders_under(tmp_path)
    for number, pids in winners(folders).items():
        owner = lock.read_owner(RunDir(folders[number]))
        assert owner is not None
        assert pids == [owner.pid]


def test_of_several_processes_exactly_one_takes_over_from_a_dead_owner(tmp_path: Path) -> None:
    folders = folders_under(tmp_path)
    for folder in folders:
        write_lock(RunDir(folder), dead_owner())
    for number, pids in winners(folders).items():
        owner = lock.read_owner(RunDir(folders[number]))
        assert owner is not None
        assert pids == [owner.pid]
        assert [path.name for path in folders[number].iterdir()] == ["lock"]


def test_taking_over_late_leaves_the_lock_of_whoever_was_faster(run_dir: RunDir) -> None:
    dead, faster = dead_owner(), lock.this_process()
    write_lock(run_dir, faster)
    lock.take_over(run_dir, dead)
    assert lock.read_owner(run_dir) == faster


def test_a_living_owner_is_named_with_host_pid_and_age(run_dir: RunDir) -> None:
    lock.acquire(run_dir, replace(lock.this_process(), since=time.time() - 90))
    with pytest.raises(RunLocked, match=rf"in use by process {os.getpid()} on {socket.gethostname()}, which has held it for 9\d s"):
        lock.acquire(run_dir, lock.this_process())


def test_the_owner_may_acquire_again(run_dir: RunDir) -> None:
    owner = lock.this_process()
    lock.acquire(run_dir, owner)
    lock.acquire(run_dir, owner)
    assert lock.read_owner(run_dir) == owner


def test_a_reused_pid_is_not_taken_for_the_owner(run_dir: RunDir) -> None:
    here = lock.this_process()
    write_lock(run_dir, replace(here, process_start=here.process_start - 1, nonce="earlier"))
    lock.acquire(run_dir, here)
    assert lock.read_owner(run_dir) == here


def test_a_zombie_is_dead() -> None:
    child = subprocess.Popen(["true"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert lock.process_start(child.pid) == 0
    child.wait()


def test_a_process_whose_name_holds_brackets_has_a_start(tmp_path: Path) -> None:
    odd = tmp_path / "a) R 1 (b"
    odd.symlink_to("/bin/sleep")
    child = subprocess.Popen([str(odd), "30"])
    try:
        assert lock.process_start(child.pid) >= lock.process_start(os.getpid()) > 0
    finally:
        child.kill()
        child.wait()


def test_an_owner_on_another_host_is_taken_to_live(run_dir: RunDir) -> None:
    write_lock(run_dir, replace(dead_owner(), host="elsewhere"))
    with pytest.raises(RunLocked, match=f"on elsewhere.*If that host is gone, remove {run_dir.lock}"):
        lock.acquire(run_dir, lock.this_process())


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 3}'])
def test_a_damaged_lock_is_named(text: str, run_dir: RunDir) -> None:
    run_dir.lock.write_text(text)
    with pytest.raises(RunLocked, match=f"{run_dir.lock} is damaged"):
        lock.acquire(run_dir, lock.this_process())


def test_only_the_owner_releases(run_dir: RunDir) -> None:
    owner, other = lock.this_process(), lock.this_process()
    lock.acquire(run_dir, owner)
    lock.release(run_dir, other)
    assert lock.read_owner(run_dir) == owner
    lock.release(run_dir, owner)
    assert lock.read_owner(run_dir) is None
    assert list(run_dir.path.iterdir()) == []


def test_releasing_what_is_not_held_does_nothing(run_dir: RunDir) -> None:
    lock.release(run_dir, lock.this_process())
    assert not run_dir.lock.exists()
