"""Where the bisection of the smallest cap looks next."""

import threading

import pytest

from benchmarks.memory.caps import CONFIRMED, DOES_NOT_FIT, JOBS, RAN, RESOLUTION, Bench, bisect, bracket, known_of, probes
from benchmarks.running.processes import Room
from launcher.memory.constants import CUDA_CONTEXT

GB = 10**9


def test_the_first_three_trials_lie_around_what_was_needed_before():
    """0.0047 apart: 0.99765, 1.00235 and 1.00705 of the prediction."""
    assert probes({}, 1_000_000) == [997650, 1002350, 1007050]


def test_one_round_is_enough_where_the_need_lies_between_them():
    assert probes({997650: DOES_NOT_FIT, 1002350: RAN, 1007050: RAN}, 1_000_000) == []


def test_the_search_leaves_the_first_trials_on_the_side_where_the_need_is():
    assert min(probes({1000: DOES_NOT_FIT}, 1000)) > 1000
    assert max(probes({1000: RAN}, 1000)) < 1000


def test_a_wide_bracket_is_cut_in_three():
    assert probes({900: DOES_NOT_FIT, 1200: RAN}, 1000) == [1000, 1100]


@pytest.mark.parametrize("share", [0.90, 0.999, 1.0, 1.004, 1.03, 1.2])
def test_any_need_is_found_to_the_resolution_and_confirmed_around_it(share, tmp_path, monkeypatch):
    need, predicted, known = int(20 * GB * share), 20 * GB, {}
    out = tmp_path / "trials.jsonl"
    bench = Bench(tmp_path, tmp_path, out, Room(["0", "1"], 100 * GB, 4), 4, 1.0, {}, threading.Lock())
    monkeypatch.setattr(Bench, "run", lambda self, job, cap, devices: (RAN if cap >= need else DOES_NOT_FIT, ""))  # in the place of a GPU
    (tmp_path / JOBS[0].model).mkdir()
    bisect(bench, JOBS[0], predicted, known)
    low, high = bracket(known)
    assert low < need <= high
    assert (high - low) / high <= RESOLUTION
    assert {int((high + CUDA_CONTEXT) * (1 + offset)) - CUDA_CONTEXT for offset in CONFIRMED} <= set(known)
    assert len(out.read_text().splitlines()) == len(known)


def test_trials_that_told_nothing_are_made_again():
    lines = [{"cell": "a", "cap": 1, "code": 0}, {"cell": "a", "cap": 2, "code": 80}, {"cell": "a", "cap": 3, "code": 124}]
    assert known_of(lines) == {"a": {1: 0, 2: 80}}
