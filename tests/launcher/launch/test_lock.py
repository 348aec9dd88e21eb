"""Who owns a run folder: races of real processes, dead owners, reused pids."""

import json
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from conf.processes import identity_of, process_start
from conf.run_dir import RunDir
from launcher.errors import RunLocked
from launcher.launch import elsewhere, heartbeat, lock
from launcher.launch.status import status_of
from tests.waiting import wait_until

ROUNDS = 20
RACERS = 4
FORK = multiprocessing.get_context("fork")


@pytest.fixture
def run_dir(tmp_path: Path) -> RunDir:
    return RunDir(tmp_path)


def dead_owner() -> lock.Owner:
    """An owner whose process ended: its pid was real, and is nobody's now."""
    child = subprocess.Popen(["true"])
    started = process_start(child.pid)
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
    lock.remove_dead(run_dir, dead)
    assert lock.read_owner(run_dir) == faster


def test_a_living_owner_is_named_with_host_pid_and_age(run_dir: RunDir) -> None:
    lock.acquire(run_dir, replace(lock.this_process(), since=time.time() - 90))
    with pytest.raises(RunLocked, match=rf"in use by process {os.getpid()} on {socket.gethostname()}, which has held it for 9\d s"):
        lock.acquire(run_dir, lock.this_process())


def test_the_owner_may_acquire_again(run_dir: RunDir) -> None:
    owner = lock.this_process()
    lock.acquire(run_dir, owner)
    lock.acquire(run_dir, owner)
    assert lock.read_owner(run_dir) == replace(owner, kernel=True)


def test_a_reused_pid_is_not_taken_for_the_owner(run_dir: RunDir) -> None:
    here = lock.this_process()
    write_lock(run_dir, replace(here, process_start=here.process_start - 1, nonce="earlier"))
    lock.acquire(run_dir, here)
    assert lock.read_owner(run_dir) == replace(here, kernel=True)


