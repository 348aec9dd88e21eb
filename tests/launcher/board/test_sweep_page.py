"""The page of a sweep, from the ledger of one: points, what was refused, the best one, and the bars of its timeline."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from conf import journal
from conf.run_dir import RunDir, save_run
from launcher.board.index import id_of
from launcher.board.panels import panels
from launcher.board.sweeps import makespan
from launcher.sweep.charts import at_once
from launcher.sweep.ledger import SweepDir
from launcher.sweep.points import Point, Result
from launcher.sweep.summary import Attempt, Summary
from tests.boards import Running
from tests.described import described

STARTED = 1_700_000_000.0
WHY = "GPU_PEAK: needs 141.60 GiB; 80.00 GiB is there."


def point(number: int, event: str, time: float, **facts: object) -> dict[str, object]:
    about = {"point": number, "overrides": [f"optim.lr={number}e-4"], "varied": [f"optim.lr={number}e-4"], "fingerprint": str(number)}
    return {"time": STARTED + time, "event": event, **about, **facts}


def ended_run(path: Path) -> RunDir:
    run_dir = RunDir(path)
    run_dir.path.mkdir(parents=True)
    save_run(described("model=demo", "data=demo", "node=cpu"), run_dir)
    journal.record(run_dir, journal.Started("here"))
    journal.record(run_dir, journal.Ended(0, "done"))
    return run_dir


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of twelve points: two are refused, one has failed, one is not started; and one whose folder lies elsewhere."""
    place = tmp_path_factory.mktemp("work")
    sweep = place / "outputs" / "sweeps" / "2026-11-22_10-00-00"
    sweep.mkdir(parents=True)
    lines = [{"time": STARTED, "event": "sweep", "overrides": ["recipe=demo", "optim.lr=1e-4,2e-4"], "config_dirs": [], "working_folder": str(place)}]
    for number in range(1, 10):
        run_dir = ended_run(place / "outputs" / f"demo-{number}" / "2026-11-22_10-00-01")
        gpu, begun = str(number % 2), 100.0 * (number // 2)
        lines.append(point(number, "started", begun, run_folder=str(run_dir.path), gpus=[gpu]))
        state = "failed" if number == 4 else "finished"
        measured = {} if number == 4 else {"objective": 2.0 - 0.1 * number, "measure": "evaluation loss"}
        lines.append(
            point(number, state, begun + 90, run_folder=str(run_dir.path), seconds=90.0, cause="it broke" if number == 4 else "", **measured)
        )
    for number in (10, 11):
        lines.append(point(number, "refused", 500, cause=WHY, refusal=3, fits=["regime=lora"], seconds=0))
    outside = ended_run(place / "elsewhere" / "demo" / "2026-11-22_10-00-01")
    lines.append(point(12, "started", 500, run_folder=str(outside.path), gpus=["0"]))
    (sweep / "ledger.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return place


@pytest.fixture
def identity(folder: Path) -> str:
    return id_of(RunDir((folder / "outputs" / "sweeps" / "2026-11-22_10-00-00").absolute()))


def test_the_list_counts_the_points_of_each_sweep(running: Running, identity: str) -> None:
    shown = running.get("/sweeps").text
    assert f'href="#/sweeps/{identity}"' in shown
    assert "12 points: 8 finished, 2 refused, 1 failed, 1 unknown" in shown
    assert 'class="state unfinished"' in shown


def test_the_page_has_every_point_the_best_one_and_why_others_were_refused(running: Running, identity: str) -> None:
    shown = running.get(f"/sweeps/{identity}").text
    assert "point 9, evaluation loss 1.1000: <code>optim.lr=9e-4</code>" in shown
    assert shown.count('class="is-best"') == 1
    assert shown.count(WHY) == 2
    assert shown.count("<code>regime=lora</code>") == 2
    assert "it broke" in shown
    assert f"regimen train -m resume={running.folder}/outputs/sweeps/2026-11-22_10-00-00" in shown


def test_the_timeline_has_a_lane_for_each_gpu_and_a_bar_for_each_start(running: Running, identity: str) -> None:
    shown = running.get(f"/sweeps/{identity}").text
    assert [f">GPU {gpu}</text>" in shown for gpu in (0, 1, 2)] == [True, True, False]
    assert shown.count("<rect ") == 10
    assert shown.count('<rect class="failed"') == 1
    assert "1 min 40 s" in shown or "100 s" in shown


def test_the_time_of_the_sweep_stands_beside_what_no_order_goes_below(running: Running, identity: str) -> None:
    """Nine points of 90 s on two GPUs: 405 s each; the last start was after 500 s, which is 23 % above."""
    [shown] = re.findall(r'<p class="facts" id="makespan">(.*?)</p>', running.get(f"/sweeps/{identity}").text, re.DOTALL)
    words = " ".join(re.sub(r"<[^>]*>", "", shown).split())
    assert words == (
        "The whole sweep so far: 8 min 20 s No order of these points takes less than: 6 min 45 s "
        "(seconds of all lanes / lanes that were used, 2: 6 min 45 s; longest point: 1 min 30 s) Above it: 23%"
    )


def test_points_that_shared_a_gpu_count_as_often_as_it_was_shared() -> None:
    """Two points of 10 s at once on one GPU, and a third after them: 15 s of two places."""
    ran = [Attempt(number, ("0",), start, start + 10, "finished") for number, start in ((1, 0.0), (2, 0.0), (3, 10.0))]
    summary = Summary(SweepDir(Path("sweep")), (), (0.0,), (), tuple(ran), ())
    told = makespan(summary)
    assert (told["took"], told["bound"], told["lanes"], told["above"]) == ("20 s", "15 s", 2, "33%")
    assert at_once([Attempt(1, ("0",), 5.0, 5.0, "")]) == 1


def test_a_folder_that_the_ledger_names_and_that_is_no_run_of_the_board_is_not_read(running: Running, identity: str, folder: Path) -> None:
    shown = running.get(f"/sweeps/{identity}").text
    assert "elsewhere" not in shown
    assert id_of(RunDir(folder / "elsewhere" / "demo" / "2026-11-22_10-00-01")) not in shown
    assert shown.count("state unknown") == 1


def test_a_sweep_that_is_not_there_is_told_so(running: Running, identity: str) -> None:
    for path in ("/sweeps/0123456789abcdef", "/sweeps/..%2f", f"/sweeps/{identity[:-1]}"):
        assert running.get(path).status in (307, 404, 422)
    assert running.post(f"/sweeps/{identity}/delete").status == 404


def test_a_ledger_that_is_a_link_is_not_shown(running: Running, folder: Path) -> None:
    hostile = folder / "outputs" / "sweeps" / "hostile"
    hostile.mkdir()
    (hostile / "ledger.jsonl").symlink_to("/etc/passwd")
    try:
        assert "hostile" not in running.get("/sweeps").text
    finally:
        (hostile / "ledger.jsonl").unlink()


def test_stop_is_the_request_of_the_command_line(running: Running, identity: str, folder: Path) -> None:
    done = json.loads(running.post(f"/sweeps/{identity}/stop").text)
    assert done["command"] == f"regimen stop {folder}/outputs/sweeps/2026-11-22_10-00-00"
    assert (done["code"], "is not running" in done["text"]) == (0, True)


def test_each_swept_key_is_drawn_against_the_result(running: Running, identity: str) -> None:
    """Eight points were measured: those from 1 to 9 without the failed one; of optim.lr=1e-4 to 9e-4 the loss falls from 1.9 to 1.1."""
    shown = running.get(f"/sweeps/{identity}/now").text
    [picture] = re.findall(r'<svg class="panel".*?</svg>', shown, re.DOTALL)
    dots = re.findall(r'<circle class="([\w-]+)" cx="([\d.]+)" cy="([\d.]+)" r="\d"><title>(.*?)</title>', picture)
    assert len(dots) == 8
    ordered = sorted((float(x), float(y)) for _, x, y, _ in dots)
    assert [y for _, y in ordered] == sorted(y for _, y in ordered)  # further right is lower, and y grows downwards
    [best] = [words for kind, _, _, words in dots if kind == "best-dot"]
    assert best.split() == ["point", "9", "·", "optim.lr=9e-4:", "evaluation", "loss", "1.1", "·", "Best"]
    assert 'aria-label="optim.lr · evaluation loss.' in picture


def test_values_that_are_no_numbers_stand_side_by_side_and_far_ones_logarithmically() -> None:
    def results(*values: str) -> list[Result]:
        points = [Point(at, (), (f"key={value}",), str(at)) for at, value in enumerate(values)]
        return [Result(one, "finished", float(one.number), "loss") for one in points]

    [names] = panels(results("adamw", "lion", "sgd"), 0)
    assert [name for _, name in names.names] == ["adamw", "lion", "sgd"]
    [wide] = panels(results("0.001", "0.01", "0.1"), 0)
    left, middle, right = sorted(dot.x for dot in wide.dots)
    assert right - middle == pytest.approx(middle - left, abs=0.2)
    assert panels(results("1"), 0) == panels(results("1", "1"), 0) == []
    [level] = panels([replace(one, objective=1.0) for one in results("1", "2")], 0)
    assert len({dot.y for dot in level.dots}) == 1
