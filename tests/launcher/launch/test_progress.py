"""What is shown of progress.jsonl while it grows."""

import io
import json
import time
from pathlib import Path
from typing import Any

import pytest

from conf.metrics import SHOWN, shown_of
from conf.run_dir import RunDir
from conf.stages import STAGES
from conf.words import fitted
from launcher.launch.progress import Bar, Doing, Expected, Lines, Tail, display_for, expected_of, facts, measures


@pytest.fixture
def run_dir(tmp_path: Path) -> RunDir:
    return RunDir(tmp_path)


def append(run_dir: RunDir, *entries: dict[str, Any]) -> None:
    with run_dir.progress.open("a") as file:
        file.writelines(json.dumps(entry) + "\n" for entry in entries)


def step(number: int, **more: float) -> dict[str, Any]:
    return {"step": number, "of": 10, "loss": 2.0, **more}


def test_a_tail_hands_out_every_line_once(run_dir: RunDir) -> None:
    tail = Tail(run_dir, from_start=False)
    assert tail.new_entries() == []  # the file is not there yet
    append(run_dir, step(1), step(2))
    assert [entry["step"] for entry in tail.new_entries()] == [1, 2]
    append(run_dir, step(3))
    assert [entry["step"] for entry in tail.new_entries()] == [3]
    assert tail.new_entries() == []


def test_a_line_that_is_being_written_waits_for_its_end(run_dir: RunDir) -> None:
    tail = Tail(run_dir, from_start=False)
    run_dir.progress.write_text('{"step": 1, "of": 2}\n{"st')
    assert tail.new_entries() == [{"step": 1, "of": 2}]
    with run_dir.progress.open("a") as file:
        file.write('ep": 2, "of": 2}\n')
    assert tail.new_entries() == [{"step": 2, "of": 2}]


@pytest.mark.parametrize(("from_start", "seen"), [(True, [1, 2]), (False, [2])])
def test_a_resumed_run_shows_its_own_steps_and_a_follower_all(from_start: bool, seen: list[int], run_dir: RunDir) -> None:
    append(run_dir, step(1))
    tail = Tail(run_dir, from_start)
    append(run_dir, step(2))
    assert [entry["step"] for entry in tail.new_entries()] == seen


def plan(run_dir: RunDir, stage: str = "sft", peak_flops: float | None = None) -> None:
    expected = {"flops_per_token": 5e10, "peak_flops": peak_flops, "steps": 10}
    run_dir.plan.write_text(json.dumps({"run": {"stage": {"name": stage}}, "expected": expected}))


def doing(run_dir: RunDir, *changes: tuple[float, str]) -> None:
    run_dir.layouts.mkdir(exist_ok=True)
    with run_dir.doing.open("a") as file:
        file.writelines(json.dumps({"time": at, "doing": what}) + "\n" for at, what in changes)


def test_a_line_says_what_an_entry_holds() -> None:
    assert facts({"step": 1, "of": 2, "loss": 2.0}, Expected()) == ["loss 2.0000"]
    assert facts({"eval_loss": 1.5}, Expected()) == ["evaluation loss 1.5000"]
    # 12,000 tokens/s x 5e10 FLOP a token of 1e15 FLOP/s: 60 %
    entry = {"loss": 2.0, "tokens_per_second": 12000.0, "padding": 0.25}
    assert facts(entry, Expected(flops_per_token=5e10, peak_flops=1e15)) == ["loss 2.0000", "12,000 tokens/s", "MFU 60 %", "padding 25 %"]
    assert facts(entry, Expected(flops_per_token=5e10)) == ["loss 2.0000", "12,000 tokens/s", "padding 25 %"]


@pytest.mark.parametrize(
    ("stage", "first"),
    [
        ("sft", ["loss 0.6000"]),
        ("dpo", ["accuracy 75.0%", "margin 0.400", "loss 0.6000"]),
        ("kto", ["margin 0.400", "loss 0.6000"]),
        ("ppo", ["reward 0.250", "KL 0.0100", "loss 0.6000"]),
        ("grpo", ["reward 0.250", "KL 0.0100", "loss 0.6000"]),
    ],
)
def test_what_a_stage_is_about_comes_first(stage: str, first: list[str]) -> None:
    values = {"loss": 0.6, "reward_accuracy": 0.75, "reward_margin": 0.4, "reward": 0.25, "kl": 0.01}
    assert measures(values, shown_of(stage)) == first
    in_evaluation = {f"eval_{name}": value for name, value in values.items()}
    assert measures(in_evaluation, shown_of(stage)) == [f"evaluation {text}" for text in first]


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_shows_a_loss_and_each_value_has_words(stage: str) -> None:
    assert shown_of(stage)[-1] == "loss"
    assert set(shown_of(stage)) <= set(SHOWN)


def test_plain_lines_show_every_logged_step_and_evaluation(run_dir: RunDir) -> None:
    out = io.StringIO()
    lines = Lines(run_dir, out, from_start=True)
    append(run_dir, step(1, eta_seconds=90.0), step(2), {"step": 2, "of": 10, "eval_loss": 1.5}, step(10))
    lines.update()
    assert out.getvalue().splitlines() == [
        "step 1/10: loss 2.0000, 1 min 30 s left",
        "step 2/10: loss 2.0000",
        "step 2/10: evaluation loss 1.5000",
        "step 10/10: loss 2.0000",
    ]


