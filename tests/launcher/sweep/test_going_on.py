"""A later start of a sweep: what it may change, and what it does with the points that an earlier start came to."""

import json
import os
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from conf import journal
from conf.run_dir import RunDir, save_run
from conf.run_values import run_as_dict
from launcher.errors import ConfigError, RunLocked
from launcher.launch import lock
from launcher.launch.foreign import NO_TRUST
from launcher.sweep import ledger
from launcher.sweep.fingerprint import defaults_of, distinctive, fingerprint_of
from launcher.sweep.going_on import continued, judge_again, on_its_share_again, what_is_left
from launcher.sweep.ledger import Start, SweepDir
from launcher.sweep.multirun import multirun
from launcher.sweep.points import Permitted, Point, Result, composed_or_refusal, on_its_share
from launcher.sweep.schedule import Resources
from launcher.sweep.session import Sweep
from tests.described import composed, described

POINT = Point(1, ("recipe=demo",), ())
GRID = ("recipe=demo", "training.seed=3", "optim.lr=1e-3,2e-3")
TOO_SMALL = ["recipe=demo", "node=cpu", "node.host_memory=100000000"]


def go_on(*given: str) -> list[str]:
    return continued(SweepDir(Path("/o/sweeps/one")), Start(GRID, (), ""), given)


def test_nothing_given_is_the_same_grid() -> None:
    assert go_on() == list(GRID)


def test_a_swept_key_may_have_other_values_and_a_new_one_may_be_swept() -> None:
    assert go_on("optim.lr=1e-3,2e-3,4e-3", "regime.rank=8,16") == [*GRID[:2], "optim.lr=1e-3,2e-3,4e-3", "regime.rank=8,16"]
    assert go_on("optim.lr=1e-3", "training.seed=3", "hydra.launcher.gpus=2") == [*GRID[:2], "optim.lr=1e-3", "hydra.launcher.gpus=2"]


def test_another_grid_is_refused_with_every_key_that_makes_it_one() -> None:
    with pytest.raises(ConfigError) as refusal:
        go_on("training.seed=4", "optim.lr=1e-3,5e-3", "regime=full")
    assert "/o/sweeps/one is a sweep of another grid:\n  training.seed: recorded 3, given 4\n  regime: recorded not given, given full\n" in str(
        refusal.value
    )


def test_a_fingerprint_is_that_of_the_configuration_not_of_its_words() -> None:
    words = (["recipe=demo", "optim.lr=1e-3"], ["optim.lr=0.001", "recipe=demo"], ["recipe=demo", "optim.lr=2e-3"])
    first, same, other = (fingerprint_of(composed_or_refusal(text, []), text) for text in words)
    assert first == same != other
    assert fingerprint_of(composed_or_refusal(["optim.lrr=1"], []), ["optim.lrr=1"]) not in (first, other)


def test_a_key_that_has_its_default_does_not_show_in_a_fingerprint() -> None:
    """So a version that adds a key knows the points of an older sweep."""
    plain, other = (distinctive(run_as_dict(composed("recipe=demo", *words))) for words in ([], ["optim.max_grad_norm=0"]))
    assert "evaluation.at_end" not in plain
    assert "training.on_nan" not in plain
    assert defaults_of("training", "")["on_nan"] == "stop"
    assert {key for key in {**plain, **other} if plain.get(key, "default") != other.get(key, "default")} == {"optim.max_grad_norm"}


@pytest.fixture
def run_dir(tmp_path: Path) -> RunDir:
    made = RunDir(tmp_path / "outputs" / "demo" / "one")
    made.path.mkdir(parents=True)
    save_run(described("recipe=demo", "node=cpu", f"output={tmp_path / 'outputs'}"), made)
    return made


@pytest.mark.parametrize(
    ("code", "again"),
    [(75, True), (130, True), (1, True), (6, True), (76, True), (74, True), (4, True), (82, True), (2, False), (3, False), (80, False), (81, False)],
)
def test_a_failed_point_is_tried_again_unless_its_configuration_decided_its_end(run_dir: RunDir, code: int, again: bool) -> None:
    journal.record(run_dir, journal.Started("n1"))
    journal.record(run_dir, journal.Ended(code, "What happened."))
    left = what_is_left(Result(POINT, "failed", run_dir=run_dir))
    assert left == (run_dir if again else Result(POINT, "failed", run_dir=run_dir, cause="What happened."))


