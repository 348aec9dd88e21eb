"""What the page of the memory measurements takes as the driver's figure."""

import pytest

from benchmarks.memory.measured import seen_by_driver


@pytest.mark.parametrize(("nvml", "seen"), [(None, 10 + 3), (14, 14), (9, 10 + 3)])
def test_the_drivers_figure_counts_unless_torch_gave_memory_back_before_it_was_asked(nvml, seen):
    assert seen_by_driver({"reserved": 10, "nvml": nvml}, outside=3) == seen
