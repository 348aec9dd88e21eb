"""Curves from progress.jsonl, those of resumed runs included; memory by phase from plan.json."""

import json
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib
import pytest
from matplotlib.axes import Axes

from conf.run_dir import RunDir
from trainers.measures.memory_bars import Row, capacity_of, gpu_rows, highest_of, host_rows, in_sight, measured_words, phase_rows, stacked
from trainers.measures.plots import draw_curves, draw_loss, draw_memory, panel_grid, reported_panels


@pytest.fixture
def axes() -> Iterator[Axes]:
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, made = pyplot.subplots()
    yield made
    pyplot.close(figure)


@pytest.mark.parametrize("evaluations", [[], [{"step": 0, "eval_loss": 3.0}, {"step": 2, "eval_loss": 2.0}]])
def test_the_loss_is_drawn_with_and_without_evaluations(evaluations: list[dict[str, float]], tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path)
    entries = [{"step": 1, "loss": 3.0}, {"step": 2, "loss": 2.0}, *evaluations]
    run_dir.progress.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    draw_loss(run_dir)
    picture = run_dir.loss_plot.read_bytes()
    assert picture[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", picture[16:24]) == (960, 540)  # 8 x 4.5 inches at 120 dots an inch


def test_a_start_that_is_far_above_the_rest_does_not_flatten_it(axes: Axes) -> None:
    draw_curves(axes, [{"step": step, "loss": 6.0 if step < 3 else 0.1 + 0.01 * (step % 2)} for step in range(60)], {"loss": "training"}, "loss")
    assert axes.get_yscale() == "log"
    low, high = axes.get_ylim()
    assert low < 0.1 < 6.0 < high


def test_one_point_far_away_from_values_of_both_signs_is_left_out_with_a_word(axes: Axes) -> None:
    values = [9.0 if step == 7 else 0.1 * (-1) ** step for step in range(60)]
    draw_curves(axes, [{"step": step, "loss": value} for step, value in enumerate(values)], {"loss": "training"}, "loss")
    assert axes.get_ylim() == pytest.approx((-0.15, 0.15))  # 2 and 98 % are -0.1 and 0.1; a quarter of 0.2 beside them
    assert axes.get_ylabel() == "1 point lies outside of the frame"


def test_a_resume_is_marked_where_the_run_went_on(axes: Axes) -> None:
    entries = [{"step": 1, "loss": 3.0}, {"step": 2, "loss": 2.0}, {"step": 2, "loss": 2.0, "resumed_from": 1}, {"step": 3, "loss": 1.0}]
    draw_curves(axes, entries, {"loss": "training"}, "loss")
    lines = {str(line.get_label()): list(line.get_xdata()) for line in axes.get_lines()}
    assert lines["went on from a checkpoint"] == [1, 1]


def test_a_legend_lies_above_the_frame_and_hides_no_curve(axes: Axes) -> None:
    entries = [{"step": step, "reward_chosen": 1.0 * step, "reward_rejected": -1.0 * step, "eval_reward_chosen": 1.0} for step in range(30)]
    draw_curves(axes, entries, {"reward_chosen": "chosen", "reward_rejected": "rejected"}, "reward")
    axes.figure.draw_without_rendering()  # type: ignore[union-attr]
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["chosen, smoothed", "chosen, evaluation", "rejected, smoothed"]
    assert legend.get_window_extent().y0 >= axes.get_window_extent().y1


def test_a_name_that_no_font_can_draw_leaves_no_boxes(tmp_path: Path, capsys: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder) -> None:
    run_dir = RunDir(tmp_path / "\U0010fffd" / "time")  # the last private character, which no font has
    run_dir.path.mkdir(parents=True)
    run_dir.progress.write_text('{"step": 1, "of": 1, "loss": 3.0}\n')
    draw_loss(run_dir)
    assert "so the picture's title (\U0010fffd time) shows … in their place" in capsys.readouterr().err
    assert [str(warning.message) for warning in recwarn] == []
    assert run_dir.loss_plot.name == "loss.png"


def test_what_the_stage_reports_is_drawn_beside_the_loss(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path)
    step = {"loss": 0.6, "reward_chosen": 0.1, "reward_rejected": -0.1, "reward_accuracy": 0.5}
    entries = [{"step": 1, "of": 2, **step}, {"step": 2, "of": 2, **step}, {"step": 2, "of": 2, "eval_loss": 0.5, "eval_reward_accuracy": 0.75}]
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
        "allocated": 1305,
        "reserved": 1500,
        "peak": "backward: end",
        "host_terms": {"processes": 200, "training": 100},
        "phases": {
            "load": {"bytes": 1000, "terms": {"weights": 1000}},
            "backward: loss": {"bytes": 1205, "terms": {**TERMS, "logits": 200}},
            "backward: end": {"bytes": 1305, "terms": {**TERMS, "gradients": 300}},
        },
        "outside": {"CUDA context": 100},
    },
}