def test_a_zombie_is_dead() -> None:
    child = subprocess.Popen(["true"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert process_start(child.pid) == 0
    child.wait()


def test_a_process_whose_name_holds_brackets_has_a_start(tmp_path: Path) -> None:
    odd = tmp_path / "a) R 1 (b"
    odd.symlink_to("/bin/sleep")
    child = subprocess.Popen([str(odd), "30"])
    try:
        assert process_start(child.pid) >= process_start(os.getpid()) > 0
    finally:
        child.kill()
        child.wait()


HERE = lock.Place("node1", "boot1", "pid:[1]")
OWNER = lock.Owner("node1", 7, 70, 0.0, "nonce", "boot1", "pid:[1]", kernel=True)


@pytest.mark.parametrize(
    ("owner", "started", "held", "local", "standing"),
    [
        (OWNER, 70, True, True, "alive"),
        (OWNER, 0, False, True, "dead"),
        (OWNER, 71, False, True, "dead"),  # its pid is another process now
        (OWNER, 0, True, True, "dead"),  # a child that it had forked has not let go yet
        (replace(OWNER, namespace="pid:[2]"), 70, True, True, "alive"),  # pid 7 here is somebody else
        (replace(OWNER, namespace="pid:[2]"), 70, False, False, "dead"),
        (replace(OWNER, namespace="pid:[2]", kernel=False), 70, None, True, "unknown"),
        (replace(OWNER, host="container"), 70, True, True, "alive"),
        (replace(OWNER, host="container"), 70, False, True, "dead"),
        (replace(OWNER, host="container"), 70, False, False, "unknown"),  # two machines from one snapshot have one boot id
        (replace(OWNER, boot="boot0"), 70, False, True, "dead"),  # this machine was started again
        (replace(OWNER, boot="boot0", kernel=False), 70, None, True, "dead"),
        (replace(OWNER, boot="boot0"), 70, False, False, "unknown"),  # another machine of that name
        (replace(OWNER, host="node2", boot="boot2"), 70, True, False, "alive"),  # a file system that carries locks between machines
        (replace(OWNER, host="node2", boot="boot2"), 70, False, False, "unknown"),
        (replace(OWNER, host="node2", boot="boot2"), 70, None, False, "unknown"),
        (replace(OWNER, boot="", namespace="", kernel=False), 70, False, True, "unknown"),  # an earlier version wrote it
    ],
)
def test_who_counts_as_alive(owner: lock.Owner, started: int, held: bool | None, local: bool, standing: str) -> None:
    assert lock.judged(owner, HERE, started, held, local) == standing


def test_an_owner_that_cannot_be_judged_is_replaced_only_on_demand(run_dir: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "LOCAL", frozenset())  # as on NFS
    write_lock(run_dir, replace(dead_owner(), host="elsewhere", boot="another"))
    with pytest.raises(RunLocked, match=rf"may be in use by process \d+ on elsewhere.*: regimen train resume={run_dir.path} --take-over$"):
        lock.acquire(run_dir, lock.this_process())
    owner = lock.this_process()
    lock.acquire(run_dir, owner, take_over=True)
    held = lock.read_owner(run_dir)
    assert held is not None
    assert held.nonce == owner.nonce


def test_who_is_known_to_live_is_never_taken_over(run_dir: RunDir) -> None:
    lock.acquire(run_dir, lock.this_process())
    with pytest.raises(RunLocked, match=f"in use by process {os.getpid()}"):
        lock.acquire(run_dir, lock.this_process(), take_over=True)


HOLD = """
import sys, time
from pathlib import Path
from conf.run_dir import RunDir
from launcher.launch import elsewhere, heartbeat, lock
from launcher.launch.status import status_of
from tests.waiting import wait_until
owner = lock.this_process()
lock.acquire(RunDir(Path(sys.argv[1])), owner)
Path(sys.argv[1], "pid").write_text(str(owner.pid))
time.sleep(3600)
"""


@pytest.mark.parametrize("isolated", [("--pid", "--fork"), ("--pid", "--fork", "--mount-proc"), ("--pid", "--uts", "--fork", "--mount-proc")])
def test_an_owner_in_another_pid_namespace_is_seen_to_live_and_to_die(isolated: tuple[str, ...], run_dir: RunDir) -> None:
    """As in a container: its pid is 1, which here is another process."""
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run((unshare, *isolated, "true"), capture_output=True, check=False).returncode:
        pytest.skip("this user may not make a pid namespace")
    argv = (unshare, *isolated, "--kill-child", sys.executable, "-c", HOLD, str(run_dir.path))
    with subprocess.Popen(argv) as holder:
        try:
            wait_until((run_dir.path / "pid").exists, "owner in the namespace", holder)
            assert (run_dir.path / "pid").read_text() == "1"
            with pytest.raises(RunLocked, match="in use by process 1 on "):
                lock.acquire(run_dir, lock.this_process(), take_over=True)
            assert status_of(run_dir).state == "running"
        finally:
            holder.kill()
    wait_until(lambda: not lock.kernel_lock_held(run_dir.lock), "end of the owner")
    lock.acquire(run_dir, lock.this_process())


def test_the_lock_passes_to_a_process_that_was_given_its_nonce(run_dir: RunDir) -> None:
    parent = lock.this_process()
    lock.acquire(run_dir, parent)
    child = FORK.Process(target=lock.acquire, args=(run_dir, replace(parent, pid=-1)))
    child.start()
    child.join()
    owner = lock.read_owner(run_dir)
    assert child.exitcode == 0
    assert owner is not None
    assert (owner.pid, owner.nonce) == (-1, parent.nonce)
    lock.let_go(parent)
    assert run_dir.lock.exists()


def test_the_kernels_lock_lasts_until_it_is_released(run_dir: RunDir) -> None:
    owner = lock.this_process()
    lock.acquire(run_dir, owner)
    assert lock.kernel_lock_held(run_dir.lock) is True
    lock.release(run_dir, owner)
    assert not run_dir.lock.exists()
    assert owner.nonce not in lock.HELD


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 3}'])
def test_a_damaged_lock_is_named(text: str, run_dir: RunDir) -> None:
    run_dir.lock.write_text(text)
    with pytest.raises(RunLocked, match=f"{run_dir.lock} is damaged"):
        lock.acquire(run_dir, lock.this_process())
    owner = lock.this_process()
    lock.acquire(run_dir, owner, take_over=True)
    assert lock.read_owner(run_dir) == replace(owner, kernel=True)


def test_only_the_owner_releases(run_dir: RunDir) -> None:
    owner, other = lock.this_process(), lock.this_process()
    lock.acquire(run_dir, owner)
    lock.release(run_dir, other)
    assert lock.read_owner(run_dir) == replace(owner, kernel=True)
    lock.release(run_dir, owner)
    assert lock.read_owner(run_dir) is None
    assert list(run_dir.path.iterdir()) == []


def test_releasing_what_is_not_held_does_nothing(run_dir: RunDir) -> None:
    lock.release(run_dir, lock.this_process())
    assert not run_dir.lock.exists()


# An owner on another machine: here another host's name in the lock, on a file system without the kernel's locks.


def elsewhere_owner(process: "subprocess.Popen[bytes]") -> lock.Owner:
    return replace(lock.this_process(), host="node2", boot="other", namespace="other", pid=process.pid, process_start=process_start(process.pid))


@pytest.fixture
def unseen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "kernel_lock_held", lambda path: None)
    monkeypatch.setattr(lock, "is_local", lambda path: False)