def test_a_run_that_finished_by_itself_since_is_a_finished_point(run_dir: RunDir) -> None:
    run_dir.progress.write_text(json.dumps({"step": 3, "of": 3, "loss": 0.25}) + "\n", encoding="utf-8")
    journal.record(run_dir, journal.Ended(0, "finished"))
    assert what_is_left(Result(POINT, "running", run_dir=run_dir)) == Result(POINT, "finished", 0.25, "loss", run_dir)


def test_a_refused_point_and_one_whose_folder_is_gone_begin(tmp_path: Path) -> None:
    assert what_is_left(Result(POINT, "refused", cause="HOST_RAM: ...")) is None
    assert what_is_left(Result(POINT, "stopped", run_dir=RunDir(tmp_path / "gone"))) is None


def test_a_finished_point_stays_finished_when_its_folder_was_cleaned(tmp_path: Path) -> None:
    before = Result(POINT, "finished", 0.5, "loss", RunDir(tmp_path / "gone"))
    assert what_is_left(before) is before


def test_a_point_whose_owner_lives_is_left_alone(run_dir: RunDir) -> None:
    held = lock.this_process()
    lock.acquire(run_dir, held)
    try:
        found = judge_again(POINT, run_dir, Resources((), 1), NO_TRUST)
    finally:
        lock.release(run_dir, held)
    assert isinstance(found, Result)
    assert (found.state, found.refusal) == ("refused", RunLocked.exit_code)
    assert "is in use by process" in found.cause


def test_a_point_goes_on_in_its_folder_with_its_recorded_values(run_dir: RunDir) -> None:
    found = judge_again(POINT, run_dir, Resources((), 1), NO_TRUST)
    assert isinstance(found, Permitted)
    assert (found.run_dir, found.judged.run.training.max_steps) == (run_dir, 300)


def test_a_stated_node_is_not_shared_a_second_time() -> None:
    run = composed("recipe=demo", "node=h100_80", "node.gpus=8", "node.host_memory=800", "cluster.ranks_per_node=2")
    eight = Resources(tuple("abcdefgh"), 1)
    shared = on_its_share(run, eight)
    assert shared.node.host_memory == int(800 * Fraction(2, 8))
    assert on_its_share_again(shared, eight) == shared
    with pytest.raises(ConfigError, match="This run needs 2 GPUs, and 1 may be used here"):
        on_its_share_again(shared, Resources(("a",), 1))


@pytest.fixture
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def sweep_in(folder: Path) -> SweepDir:
    (path,) = folder.glob("outputs/sweeps/*")
    return SweepDir(path)


