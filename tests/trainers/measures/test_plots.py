"""Curves from progress.jsonl, those of resumed runs included; memory by phase from plan.json."""

import json
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest

from conf.run_dir import RunDir
from trainers.measures.plots import (
    capacity_of,
    draw_loss,
    draw_memory,
    highest_rows,
    in_sight,
    last_of_each_step,
    panel_grid,
    reported_panels,
    show_zero,
    smoothed,
    stacked,
)


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


@pytest.mark.parametrize(("losses", "frame"), [([6.0, 6.4], (0.0, 6.72)), ([-0.25, 0.0], (-0.2625, 0.0125)), ([-1.0, 3.0], (-1.2, 3.2))])
def test_every_loss_lies_within_the_frame(losses: list[float], frame: tuple[float, float]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots()
    axes.plot([1, 2], losses)
    show_zero(axes)
    assert axes.get_ylim() == pytest.approx(frame)  # 5 % of what is shown above, and below where a loss is negative
    pyplot.close(figure)


def test_what_the_stage_reports_is_drawn_beside_the_loss(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path)
    step = {"loss": 0.6, "reward_chosen": 0.1, "reward_rejected": -0.1, "reward_accuracy": 0.5}
    entries = [{"step": 1, **step}, {"step": 2, **step}, {"step": 2, "eval_loss": 0.5, "eval_reward_accuracy": 0.75}]
    run_dir.progress.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    assert reported_panels(entries) == {
        "reward": {"reward_chosen": "chosen", "reward_rejected": "rejected"},
        "share of pairs in order": {"reward_accuracy": "training"},
    }
    draw_loss(run_dir)
    assert struct.unpack(">II", run_dir.loss_plot.read_bytes()[16:24]) == (1920, 1080)  # three panels in two rows of two


@pytest.mark.parametrize(("count", "grid"), [(1, (1, 1)), (2, (1, 2)), (3, (2, 2)), (4, (2, 2)), (5, (2, 3)), (7, (3, 3))])
def test_panels_are_laid_out_in_rows(count: int, grid: tuple[int, int]) -> None:
    assert panel_grid(count) == grid


TERMS = {"weights": 1000, "norms": 5}
PLAN: dict[str, Any] = {
    "run": {"name": "a", "node": {"gpus": 1, "gpu_memory": 24 * 2**30, "host_memory": None}, "cluster": {"ranks_per_node": 2}},
    "memory": {
        "required": 1600,
        "phases": {
            "load": {"bytes": 1000, "terms": {"weights": 1000}},
            "backward: loss": {"bytes": 1205, "terms": {**TERMS, "logits": 200}},
            "backward: end": {"bytes": 1305, "terms": {**TERMS, "gradients": 300}},
        },
        "outside": {"CUDA context": 100},
    },
}


def test_terms_are_stacked_in_order_small_ones_together_and_what_is_not_torchs_on_top() -> None:
    assert list(stacked(PLAN["memory"]).items()) == [
        ("weights", [1000, 1000, 1000]),
        ("logits", [0, 200, 0]),
        ("gradients", [0, 0, 300]),
        ("terms below 1 %", [0, 5, 5]),  # 5 of 1305
        ("CUDA context", [100, 100, 100]),
    ]


def test_a_measured_phase_is_marked_at_the_highest_of_its_predicted_ones() -> None:
    assert highest_rows(PLAN["memory"]) == {"load": 0, "backward": 2}


def test_capacity_is_that_of_a_gpu_or_of_a_ranks_share_of_a_cpu_node() -> None:
    assert capacity_of(PLAN["run"]) == 24 * 2**30
    assert capacity_of({"node": {"gpus": 0, "gpu_memory": None, "host_memory": 100}, "cluster": {"ranks_per_node": 4}}) == 25
    assert capacity_of({"node": {"gpus": 0, "gpu_memory": None, "host_memory": None}, "cluster": {"ranks_per_node": 4}}) is None


@pytest.mark.parametrize(("capacity", "drawn"), [(80, True), (100, True), (101, False), (None, False)])
def test_a_capacity_far_beyond_the_need_is_no_line_that_flattens_the_bars(capacity: int | None, drawn: bool) -> None:
    assert in_sight(capacity, required=20) == drawn


def test_the_memory_of_a_run_is_drawn_and_one_without_a_plan_draws_nothing(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path)
    draw_memory(run_dir)
    assert not run_dir.memory_plot.exists()
    run_dir.plan.write_text(json.dumps(PLAN))
    run_dir.memory.write_text(json.dumps({"compared": {"phases": {"backward": {"predicted": 1305, "measured": 1300, "error": 0.004}}}}))
    draw_memory(run_dir)
    picture = run_dir.memory_plot.read_bytes()
    assert picture[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", picture[16:24]) == (1200, 660)  # 10 x 5.5 inches at 120 dots an inch


def test_a_plan_is_drawn_from_standard_input(tmp_path: Path, python: str, site_environment: dict[str, str]) -> None:
    argv = [python, "-m", "trainers.measures.plots", str(tmp_path / "memory.png")]
    done = subprocess.run(argv, input=json.dumps(PLAN), env=site_environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "memory.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
