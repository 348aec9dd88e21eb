"""JSON in which no value vanishes."""

import pytest

from conf.strict_json import LongNumber, loads


def test_a_number_of_too_many_digits_is_named() -> None:
    with pytest.raises(LongNumber, match="a whole number has more digits than can be read"):
        loads('{"a": ' + "7" * 5000 + "}")
