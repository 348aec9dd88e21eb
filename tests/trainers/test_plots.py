"""Curves from progress.jsonl, those of resumed runs included."""

import json
import struct
from pathlib import Path

import pytest

from conf.run_dir import RunDir
from trainers.plots import draw_loss, last_of_each_step, smoothed


def test_the_mean_is_corrected_for_its_start() -> None:
    # 0.9-weighted: 4; (0.9*0.1*4 + 0.1*2) / (1 - 0.81); (0.9*0.56 + 0.1*1) / (1 - 0.729)
    assert smoothed([4.0, 2.0, 1.0]) == pytest.approx([4.0, 0.56 / 0.19, 0.604 / 0.271])


def test_a_constant_loss_stays_what_it_is() -> None:
    assert smoothed([3.0] * 50) == pytest.approx([3.0] * 50)
    assert smoothed([]) == []


def test_of_a_step_that_was_repeated_the_later_entry_counts() -> None:
    entries = [{"step": 1, "loss": 5.0}, {"step": 2, "loss": 4.0}, {"step": 3, "loss": 9.0}, {"step": 2, "loss": 3.0}, {"step": 2, "eval_loss": 1.0}]
    assert last_of_each_step(entries, "loss") == ([1, 2, 3], [5.0, 3.0, 9.0])
    assert last_of_each_step(entries, "eval_loss") == ([2], [1.0])
    assert last_of_each_step(entries, "other") == ([], [])


@pytest.mark.parametrize("evaluations", [[], [{"step": 0, "eval_loss": 3.0}, {"step": 2, "eval_loss": 2.0}]])
def test_the_loss_is_drawn_with_and_without_evaluations(evaluations: list[dict[str, float]], tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path)
    entries = [{"step": 1, "loss": 3.0}, {"step": 2, "loss": 2.0}, *evaluations]
    run_dir.progress.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    draw_loss(run_dir)
    picture = run_dir.loss_plot.read_bytes()
    assert picture[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", picture[16:24]) == (960, 540)  # 8 x 4.5 inches at 120 dots an inch
