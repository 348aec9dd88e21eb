"""A time limit that ends before the run is said when the job is planned."""

from pathlib import Path

import pytest

from launcher.cli import main
from launcher.rules.slurm import late_end
from tests.described import composed

JOB = ("model=llama3.2_1b", "data=files", "data.sets=[org/name]", "node=h200_141", "cluster=slurm")


@pytest.mark.parametrize(
    ("limit", "seconds", "said"),
    [
        ("01:00:00", 3180.0, False),  # 3,600 s less 300 of the warning, 60 by which Slurm may come earlier, and 60 of the start
        ("01:00:00", 3181.0, True),
        ("1-00:00:00", 80_000.0, False),
        ("01:00:00", None, False),  # not predicted
        ("null", 1e9, False),  # the partition's own
    ],
)
def test_the_limit_leaves_what_the_warning_and_the_start_do_not_take(limit: str, seconds: float | None, said: bool) -> None:
    assert bool(late_end(composed(*JOB, f"cluster.time={limit}"), seconds, seconds)) == said


def test_a_local_run_has_no_limit() -> None:
    assert late_end(composed("model=demo", "data=demo"), 1e9, 1e9) == ()


def test_the_limit_that_is_named_is_enough() -> None:
    [text] = late_end(composed(*JOB, "cluster.time=01:00:00"), 7200.5, 7920.5)
    assert "ends before the run: its steps are predicted to take 2 h 00 min (at most 2 h 12 min), and the limit leaves them about 53 min 00 s" in text
    assert "Set cluster.time=02:19:01 or more" in text  # 7,921 s, 300, 60 and 60
    assert late_end(composed(*JOB, "cluster.time=02:19:01"), 7200.5, 7920.5) == ()


def test_a_limit_within_the_range_of_the_prediction_is_told_as_uncertain() -> None:
    [text] = late_end(composed(*JOB, "cluster.time=01:00:00"), 3000.0, 3300.0)
    assert "cluster.time=01:00:00 may end before the run" in text


def test_the_plan_says_it_and_permits_the_job(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["plan", *JOB, f"output={tmp_path}", "training.max_steps=1000000", "cluster.time=01:00:00"])
    said = " ".join(capsys.readouterr().out.split())
    assert code == 0
    assert "note: cluster.time=01:00:00 ends before the run: its steps are predicted to take " in said
