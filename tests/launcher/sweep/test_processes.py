import io
import json
from dataclasses import replace
from pathlib import Path

import pytest

from conf.run_dir import RunDir, save_run
from launcher.launch.status import RunStatus
from launcher.sweep.processes import last_words, objective_of, of_what_was_kept, point_environment
from tests.described import described


def ended(loss: float | None, eval_loss: float | None) -> RunStatus:
    return RunStatus(RunDir(Path("/o")), "finished", 3, 3, loss, eval_loss, 0.0, 0, "finished")


def test_a_point_sees_its_own_gpus_whatever_its_parent_saw() -> None:
    environment = point_environment({"CUDA_VISIBLE_DEVICES": "4,5,6", "HOME": "/h"}, ("GPU-b", "GPU-c"), 8)
    assert environment["CUDA_VISIBLE_DEVICES"] == "GPU-b,GPU-c"
    assert environment["HOME"] == "/h"


def test_a_point_on_the_cpu_leaves_the_gpus_to_the_run_itself() -> None:
    assert "CUDA_VISIBLE_DEVICES" not in point_environment({}, (), 1)


def test_threads_that_the_user_set_stay() -> None:
    assert point_environment({"OMP_NUM_THREADS": "3"}, (), 8)["OMP_NUM_THREADS"] == "3"
    assert point_environment({}, (), 8)["OMP_NUM_THREADS"] == "8"


def test_a_package_in_the_working_folder_does_not_shadow_ours() -> None:
    assert point_environment({}, (), 1)["PYTHONSAFEPATH"] == "1"


@pytest.mark.parametrize(
    ("loss", "eval_loss", "expected"),
    [
        (2.0, 1.5, (1.5, "evaluation loss")),
        (2.0, None, (2.0, "loss")),
        (2.0, float("nan"), (None, "")),
        (float("inf"), None, (None, "")),
        (None, None, (None, "")),
    ],
)
def test_the_objective_is_a_finite_loss_or_none(loss: float | None, eval_loss: float | None, expected: tuple[float | None, str]) -> None:
    assert objective_of(ended(loss, eval_loss)) == expected


def test_the_objective_is_the_loss_of_the_checkpoint_that_was_kept(tmp_path: Path) -> None:
    """The first of the two best ones after a step: the model before training is none of them."""
    run_dir = RunDir(tmp_path)
    lines = [{"step": step, "of": 40, "eval_loss": loss} for step, loss in ((0, 0.5), (10, 2.0), (20, 1.5), (30, 1.5), (40, 1.75))]
    run_dir.progress.write_text("".join(json.dumps(line) + "\n" for line in lines))
    for best, expected in (("true", 1.5), ("false", 1.75)):
        overrides = ("evaluation.interval=10", "checkpoint.interval=10", f"evaluation.best_at_end={best}")
        save_run(described("model=demo", "data=demo", "node=cpu", *overrides), run_dir)
        assert of_what_was_kept(replace(ended(2.0, 1.75), run_dir=run_dir)).eval_loss == expected


def test_the_cause_is_the_message_that_the_supervisor_ended_with() -> None:
    log = io.BytesIO(b"step 1/3\nregimen: data.sets=[x]: no such file\nGoodbye\n")
    assert last_words(log) == "data.sets=[x]: no such file"


def test_a_cause_that_ends_in_a_colon_is_told_with_the_line_below() -> None:
    assert last_words(io.BytesIO(b"regimen: x.jsonl: 1 of 1 rows cannot be used:\n  line 1: no JSON\n")) == (
        "x.jsonl: 1 of 1 rows cannot be used: line 1: no JSON"
    )


def test_a_supervisor_that_ended_without_a_message_is_quoted_by_its_last_line() -> None:
    assert last_words(io.BytesIO(b"one\ntwo\n")) == "two"
    assert last_words(io.BytesIO(b"")) == ""
