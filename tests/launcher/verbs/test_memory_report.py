"""Errors of the memory model over runs, as tables by hand."""

import json
from pathlib import Path
from typing import Any

import pytest

from conf import journal
from conf.run_dir import RunDir
from launcher import cli
from launcher.errors import ConfigError
from launcher.verbs.memory_report import Comparison, Missing, by_label, by_quantity, read, regime_label, report_lines, runs_of, summarise

GIB = 2**30
RUN = "regime: {name: lora}\nsharding: {name: ddp}\ntraining: {precision: bf16}\n"


def made(folder: Path, run: str = RUN) -> RunDir:
    folder.mkdir(parents=True)
    (folder / "run.yaml").write_text(run)
    return RunDir(folder)


def pair(predicted: int, measured: int) -> dict[str, Any]:
    return {"predicted": predicted, "measured": measured, "error": (predicted - measured) / measured}


def measured(run_dir: RunDir, whole: dict[str, Any], phases: dict[str, Any] | None = None, ranks: int = 1) -> RunDir:
    memory = {"predicted": {"allocated": 1}, "measured": [{"rank": rank} for rank in range(ranks)], "compared": {**whole, "phases": phases or {}}}
    run_dir.memory.write_text(json.dumps(memory))
    return run_dir


def compared(run: str, regime: str = "lora bf16", sharding: str = "ddp x1", **errors: float) -> Comparison:
    return Comparison(run, regime, sharding, 2 * GIB, GIB, errors)


def test_a_run_is_read_with_its_regime_sharding_and_errors(tmp_path: Path) -> None:
    whole = {"allocated": pair(11 * GIB, 10 * GIB), "nvml": pair(9, 10), "host": pair(5, 5)}
    run_dir = measured(made(tmp_path / "a"), whole, {"forward": pair(3, 4)}, ranks=2)
    found = read(run_dir)
    assert isinstance(found, Comparison)
    assert (found.regime, found.sharding, found.main, found.predicted, found.measured) == ("lora bf16", "ddp x2", "allocated", 11 * GIB, 10 * GIB)
    assert found.errors == pytest.approx({"allocated": 0.1, "nvml": -0.1, "host": 0.0, "forward": -0.25})


def test_of_a_run_on_cpus_the_host_memory_is_the_peak(tmp_path: Path) -> None:
    found = read(measured(made(tmp_path / "a"), {"host": pair(6, 5)}))
    assert isinstance(found, Comparison)
    assert (found.main, found.predicted, found.measured) == ("host", 6, 5)


def test_a_regime_is_told_apart_by_its_bits_or_its_precision() -> None:
    assert regime_label({"regime": {"name": "qlora", "bits": 4}, "training": {"precision": "bf16"}}) == "qlora4"
    assert regime_label({"regime": {"name": "full"}, "training": {"precision": "bf16_amp"}}) == "full bf16_amp"


@pytest.mark.parametrize(
    ("memory", "why"),
    [
        ("{", "its files cannot be read: Expecting property name"),
        ('{"predicted": {}, "measured": [], "compared": {"phases": {}}}', "nothing was predicted: it was started without a plan"),
        ('{"predicted": {"host": 1}, "measured": []}', "memory.json is of an earlier version, which did not compare"),
    ],
)
def test_a_memory_file_that_compares_nothing_is_named_with_the_reason(memory: str, why: str, tmp_path: Path) -> None:
    run_dir = made(tmp_path / "a")
    run_dir.memory.write_text(memory)
    found = read(run_dir)
    assert isinstance(found, Missing)
    assert found.why.startswith(why)


@pytest.mark.parametrize(
    ("code", "message", "why"),
    [
        (0, "", "an earlier version wrote no memory.json"),
        (75, "saved", "stopped at step 4: memory is compared when a run finishes"),
        (80, "rank 0 ran out of memory\nmore", "failed at step 4: rank 0 ran out of memory"),
    ],
)
def test_a_run_that_did_not_finish_says_how_it_ended(code: int, message: str, why: str, tmp_path: Path) -> None:
    run_dir = made(tmp_path / "a")
    run_dir.progress.write_text('{"step": 4, "of": 9, "loss": 1.0}\n')
    journal.record(run_dir, journal.Ended(code, message))
    assert read(run_dir) == Missing(str(run_dir.path), why)


def test_a_run_that_was_never_started_says_so(tmp_path: Path) -> None:
    run_dir = made(tmp_path / "a")
    assert read(run_dir) == Missing(str(run_dir.path), "it was never started")


def test_the_median_has_a_sign_and_the_worst_is_the_farthest_from_zero() -> None:
    found = summarise("x", [(0.01, "a"), (-0.04, "b"), (0.02, "c")])
    assert (found.runs, found.median, found.size, found.worst, found.worst_run) == (3, 0.01, 0.02, -0.04, "b")


def test_quantities_come_before_phases_and_count_only_runs_that_have_them() -> None:
    runs = [compared("a", allocated=0.1, nvml=0.2, host=0.0, forward=0.3), compared("b", host=0.5)]
    assert [(row.name, row.runs, row.worst) for row in by_quantity(runs)] == [
        ("torch's peak on a GPU", 1, 0.1), ("nvidia-smi", 1, 0.2), ("host memory of a node", 2, 0.5), ("forward", 1, 0.3)
    ]  # fmt: skip


def test_runs_on_cpus_are_no_part_of_the_errors_on_gpus() -> None:
    runs = [compared("a", allocated=0.1, host=0.9), compared("b", allocated=0.3, host=0.9), compared("c", host=-0.5)]
    rows = by_label(runs, lambda each: each.regime)
    assert [(row.name, row.runs, row.worst) for row in rows] == [("lora bf16", 2, 0.3), ("lora bf16, host", 1, -0.5)]


def test_the_report_counts_what_was_compared_and_names_what_was_not() -> None:
    lines = report_lines([compared("a", allocated=1.0, forward=0.5), compared("b", host=1.0)], [Missing("c", "failed at step 1")])
    assert "  a    lora bf16  ddp x1    allocated  2.00 GiB   1.00 GiB  +100.00%" in lines
    assert "  forward                1     +50.00%   50.00%       +50.00%   a" in lines
    assert lines[-3:] == [
        "no phases: b (a run on CPUs, or shorter than two steps)",
        "no measurement: c: failed at step 1",
        "2 of 3 runs compared; + means predicted too much, - too little.",
    ]


def test_runs_are_found_by_folder_below_a_folder_and_once(tmp_path: Path) -> None:
    first, second = made(tmp_path / "out/x/1"), made(tmp_path / "out/y/sweep/2")
    assert runs_of([str(first.path), str(tmp_path / "out")], tmp_path) == [first, second]
    assert runs_of(["last"], tmp_path / "out") == [second]
    with pytest.raises(ConfigError, match=r"nothing holds no run"):
        runs_of([str(tmp_path / "nothing")], tmp_path)


def test_the_verb_prints_and_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    measured(made(tmp_path / "out/x/1"), {"allocated": pair(11, 10), "host": pair(5, 5)}, {"forward": pair(3, 4)})
    picture = tmp_path / "errors.png"
    assert cli.main(["memory", "report", str(tmp_path / "out"), "--picture", str(picture)]) == 0
    assert "1 of 1 runs compared" in capsys.readouterr().out
    assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_a_picture_that_cannot_be_written_is_refused_before_anything_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["memory", "report", str(tmp_path), "--picture", str(tmp_path / "no/errors.png")]) == 74
    assert "cannot be written" in capsys.readouterr().err
