"""sweep.json and the page: what they say, against the ledger that they are made of."""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from conf.run_dir import RunDir
from launcher.sweep import ledger
from launcher.sweep.charts import MOST_CURVES, drawn_curves, elapsed, lanes, thinned
from launcher.sweep.ledger import SweepDir
from launcher.sweep.page import page
from launcher.sweep.points import Point, Result
from launcher.sweep.summary import Attempt, Curve, Summary, as_dict, attempts, summary_of


def point(number: int, *varied: str) -> Point:
    return Point(number, ("recipe=demo", *varied), varied, str(number))


def event(time: float, name: str, number: int | None = None, *gpus: str) -> dict[str, object]:
    return {"time": time, "event": name, "point": number, "gpus": list(gpus)}


LEDGER = [
    event(100, "sweep"),
    event(101, "started", 1, "0", "1"),
    event(110, "finished", 1),
    event(110, "started", 2, "0"),
    event(111, "started", 3, "1"),
    event(115, "failed", 3),  # then the sweep is killed
    event(500, "sweep"),
    event(502, "started", 2, "1"),
    event(520, "finished", 2),
]


def test_a_start_of_a_point_ends_where_the_same_start_of_the_sweep_says_so() -> None:
    assert attempts(LEDGER) == [
        Attempt(1, ("0", "1"), 101, 110, "finished"),
        Attempt(2, ("0",), 110, 115, ""),
        Attempt(3, ("1",), 111, 115, "failed"),
        Attempt(2, ("1",), 502, 520, "finished"),
    ]


def test_the_time_between_two_starts_is_left_out() -> None:
    summary = Summary(SweepDir(Path("/s")), (), (100.0, 500.0), (), tuple(attempts(LEDGER)), ())
    assert [elapsed(summary, moment) for moment in (100, 110, 115, 500, 502, 520)] == [0, 10, 15, 15, 17, 35]


def test_each_gpu_has_a_row_and_points_without_one_share_slots() -> None:
    on_cpu = [Attempt(4, (), 0, 5, "finished"), Attempt(5, (), 1, 3, "finished"), Attempt(6, (), 4, 9, "finished")]
    rows = [(name, [one.point for one in bars]) for name, bars in lanes([*attempts(LEDGER), *on_cpu])]
    assert rows == [("GPU 0", [1, 2]), ("GPU 1", [1, 3, 2]), ("slot 1", [4]), ("slot 2", [5, 6])]


def test_a_long_curve_keeps_its_ends_and_what_is_none_is_left_out() -> None:
    line = thinned([(step, 1.0 / step) for step in range(1, 5001)])
    assert len(line) <= 402
    assert (line[0], line[-1]) == ((1, 1.0), (5000, 1.0 / 5000))
    assert thinned([(1, 2.0), (2, float("nan")), (3, 1.0)]) == [(1, 2.0), (3, 1.0)]


def test_of_many_points_the_best_are_drawn() -> None:
    results = tuple(Result(point(number), "finished", 1.0 / number, "loss") for number in range(1, 61))
    curves = tuple(Curve(number, ((1, 1.0), (2, 1.0)), ()) for number in range(1, 61))
    summary = Summary(SweepDir(Path("/s")), (), (0.0,), results, (), curves)
    assert [one.point for one in drawn_curves(summary)] == [*range(60, 60 - MOST_CURVES, -1)]
    assert f"The {MOST_CURVES} best of 60 points are drawn." in page(summary)


class Elements(HTMLParser):
    """Every element with its attributes, and all text; strict about what is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.fixture
def sweep(tmp_path: Path) -> Summary:
    """Two measured points, one that failed with a hostile cause, one refused with what would fit."""
    sweep_dir = ledger.make_sweep_dir(tmp_path)
    ledger.record_sweep(sweep_dir, ledger.Start(("recipe=demo", "optim.lr=1e-3,2e-3", "name=<b>"), (), str(tmp_path)))
    results = []
    for number, losses in ((1, (4.0, 2.0, 1.5)), (2, (4.0, 1.0, 0.75))):
        run_dir = RunDir(tmp_path / "demo" / str(number))
        run_dir.path.mkdir(parents=True)
        lines = [{"step": step, "of": 3, "loss": loss} for step, loss in enumerate(losses, start=1)]
        run_dir.progress.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        result = Result(point(number, f"optim.lr={number}e-3"), "finished", losses[-1], "loss", run_dir, seconds=61.0)
        ledger.record(sweep_dir, ledger.BEGUN, **ledger.facts_of(result.point, run_dir), gpus=["0"])
        results.append(result)
    results.append(Result(point(3, "optim.lr=3e-3"), "failed", cause="<script src=https://example.org/x.js></script>"))
    results.append(Result(point(4, "optim.lr=4e-3"), "refused", cause="GPU_PEAK: too little", fits=("regime=lora",)))
    for result in results:
        ledger.record_result(sweep_dir, result)
    return summary_of(sweep_dir, results)


def test_the_page_needs_nothing_but_itself_and_runs_no_script(sweep: Summary) -> None:
    elements = Elements(page(sweep))
    assert elements.open == []
    assert {tag for tag, _ in elements.found} & {"script", "link", "img", "iframe", "image", "object"} == set()
    referred = [value or "" for _, attributes in elements.found for key, value in attributes.items() if key in ("href", "xlink:href", "src")]
    assert all(value.startswith("#") for value in referred)
    assert not re.search(r"url\((?!#|'#|\"#)", page(sweep))


def test_the_page_names_the_best_point_and_shows_every_other(sweep: Summary) -> None:
    text = " ".join(Elements(page(sweep)).text)
    assert re.search(r"Best: point 2, loss 0\.7500:\s+optim\.lr=2e-3", text)
    assert "4 points: 2 finished, 1 refused, 1 failed." in text
    for said in (
        "training loss",
        "optim.lr",
        "GPU 0",
        "minutes of the sweep",
        "Refused points",
        "regime=lora",
        "<script src=https://example.org/x.js></script>",
    ):
        assert said in text


def test_a_sweep_of_refused_points_has_a_page_without_pictures(sweep: Summary) -> None:
    alone = replace(sweep, results=sweep.results[3:], attempts=(), curves=())
    text = page(alone)
    assert "<svg" not in text
    assert "No best point is named" in text
    assert "GPU_PEAK: too little" in text


def test_the_summary_for_programs_has_every_point_and_the_best(sweep: Summary) -> None:
    told = json.loads(json.dumps(as_dict(sweep)))
    assert told["best"] == 2
    assert [(one["point"], one["state"], one["objective"]) for one in told["points"]] == [
        (1, "finished", 1.5),
        (2, "finished", 0.75),
        (3, "failed", None),
        (4, "refused", None),
    ]
    assert [(one["point"], one["gpus"], one["state"]) for one in told["attempts"]] == [(1, ["0"], "finished"), (2, ["0"], "finished")]


def test_the_curves_are_those_of_the_runs(sweep: Summary) -> None:
    assert sweep.curves[1] == Curve(2, ((1, 4.0), (2, 1.0), (3, 0.75)), ())