def test_a_larger_grid_adds_points_and_known_ones_keep_their_numbers(working_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert multirun([*TOO_SMALL, "regime.rank=8,16"], []) == 3
    assert multirun(["resume=last", "regime.rank=4,16"], []) == 3
    ranks = [(result.point.number, result.point.overrides[-1]) for result in ledger.results(sweep_in(working_folder))]
    assert ranks == [(1, "regime.rank=8"), (2, "regime.rank=16"), (3, "regime.rank=4")]
    assert "3 points: 3 refused" in capsys.readouterr().out
    assert not sweep_in(working_folder).path.joinpath("lock").exists()


def test_a_point_of_an_earlier_grid_is_told_as_its_folder_has_it(working_folder: Path, run_dir: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    assert multirun([*TOO_SMALL, "regime.rank=8,16"], []) == 3
    sweep_dir = sweep_in(working_folder)
    first = ledger.results(sweep_dir)[0]
    ledger.record(sweep_dir, ledger.BEGUN, **ledger.facts_of(first.point, run_dir), gpus=[])  # and then the sweep was killed
    run_dir.progress.write_text(json.dumps({"step": 3, "of": 3, "loss": 0.25}) + "\n", encoding="utf-8")
    journal.record(run_dir, journal.Ended(0, "finished"))
    assert multirun(["resume=last", "regime.rank=16,32"], []) == 3
    assert "3 points: 1 finished, 2 refused" in capsys.readouterr().out
    assert json.loads(sweep_dir.summary.read_text(encoding="utf-8"))["points"][0]["objective"] == 0.25


def test_an_unfinished_point_that_the_values_leave_out_is_named(working_folder: Path, run_dir: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    """It was left for good without a word, and the exit code was 0."""
    assert multirun([*TOO_SMALL, "regime.rank=8,16"], []) == 3
    sweep_dir = sweep_in(working_folder)
    ledger.record(sweep_dir, ledger.BEGUN, **ledger.facts_of(ledger.results(sweep_dir)[0].point, run_dir), gpus=[])
    journal.record(run_dir, journal.Ended(1, "a bug"))
    capsys.readouterr()
    assert multirun(["resume=last", "regime.rank=16,32"], []) == 3
    said = " ".join(capsys.readouterr().out.split())
    assert "note: This start did not come to 1 unfinished point of an earlier one (1): its values leave them out. To go on with them" in said


def test_a_finished_point_is_answered_from_the_ledger_and_not_judged_again(working_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert multirun([*TOO_SMALL, "regime.rank=8,16"], []) == 3
    sweep_dir = sweep_in(working_folder)
    first, second = ledger.results(sweep_dir)
    ledger.record_result(sweep_dir, replace(first, state="finished", objective=0.5, measure="loss", cause=""))
    ledger.record_result(sweep_dir, replace(second, state="finished", objective=0.25, measure="loss", cause=""))
    lines = sweep_dir.ledger.read_text(encoding="utf-8").count("\n")
    assert multirun([f"resume={sweep_dir.path}"], []) == 0
    said = capsys.readouterr().out
    assert "point 1 is finished already: loss 0.5000" in said
    assert "best: point 2, loss 0.2500: regime.rank=16" in said
    assert sweep_dir.ledger.read_text(encoding="utf-8").count("\n") == lines + 1  # that it was started again


def test_a_choice_of_the_users_own_is_found_again_without_its_folder_being_named(working_folder: Path) -> None:
    own = working_folder / "own" / "optim"
    own.mkdir(parents=True)
    own.joinpath("mine.yaml").write_text((Path(__file__).parents[3] / "conf" / "optim" / "sgd.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    assert multirun([*TOO_SMALL, "optim=mine,adamw"], [Path("own")]) == 3
    assert multirun(["resume=last"], []) == 3
    assert [result.point.number for result in ledger.results(sweep_in(working_folder))] == [1, 2]


def test_what_is_no_sweep_of_this_folder_is_one_message(working_folder: Path, run_dir: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"nope is not the folder of a sweep\. There is no sweep under outputs\."):
        multirun(["resume=nope"], [])
    with pytest.raises(ConfigError, match=f"is a run, and -m goes on with a sweep. Write: regimen train resume={run_dir.path}"):
        multirun([f"resume={run_dir.path}"], [])
    assert multirun([*TOO_SMALL, "regime.rank=8,16"], []) == 3
    folder = sweep_in(working_folder).path
    elsewhere = working_folder / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    with pytest.raises(ConfigError, match=f"was started in {working_folder}, and its paths are meant from there"):
        multirun([f"resume={folder}"], [])
    assert os.listdir(elsewhere) == []


def test_two_processes_do_not_work_on_one_sweep(working_folder: Path) -> None:
    assert multirun([*TOO_SMALL, "regime.rank=8,16"], []) == 3
    sweep_dir = sweep_in(working_folder)
    held = lock.this_process()
    lock.acquire(sweep_dir.lockable, held)
    with pytest.raises(RunLocked, match=f"or end it with `regimen stop {sweep_dir.path}`"):
        multirun(["resume=last"], [])
    lock.release(sweep_dir.lockable, held)


def test_a_point_that_a_sampler_chooses_again_is_answered_with_a_line(working_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["recipe=demo", "node=cpu", "regime.rank=8"]
    sweep_dir = ledger.make_sweep_dir(working_folder)
    point = Point(1, tuple(words), (), fingerprint_of(composed_or_refusal(words, []), words))
    ledger.record_result(sweep_dir, Result(point, "finished", 0.5, "loss"))
    sweep = Sweep(sweep_dir, [], frozenset())
    assert [sweep.run_batch([words], Resources((), 1)) for _ in range(2)] == [[0.5], [0.5]]
    assert capsys.readouterr().out == "point 1 is finished already: loss 0.5000\n" * 2
    assert len(ledger.events(sweep_dir)) == 1
