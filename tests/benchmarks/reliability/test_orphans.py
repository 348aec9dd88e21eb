"""The trials of F8 find what a killed launcher leaves: nothing, and where the protection is taken out, its ranks."""

import pytest

from benchmarks.reliability.orphans import killed

pytestmark = pytest.mark.distributed


def test_a_launcher_that_is_killed_while_ranks_are_born_leaves_nothing() -> None:
    found = killed("birth of the ranks", "launcher", 0.0, broken=False)
    assert found["landed"], found
    assert found["held"], found


@pytest.mark.long
def test_without_the_protection_the_trial_fails() -> None:
    found = killed("birth of the ranks", "launcher", 0.0, broken=True)
    assert found["landed"], found
    assert not found["held"], found
