from dataclasses import replace

from launcher.sweep.schedule import Placement, Request, Resources, Shared, left_over, startable, startable_ahead

EIGHT = Resources(tuple("abcdefgh"), 1)


def test_the_widest_point_starts_first_and_narrower_ones_fill_what_it_leaves() -> None:
    waiting = [Request(1, 1), Request(2, 6), Request(3, 4), Request(4, 1)]
    assert startable(waiting, EIGHT) == [Placement(2, tuple("abcdef")), Placement(1, ("g",)), Placement(4, ("h",))]


def test_a_narrow_point_is_not_held_up_by_a_wide_one_that_does_not_fit() -> None:
    assert startable([Request(1, 4), Request(2, 2)], Resources(("c", "d", "e"), 1)) == [Placement(2, ("c", "d"))]


def test_where_a_wide_point_ended_the_next_wide_one_starts_before_narrow_ones_that_came_earlier() -> None:
    waiting = [Request(1, 1), Request(2, 1), Request(3, 6)]
    assert startable(waiting, Resources(tuple("abcdef"), 1)) == [Placement(3, tuple("abcdef"))]


def test_points_of_one_width_start_in_the_order_of_their_numbers() -> None:
    waiting = [Request(3, 4), Request(1, 4), Request(2, 4)]
    assert [placement.number for placement in startable(waiting, EIGHT)] == [1, 2]


def test_where_every_time_is_predicted_most_gpu_seconds_start_first() -> None:
    waiting = [Request(1, 8, seconds=10), Request(2, 2, seconds=90), Request(3, 4, seconds=30), Request(4, 4, seconds=60)]
    assert [placement.number for placement in startable(waiting, EIGHT)] == [4, 2]  # 240 and 180 GPU seconds; 120 fit no more, nor do 80
    for unknown in (None, 0.0, float("nan"), float("inf")):
        assert [placement.number for placement in startable([*waiting[1:], replace(waiting[0], seconds=unknown)], EIGHT)] == [1]


def test_points_without_gpus_whose_times_are_predicted_start_longest_first() -> None:
    assert startable([Request(1, 0, seconds=5), Request(2, 0, seconds=9)], EIGHT) == [Placement(2, ())]


def test_points_without_gpus_take_slots_beside_those_with() -> None:
    waiting = [Request(1, 0), Request(2, 8), Request(3, 0)]
    assert startable(waiting, EIGHT) == [Placement(2, tuple("abcdefgh")), Placement(1, ())]


def test_nothing_starts_where_nothing_is_free() -> None:
    assert startable([Request(1, 1), Request(2, 0)], Resources((), 0)) == []


def test_what_is_free_is_all_of_it_less_what_running_points_hold() -> None:
    assert left_over(Resources(("a", "b", "c"), 2), [("b",), (), ("a",)]) == Resources(("c",), 1)


def test_every_point_of_a_long_queue_gets_its_turn() -> None:
    waiting = dict(enumerate([1, 5, 3, 8, 1, 6, 2, 4, 1, 1], start=1))
    running: list[Placement] = []
    order = []
    while waiting or running:
        free = left_over(EIGHT, [placement.gpus for placement in running])
        placements = startable([Request(number, width) for number, width in waiting.items()], free)
        running += placements
        order += [placement.number for placement in placements]
        assert sum(len(placement.gpus) for placement in running) <= 8
        waiting = {number: width for number, width in waiting.items() if number not in order}
        running.pop(0)  # the one that started first ends first
    # by hand: 8 alone; then 6 and 2 fill the eight; 6 ends: 5 and a 1; 2 ends: neither 4 nor 3 fits into two, so the other 1s do
    assert order[:7] == [4, 6, 7, 2, 1, 5, 9]
    assert sorted(order) == list(range(1, 11))


def test_a_point_is_started_ahead_only_on_gpus_of_which_some_will_be_free_soon() -> None:
    waiting = [Request(1, 1), Request(2, 2), Request(3, 0)]
    assert startable_ahead(waiting, ("b",), {"a"}, Resources(tuple("abc"), 2)) == [Placement(2, ("a", "b"))]
    assert startable_ahead(waiting, (), {"c"}, Resources(tuple("abc"), 2)) == [Placement(1, ("c",))]
    assert startable_ahead(waiting, ("a", "b"), set(), Resources(tuple("abc"), 2)) == []


def test_points_share_a_gpu_while_it_has_places_and_bytes_for_their_sum() -> None:
    one = Resources(("a",), 1, places=3, bytes=100)
    waiting = [Request(1, 1, bytes=60), Request(2, 1, bytes=50), Request(3, 1, bytes=40), Request(4, 1, bytes=1)]
    assert startable(waiting, one) == [Placement(1, ("a",)), Placement(3, ("a",))]
    assert startable(waiting, replace(one, bytes=1000)) == [Placement(1, ("a",)), Placement(2, ("a",)), Placement(3, ("a",))]


def test_a_point_that_shares_with_nobody_gets_no_gpu_that_is_shared() -> None:
    free = left_over(Resources(("a", "b"), 1, places=2, bytes=100), [], [("a", 30)])
    assert free == Resources(("b",), 1, 2, 100, (Shared("a", 1, 70),))
    assert startable([Request(1, 2), Request(2, 1), Request(3, 1, bytes=70)], free) == [Placement(2, ("b",)), Placement(3, ("a",))]


def test_what_shares_goes_where_most_is_left_before_it_takes_another_gpu() -> None:
    free = left_over(Resources(("a", "b", "c"), 1, places=2, bytes=100), [], [("a", 50), ("b", 20)])
    assert startable([Request(1, 1, bytes=40), Request(2, 1, bytes=50), Request(3, 1, bytes=60)], free) == [
        Placement(1, ("b",)),
        Placement(2, ("a",)),
        Placement(3, ("c",)),
    ]
