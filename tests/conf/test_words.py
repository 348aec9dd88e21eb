"""Tables stay in line in a terminal whatever script their cells are written in."""

import pytest

from conf.words import aligned, columns


@pytest.mark.parametrize(("text", "width"), [("", 0), ("loss 0.5", 8), ("数据", 4), ("é", 1), ("e\u0301", 1), ("ａ", 2), ("my_数据.jsonl", 13)])
def test_a_text_is_as_wide_as_a_terminal_shows_it(text: str, width: int) -> None:
    assert columns(text) == width


def test_chinese_cells_do_not_move_the_columns_after_them() -> None:
    rows = [("set", "records", "good"), ("数据", "7", ""), ("mine.jsonl", "1,000", "50%")]
    assert aligned(rows) == ["set         records  good", "数据        7", "mine.jsonl  1,000    50%"]
    assert aligned(rows, right_from=1) == ["set         records  good", "数据              7", "mine.jsonl    1,000   50%"]
