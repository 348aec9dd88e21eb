"""The verdict about a run that may hang, with made-up clocks."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from conf.signs import COMPILING, EVALUATION, LOADING, PHASES, SAVING, TRAINING, Sign
from launcher.launch.hang import AGENT_SECONDS, DEADLOCK, SILENT, STANDS_STILL, Hangs, History, Seen, after, begun, verdict

LIMITS = {**dict.fromkeys(PHASES, 1800), TRAINING: 30, EVALUATION: 600}
TRAINS = Sign(pid=1, start=1, phase=TRAINING, step=1, moves=1, beats=1)


def looked(history: History, seconds: float, *signs: Sign | None, lives: bool = True) -> History:
    return after(history, history.now + seconds, {rank: Seen(sign, lives) for rank, sign in enumerate(signs)})


def watched(seconds: int, *ways: str, each: int = 1, first: Sign = TRAINS, limits: dict[str, int] = LIMITS) -> Hangs | None:
    """The first verdict about ranks that go on as they have begun: `works` makes a step each second, `waits` only counts, `awaits` stands in one
    call that waits for other ranks, `stops` does nothing."""
    history = looked(begun(0, len(ways)), 0, *[first] * len(ways))
    for second in range(each, seconds + 1, each):
        signs = [moved(first, way, second) for way in ways]
        history = looked(history, each, *signs)
        found = verdict(history, limits)
        if found is not None:
            return found
    return None


def moved(sign: Sign, way: str, second: int) -> Sign:
    if way == "stops":
        return sign
    counted = replace(sign, beats=sign.beats + second)
    if way in ("waits", "awaits"):
        return replace(counted, place=7 if way == "awaits" else 0)
    return replace(counted, step=sign.step + second, moves=sign.moves + second)


def test_ranks_that_make_steps_go_on_for_ever() -> None:
    assert watched(5000, "works", "works") is None


def test_a_rank_without_any_sign_is_named_a_second_after_its_limit() -> None:
    assert watched(31, "waits", "stops") == Hangs((1,), SILENT, TRAINING, 1, 31, 30)
    assert watched(30, "waits", "stops") is None


def test_all_ranks_without_a_sign_are_named() -> None:
    assert watched(31, "stops", "stops") == Hangs((0, 1), SILENT, TRAINING, 1, 31, 30)


def test_ranks_that_wait_for_each_other_have_ten_times_as_long() -> None:
    assert watched(300, "waits", "waits") is None
    assert watched(301, "waits", "waits") == Hangs((0, 1), STANDS_STILL, TRAINING, 1, 301, 300)


def test_a_rank_that_waits_is_no_fault_while_another_gets_on() -> None:
    assert watched(5000, "waits", "works") is None


def test_ranks_that_all_wait_for_others_in_one_call_are_a_deadlock_a_second_after_the_limit() -> None:
    assert watched(31, "awaits", "awaits") is None  # the first look at which it stands there begins
    assert watched(32, "awaits", "awaits") == Hangs((0, 1), DEADLOCK, TRAINING, 1, 31, 30)


@pytest.mark.parametrize("ways", [("awaits", "waits"), ("awaits", "works"), ("awaits",)])
def test_as_long_as_one_rank_may_be_busy_it_is_no_deadlock(ways: tuple[str, ...]) -> None:
    """It reads or computes something that takes long; and one rank alone waits for nobody."""
    assert watched(300, *ways) is None


def test_a_rank_that_waits_in_one_call_after_another_gets_on() -> None:
    history = looked(begun(0, 2), 0, TRAINS, TRAINS)
    for second in range(1, 301):
        history = looked(history, 1, *[replace(TRAINS, beats=second, place=1 + second // 20)] * 2)
        assert verdict(history, LIMITS) is None


def test_of_ranks_that_do_not_get_on_the_one_behind_is_named() -> None:
    history = looked(begun(0, 2), 0, replace(TRAINS, step=8, moves=20), replace(TRAINS, step=8, moves=19))
    for second in range(1, 302):
        history = looked(history, 1, replace(TRAINS, step=8, moves=20, beats=second), replace(TRAINS, step=8, moves=19, beats=second))
    assert verdict(history, LIMITS) == Hangs((1,), STANDS_STILL, TRAINING, 8, 301, 300)


@pytest.mark.parametrize(("seconds_a_step", "limit"), [(1, 30), (20, 60), (200, 600)])
def test_long_steps_lengthen_the_limit(seconds_a_step: int, limit: float) -> None:
    sign, history = TRAINS, looked(begun(0, 1), 0, TRAINS)
    for second in range(1, 10 * seconds_a_step + 1):
        sign = replace(sign, beats=second, step=1 + second // seconds_a_step, moves=second)
        history = looked(history, 1, sign)
        assert verdict(history, LIMITS) is None
    for _ in range(int(limit)):
        history = looked(history, 1, sign)
        assert verdict(history, LIMITS) is None
    assert verdict(looked(history, 1, sign), LIMITS) == Hangs((0,), SILENT, TRAINING, 11, limit + 1, limit)


def test_an_evaluation_between_steps_does_not_lengthen_them() -> None:
    history = looked(begun(0, 1), 0, TRAINS)
    for step in range(2, 8):
        history = looked(history, 1, replace(TRAINS, step=step, moves=step))
        for beat in range(500):
            history = looked(history, 1, replace(TRAINS, step=step, phase=EVALUATION, moves=step, beats=beat))
        history = looked(history, 1, replace(TRAINS, step=step, moves=step + 1))
    assert max(history.steps) == 2  # the look in which the evaluation ended counts too


@pytest.mark.parametrize("phase", [LOADING, COMPILING, SAVING])
def test_each_phase_has_its_own_limit(phase: str) -> None:
    first = replace(TRAINS, phase=phase)
    assert watched(1800, "waits", "stops", first=first) is None
    assert watched(1801, "waits", "stops", first=first) == Hangs((1,), SILENT, phase, 1, 1801, 1800)


def test_a_limit_of_zero_is_none() -> None:
    assert watched(5000, "stops", "stops", limits={**LIMITS, TRAINING: 0}) is None


def test_a_rank_that_never_begins_is_named() -> None:
    history = begun(0, 2)
    for second in range(1, 1802):
        history = looked(history, 1, replace(TRAINS, beats=second, moves=second), None)
    assert verdict(history, LIMITS) == Hangs((1,), SILENT, "starting", 0, 1801, 1800)


def test_time_in_which_the_supervisor_stood_still_does_not_count() -> None:
    """As after the lid of a laptop was closed, or SIGSTOP to the supervisor: nobody watched, so nobody knows."""
    history = looked(begun(0, 2), 0, TRAINS, TRAINS)
    assert verdict(looked(history, 100_000, TRAINS, TRAINS), LIMITS) is None


def test_a_rank_that_was_started_again_begins_anew() -> None:
    history = looked(begun(0, 1), 0, TRAINS)
    for _ in range(29):
        history = looked(history, 1, TRAINS)
    history = looked(history, 1, again := replace(TRAINS, pid=2))
    for _ in range(30):
        history = looked(history, 1, again)
    assert verdict(history, LIMITS) is None
    assert verdict(looked(history, 1, again), LIMITS) == Hangs((0,), SILENT, TRAINING, 1, 31, 30)


def without(seconds: Sequence[int]) -> History:
    history = looked(begun(0, 2), 0, TRAINS, TRAINS)
    for second in seconds:
        history = looked(history, second, TRAINS, TRAINS, lives=False)
    return history


def test_an_agent_that_does_not_notice_the_end_of_all_ranks_is_told() -> None:
    assert verdict(without([5] * 24), LIMITS) is None
    found = verdict(without([5] * 25), LIMITS)
    assert found is not None
    assert (found.ranks, found.limit) == ((), AGENT_SECONDS)
