"""What the tests of the board's pages share: a board that runs over the `folder` that each file of tests fills for itself."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.boards import Running, board


@pytest.fixture(scope="module")
def running(folder: Path) -> Iterator[Running]:
    with board(folder) as found:
        yield found