def test_plain_lines_name_what_is_done_before_the_first_step_and_how_long_it_took(run_dir: RunDir) -> None:
    out = io.StringIO()
    lines = Lines(run_dir, out, from_start=True)
    run_dir.journal.write_text(json.dumps({"time": 100.0, "event": "start"}) + "\n")
    doing(run_dir, (103.0, "loading libraries"), (117.0, "joining the ranks (DeepSpeed compiles once)"))
    lines.update()
    doing(run_dir, (119.0, "making the first step"), (125.0, "training"), (190.0, "saving the model"))
    append(run_dir, step(1, time=124.9), step(10, time=189.0))
    lines.update()
    assert out.getvalue().splitlines() == [
        "Starting the ranks took 3 s. Now: loading libraries.",
        "Loading libraries took 14 s. Now: joining the ranks (DeepSpeed compiles once).",
        "Joining the ranks (DeepSpeed compiles once) took 2 s. Now: making the first step.",
        "step 1/10: loss 2.0000",
        "Making the first step took 6 s. Now: training.",
        "step 10/10: loss 2.0000",
        "Training took 1 min 05 s. Now: saving the model.",
    ]


def test_a_new_attempt_is_told_from_its_own_start(run_dir: RunDir) -> None:
    run_dir.journal.write_text(json.dumps({"time": 100.0, "event": "start"}) + "\n")
    seen = Doing(run_dir)
    doing(run_dir, (103.0, "loading libraries"), (110.0, "training"))
    assert [change["seconds"] for change in seen.changes()] == [3.0, 7.0]
    run_dir.doing.unlink()  # as a requeued job does
    run_dir.journal.write_text(json.dumps({"time": 500.0, "event": "start"}) + "\n")
    doing(run_dir, (504.0, "loading libraries"))
    assert [(change["before"], change["seconds"]) for change in seen.changes()] == [("starting the ranks", 4.0)]


def test_mfu_is_shown_against_the_plan(run_dir: RunDir) -> None:
    plan(run_dir, peak_flops=1e15)
    out = io.StringIO()
    lines = Lines(run_dir, out, from_start=True)
    append(run_dir, step(1, tokens_per_second=12000.0))
    lines.update()
    assert "MFU 60 %" in out.getvalue()


def test_without_a_known_peak_there_is_no_mfu(run_dir: RunDir) -> None:
    plan(run_dir)
    assert expected_of(run_dir) == Expected(("loss",), 10, 5e10, 0.0)


def words(bar: Bar) -> str:
    return str(bar.progress.tasks[0].fields["words"])


def test_a_bar_follows_the_steps(run_dir: RunDir) -> None:
    bar = Bar(run_dir, from_start=True)
    append(run_dir, step(3, eta_seconds=61.0), {"step": 3, "of": 10, "eval_loss": 1.5})
    bar.update()
    [task] = bar.progress.tasks
    assert (task.completed, task.total, words(bar)) == (3, 10, "3/10 · 1 min 01 s left · loss 2.0000")


def test_a_bar_says_what_is_done_before_the_first_step_and_after_the_last(run_dir: RunDir) -> None:
    bar = Bar(run_dir, from_start=True)
    now = time.time()
    bar.update()
    assert words(bar) == "starting the ranks, 0 s"
    doing(run_dir, (now - 12.0, "loading weights"))
    bar.update()
    assert words(bar) in ("loading weights, 12 s", "loading weights, 13 s")
    doing(run_dir, (now, "training"))
    append(run_dir, step(10))
    bar.update()
    assert words(bar) == "10/10 · loss 2.0000"
    doing(run_dir, (now, "saving the model"))
    bar.update()
    assert words(bar).startswith("10/10 · saving the model, ")


def test_at_80_columns_a_bar_cuts_nothing_in_two_and_keeps_what_the_stage_is_about(run_dir: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    plan(run_dir, "ppo", 1e15)
    bar = Bar(run_dir, from_start=True)
    measured = {"loss": 12.3456, "reward": -1.234, "kl": 0.1234, "eta_seconds": 86399.0, "tokens_per_second": 1e5, "padding": 0.1}
    append(run_dir, {"step": 99999, "of": 100000, **measured})
    bar.update()
    with bar.progress.console.capture() as shown:
        bar.progress.console.print(bar.progress.get_renderable())
    [line] = shown.get().splitlines()
    assert line.rstrip().endswith(" 99999/100000 · 23 h 59 min left · reward -1.234 · KL 0.1234")
    assert len(line.rstrip()) <= 80


def test_a_bar_keeps_the_reward_of_the_rollout_that_a_step_learns_from(run_dir: RunDir) -> None:
    plan(run_dir, "ppo", 0)
    bar = Bar(run_dir, from_start=True)
    append(run_dir, {"step": 5, "of": 8, "reward": 0.75, "kl": 0.01, "loss": 0.4}, {"step": 6, "of": 8, "loss": 0.3})
    bar.update()
    assert words(bar) == "6/8 · reward 0.750 · KL 0.0100 · loss 0.3000"


def test_what_does_not_fit_into_a_line_is_left_out_whole() -> None:
    assert fitted(["1/2", "loss 1", "12 tokens/s"], 13) == "1/2 · loss 1"
    assert fitted(["1/2", "loss 1", "12 tokens/s"], 26) == "1/2 · loss 1 · 12 tokens/s"
    assert fitted(["1/2"], 1) == "1/2"


def test_a_bar_says_brackets_as_they_are(run_dir: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    Bar(run_dir, from_start=True).say("saved in /runs/[/b]/[red]")
    assert "saved in /runs/[/b]/[red]" in capsys.readouterr().out


def test_a_file_gets_plain_lines(run_dir: RunDir) -> None:
    with display_for(run_dir, io.StringIO()) as display:
        assert isinstance(display, Lines)