def test_terms_are_stacked_in_order_small_ones_together_and_what_is_not_torchs_on_top() -> None:
    assert list(stacked(phase_rows(PLAN["memory"]), ["CUDA context"]).items()) == [
        ("weights", [1000, 1000, 1000]),
        ("logits", [0, 200, 0]),
        ("gradients", [0, 0, 300]),
        ("terms below 1 %", [0, 5, 5]),  # 5 of 1405
        ("CUDA context", [100, 100, 100]),
    ]


def test_a_measured_phase_stands_beside_the_highest_of_its_predicted_ones() -> None:
    assert highest_of(PLAN["memory"]) == {"load": "load", "backward": "backward: end"}
    compared = {"phases": {"backward": {"measured": 1300}}, "allocated": {"measured": 1300}, "nvml": {"measured": 1700}}
    free = 1500 - 1305  # reserved and not allocated
    assert gpu_rows(PLAN["memory"], compared) == [
        Row("load", {"weights": 1000}, None),
        Row("backward", {**TERMS, "gradients": 300}, 1300),
        Row("nvidia-smi", {**TERMS, "gradients": 300, "reserved by torch, free": free, "CUDA context": 100}, 1700),
    ]
    short = gpu_rows(PLAN["memory"], {"phases": {}, "allocated": {"measured": 1300}})  # of a run shorter than two steps
    assert [(row.label, row.predicted, row.measured) for row in short] == [("torch's peak", 1305, 1300)]


def test_on_cpus_the_host_memory_of_the_node_is_compared() -> None:
    [row] = host_rows(PLAN["memory"], {"phases": {}, "host": {"predicted": 300, "measured": 250}})
    assert (row.predicted, row.measured, measured_words(row)) == (300, 250, "0.0 MiB measured; predicted 20.0% more")
    assert measured_words(Row("a", {"b": 2**30}, 2**31)) == "2.00 GiB measured; predicted 50.0% less"


def test_capacity_is_that_of_a_gpu_or_of_a_ranks_share_of_a_cpu_node() -> None:
    assert capacity_of(PLAN["run"]) == 24 * 2**30
    assert capacity_of({"node": {"gpus": 0, "gpu_memory": None, "host_memory": 100}, "cluster": {"ranks_per_node": 4}}) == 25
    assert capacity_of({"node": {"gpus": 0, "gpu_memory": None, "host_memory": None}, "cluster": {"ranks_per_node": 4}}) is None


@pytest.mark.parametrize(("capacity", "drawn"), [(80, True), (100, True), (101, False), (None, False)])
def test_a_capacity_far_beyond_the_need_is_no_line_that_flattens_the_bars(capacity: int | None, drawn: bool) -> None:
    assert in_sight(capacity, required=20) == drawn


@pytest.mark.parametrize("compared", [{"phases": {"backward": {"measured": 1300}}}, {"phases": {}, "host": {"measured": 290}}])
def test_the_memory_of_a_run_is_drawn_and_one_without_a_plan_draws_nothing(compared: dict[str, Any], tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path)
    draw_memory(run_dir)
    assert not run_dir.memory_plot.exists()
    run_dir.plan.write_text(json.dumps(PLAN))
    run_dir.memory.write_text(json.dumps({"compared": compared}))
    draw_memory(run_dir)
    picture = run_dir.memory_plot.read_bytes()
    assert picture[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", picture[16:24]) == (1200, 660)  # 10 x 5.5 inches at 120 dots an inch


def test_a_plan_is_drawn_from_standard_input(tmp_path: Path, python: str, site_environment: dict[str, str]) -> None:
    argv = [python, "-m", "trainers.measures.plots", str(tmp_path / "memory.png")]
    done = subprocess.run(argv, input=json.dumps(PLAN), env=site_environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "memory.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
