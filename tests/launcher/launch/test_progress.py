"""What is shown of progress.jsonl while it grows."""

import io
import json
from pathlib import Path
from typing import Any

import pytest

from conf.run_dir import RunDir
from launcher.launch.progress import Bar, Lines, Tail, display_for, sentence


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
    run_dir.progress.write_text('{"step": 1}\n{"st')
    assert tail.new_entries() == [{"step": 1}]
    with run_dir.progress.open("a") as file:
        file.write('ep": 2}\n')
    assert tail.new_entries() == [{"step": 2}]


@pytest.mark.parametrize(("from_start", "seen"), [(True, [1, 2]), (False, [2])])
def test_a_resumed_run_shows_its_own_steps_and_a_follower_all(from_start: bool, seen: list[int], run_dir: RunDir) -> None:
    append(run_dir, step(1))
    tail = Tail(run_dir, from_start)
    append(run_dir, step(2))
    assert [entry["step"] for entry in tail.new_entries()] == seen


def test_a_sentence_says_what_an_entry_holds() -> None:
    assert sentence({"step": 1, "of": 2, "loss": 2.0}, (0.0, 0.0)) == "loss 2.0000"
    assert sentence({"eval_loss": 1.5}, (0.0, 0.0)) == "evaluation loss 1.5000"
    # 12,000 tokens/s x 5e10 FLOP a token of 1e15 FLOP/s: 60 %
    entry = {"loss": 2.0, "tokens_per_second": 12000.0, "padding": 0.25}
    assert sentence(entry, (5e10, 1e15)) == "loss 2.0000 · 12,000 tokens/s · MFU 60 % · padding 25 %"
    assert "MFU" not in sentence(entry, (5e10, 0.0))


def test_plain_lines_show_the_first_step_evaluations_and_the_last_step(run_dir: RunDir) -> None:
    out = io.StringIO()
    lines = Lines(run_dir, out, from_start=True)
    append(run_dir, step(1, eta_seconds=90.0), *(step(number) for number in range(2, 10)), {"step": 9, "of": 10, "eval_loss": 1.5}, step(10))
    lines.update()
    assert out.getvalue().splitlines() == [
        "step 1/10: loss 2.0000, 1 min 30 s left",
        "step 9/10: evaluation loss 1.5000",
        "step 10/10: loss 2.0000",
    ]


def test_mfu_is_shown_against_the_plan(run_dir: RunDir) -> None:
    run_dir.plan.write_text(json.dumps({"expected": {"flops_per_token": 5e10, "peak_flops": 1e15}}))
    out = io.StringIO()
    lines = Lines(run_dir, out, from_start=True)
    append(run_dir, step(1, tokens_per_second=12000.0))
    lines.update()
    assert "MFU 60 %" in out.getvalue()


def test_without_a_known_peak_there_is_no_mfu(run_dir: RunDir) -> None:
    run_dir.plan.write_text(json.dumps({"expected": {"flops_per_token": 5e10, "peak_flops": None}}))
    assert Lines(run_dir, io.StringIO(), from_start=True).flops == (5e10, 0.0)


def test_a_bar_follows_the_steps(run_dir: RunDir) -> None:
    bar = Bar(run_dir, from_start=True)
    append(run_dir, step(3, eta_seconds=61.0), {"step": 3, "of": 10, "eval_loss": 1.5})
    bar.update()
    [task] = bar.progress.tasks
    assert (task.completed, task.total, task.fields["left"], task.fields["facts"]) == (3, 10, "1 min 01 s", "loss 2.0000")


def test_a_bar_says_brackets_as_they_are(run_dir: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    Bar(run_dir, from_start=True).say("saved in /runs/[/b]/[red]")
    assert "saved in /runs/[/b]/[red]" in capsys.readouterr().out


def test_a_file_gets_plain_lines(run_dir: RunDir) -> None:
    with display_for(run_dir, io.StringIO()) as display:
        assert isinstance(display, Lines)
