"""Who may start on which GPU, in which order, and for how long."""

import os
import sys
import threading
from contextlib import ExitStack

import pytest

from benchmarks.running.processes import PASSES, TIMED_OUT, Room, environment_for, in_place_of_trainers, run_limited
from tests.waiting import PATIENCE, wait_until

GIB = 2**30


def test_cells_of_one_gpu_go_to_the_emptiest_and_cells_of_two_take_both():
    room = Room(["0", "1"], 100, 8)
    with ExitStack() as inside:
        assert inside.enter_context(room.entered(room.queue(60))) == ("0",)
        assert inside.enter_context(room.entered(room.queue(30))) == ("1",)
        assert set(inside.enter_context(room.entered(room.queue(40, 2)))) == {"0", "1"}
        assert room.free == {"0": 0, "1": 30}
        assert room.places == 4
    assert room.free == {"0": 100, "1": 100}
    assert room.places == 8


@pytest.mark.parametrize(("size", "gpus"), [(101 * GIB, 1), (10 * GIB, 3)])
def test_who_can_never_enter_is_refused_at_once(size, gpus):
    with pytest.raises(ValueError, match=r"cannot fit: there are 2 GPU\(s\) with room for 100.0 GiB each, and 4 process"):
        Room(["0", "1"], 100 * GIB, 4).queue(size, gpus)


def test_small_ones_pass_a_large_one_that_waits_but_not_for_ever():
    room = Room(["0"], 100, 99)
    with ExitStack() as inside:
        inside.enter_context(room.entered(room.queue(50)))
        large = room.queue(80)
        for _ in range(PASSES):
            with room.entered(room.queue(1)) as devices:
                assert devices == ("0",)
        assert not room.may_enter(room.queue(1))
    assert room.may_enter(large)


def test_nobody_enters_a_closed_room():
    room = Room(["0"], 100, 1)
    held = room.queue(100)
    waiting = room.queue(100)
    found = []

    def wait():
        with room.entered(waiting) as devices:
            found.append(devices)

    with room.entered(held):
        thread = threading.Thread(target=wait)
        thread.start()
        room.close()
        thread.join(PATIENCE)
    assert found == [()]


def test_a_process_that_takes_too_long_is_killed_with_its_group(tmp_path):
    code, output = run_limited(["sh", "-c", f"sleep 36000 & echo $! > {tmp_path}/pid; wait"], dict(os.environ), 3)
    assert code == TIMED_OUT
    assert output.endswith("killed after 3 s")
    pid = int((tmp_path / "pid").read_text())
    wait_until(lambda: not is_alive(pid), "end of the child")


def is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"  # a zombie waits for whoever adopts orphans here
    except FileNotFoundError:
        return False


def test_a_process_that_ends_in_time_tells_its_code_and_what_it_said():
    assert run_limited([sys.executable, "-c", "print('done'); raise SystemExit(3)"], dict(os.environ), 60) == (3, "done\n")


def test_a_cell_sees_its_own_gpus_alone_and_on_a_cpu_nothing_is_said_of_them(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert environment_for(("1", "0"), 2)["CUDA_VISIBLE_DEVICES"] == "1,0"
    assert "CUDA_VISIBLE_DEVICES" not in environment_for(("",), 2)


def test_a_script_takes_the_place_of_the_trainers():
    assert in_place_of_trainers(("torchrun", "-m", "trainers", "RUN"), "capped.py", "9") == ("torchrun", "capped.py", "9", "RUN")
