"""What was alive when most was."""

from benchmarks.memory.alive_rank import alive_at_peak


def event(action, address, size):
    return {"action": action, "addr": address, "size": size}


def test_the_blocks_of_the_highest_sum_are_told_though_their_addresses_are_used_again():
    trace = [
        *(event("alloc", 1, 10), event("alloc", 2, 30), event("free_requested", 2, 30), event("free_completed", 2, 30)),
        *(event("alloc", 2, 5), event("free_completed", 1, 10), event("alloc", 1, 12)),
    ]

    assert alive_at_peak(trace) == {10: 1, 30: 1}


def test_the_end_may_be_the_highest():
    assert alive_at_peak([event("alloc", 1, 10), event("free_completed", 1, 10), event("alloc", 2, 8), event("alloc", 3, 8)]) == {8: 2}
