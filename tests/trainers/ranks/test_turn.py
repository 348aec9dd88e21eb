import json
import threading
from pathlib import Path

import pytest

from conf.constants import HELD
from conf.run_dir import RunDir
from tests.waiting import wait_until
from trainers.errors import Stopped
from trainers.ranks.place import Place
from trainers.ranks.turn import wait_for_turn

LEADING = Place(rank=0, local_rank=0, world=1, attempt=0, visible="")


def waiting_for_its_gpus(run_dir: RunDir) -> bool:
    return run_dir.doing.is_file() and HELD in [json.loads(line)["doing"] for line in run_dir.doing.read_text(encoding="utf-8").splitlines()]


def test_a_rank_goes_on_when_its_gpus_are_given_to_it_and_not_before(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path)
    run_dir.hold.touch()
    rank = threading.Thread(target=wait_for_turn, args=(run_dir, LEADING))
    rank.start()
    wait_until(lambda: waiting_for_its_gpus(run_dir), "line that it waits")
    assert rank.is_alive()
    run_dir.hold.unlink()
    rank.join()


def test_a_run_that_waits_for_its_gpus_can_be_stopped(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path)
    run_dir.hold.touch()
    run_dir.stop.touch()
    with pytest.raises(Stopped) as stopped:
        wait_for_turn(run_dir, LEADING)
    assert stopped.value.asked


def test_a_run_whose_gpus_are_free_says_nothing(tmp_path: Path) -> None:
    wait_for_turn(RunDir(tmp_path), LEADING)
    assert not any(tmp_path.iterdir())
