"""The rules of torch's allocator, by hand: a page is 20 MiB."""

from launcher.memory.allocator.segment import PAGE, Segment

MIB = 2**20


def test_a_segment_grows_by_whole_pages_and_blocks_share_them():
    segment = Segment()

    segment.take(5 * MIB)
    segment.take(5 * MIB)
    assert segment.mapped == PAGE

    segment.take(15 * MIB)  # 10 MiB of the first page are left: 5 more need a second
    assert segment.mapped == 2 * PAGE


def test_a_hole_is_used_again_only_by_what_fits_and_the_smallest_first():
    segment = Segment()
    small, _, large, _ = segment.take(4 * MIB), segment.take(2 * MIB), segment.take(8 * MIB), segment.take(6 * MIB)
    segment.give(large)
    segment.give(small)

    segment.take(3 * MIB)
    assert {hole.size for hole in segment.holes} == {1 * MIB, 8 * MIB}  # the hole of 4 was smaller than that of 8
    assert segment.mapped == PAGE

    segment.take(9 * MIB)
    assert segment.mapped == 2 * PAGE


def test_the_end_is_used_last_because_it_can_grow():
    segment = Segment()
    first, _ = segment.take(12 * MIB), segment.take(2 * MIB)
    segment.give(first)

    segment.take(5 * MIB)  # fits into the hole of 12 and into the end of 6

    assert {hole.size for hole in segment.holes} == {7 * MIB, 6 * MIB}


def test_free_neighbours_become_one_hole():
    segment = Segment()
    parts = [segment.take(5 * MIB) for _ in range(4)]

    for part in (parts[0], parts[2], parts[1]):
        segment.give(part)

    assert [hole.size for hole in segment.holes] == [15 * MIB]


def test_freed_memory_stays_mapped():
    segment = Segment()
    segment.give(segment.take(100 * MIB))

    assert segment.mapped == 5 * PAGE
    segment.take(100 * MIB)
    assert segment.mapped == 5 * PAGE


def test_of_equal_holes_the_lowest_is_used_first():
    segment = Segment()
    blocks = [segment.take(2 * MIB) for _ in range(8)]
    for number in (5, 1, 3):
        segment.give(blocks[number])

    assert [segment.take(2 * MIB).start for _ in range(3)] == [2 * MIB, 6 * MIB, 10 * MIB]