@pytest.fixture
def sleeper() -> Iterator["subprocess.Popen[bytes]"]:
    with subprocess.Popen(["sleep", "3600"]) as process:
        yield process
        process.kill()


def owned_and_beating(run_dir: RunDir, sleeper: "subprocess.Popen[bytes]") -> "tuple[lock.Owner, subprocess.Popen[bytes]]":
    owner = elsewhere_owner(sleeper)
    write_lock(run_dir, owner)
    beating = heartbeat.start(run_dir, owner.nonce, identity_of(sleeper.pid), os.environ)
    wait_until(lambda: heartbeat.nonce_in(run_dir.heartbeat) == owner.nonce, "first beat", beating)
    return owner, beating


@pytest.mark.usefixtures("unseen")
def test_an_owner_whose_heart_beats_is_never_taken_over(run_dir: RunDir, sleeper: "subprocess.Popen[bytes]") -> None:
    owner, beating = owned_and_beating(run_dir, sleeper)
    with pytest.raises(RunLocked, match=f"in use by process {sleeper.pid} on node2"):
        lock.acquire(run_dir, lock.this_process())
    assert lock.read_owner(run_dir) == owner
    heartbeat.end(beating, run_dir)
    assert not run_dir.heartbeat.exists()


@pytest.mark.usefixtures("unseen")
def test_an_owner_whose_heart_has_stopped_is_taken_over_by_exactly_one(
    tmp_path: Path, sleeper: "subprocess.Popen[bytes]", monkeypatch: pytest.MonkeyPatch
) -> None:
    """The heartbeat ends with the process that it is about."""
    monkeypatch.setattr(elsewhere.standing, "__defaults__", (0.5,))
    folders = folders_under(tmp_path)[:4]
    for folder in folders:
        _, beating = owned_and_beating(RunDir(folder), sleeper)
        beating.kill()
        beating.wait()
    sleeper.kill()
    for number, pids in winners(folders).items():
        owner = lock.read_owner(RunDir(folders[number]))
        assert owner is not None
        assert pids == [owner.pid]


def test_a_heartbeat_ends_with_its_owner(run_dir: RunDir, sleeper: "subprocess.Popen[bytes]") -> None:
    _, beating = owned_and_beating(run_dir, sleeper)
    sleeper.kill()
    sleeper.wait()
    wait_until(lambda: beating.poll() is not None, "end of the heartbeat")


def test_an_owner_that_was_taken_for_dead_is_killed_when_its_heart_beats_again(run_dir: RunDir, sleeper: "subprocess.Popen[bytes]") -> None:
    """As after its machine was frozen for longer than the silence: two never write in one folder."""
    _, beating = owned_and_beating(run_dir, sleeper)
    write_lock(run_dir, replace(elsewhere_owner(sleeper), nonce="of another machine"))
    assert sleeper.wait() == -signal.SIGKILL
    assert beating.wait() == 0


@pytest.mark.usefixtures("unseen")
def test_a_lock_without_a_heartbeat_is_taken_over_only_on_demand(run_dir: RunDir, sleeper: "subprocess.Popen[bytes]") -> None:
    write_lock(run_dir, elsewhere_owner(sleeper))
    with pytest.raises(RunLocked, match="This machine cannot see whether it still runs"):
        lock.acquire(run_dir, lock.this_process())


@pytest.mark.usefixtures("unseen")
@pytest.mark.parametrize(
    ("squeue", "sacct", "dead"),
    [
        ("echo '77|COMPLETED|None|N/A'", "exit 1", True),
        ("echo '77|RUNNING|None|N/A'", "echo '77|COMPLETED'", False),
        ("echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1", "echo '77|CANCELLED by 1000'", True),
        ("echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1", "echo 'Slurm accounting storage is disabled' >&2; exit 1", False),
        ("echo 'Unable to contact slurm controller' >&2; exit 1", "echo '77|COMPLETED'", False),
    ],
)
def test_the_end_of_its_job_is_the_end_of_an_owner(
    squeue: str, sacct: str, dead: bool, run_dir: RunDir, tmp_path: Path, sleeper: "subprocess.Popen[bytes]", monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, script in (("squeue", squeue), ("sacct", sacct)):
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    write_lock(run_dir, replace(elsewhere_owner(sleeper), slurm_job="77"))
    if dead:
        lock.acquire(run_dir, lock.this_process())
        return
    with pytest.raises(RunLocked, match="This machine cannot see whether it still runs"):
        lock.acquire(run_dir, lock.this_process())


def test_a_lock_names_the_job_of_its_owner(run_dir: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    lock.acquire(run_dir, lock.this_process())
    owner = lock.read_owner(run_dir)
    assert owner is not None
    assert owner.slurm_job == "77"
