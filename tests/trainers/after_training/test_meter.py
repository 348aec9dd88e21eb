"""Progress in a log: rate and time left."""

import io

from trainers.after_training.meter import lines, progress_line


def test_rate_counts_this_process_and_the_rest_is_what_is_missing() -> None:
    # 30 of 90 were there before; 20 more in 10 s: 2 a second, 40 left take 20 s
    line = progress_line("answered", 50, 90, items=20, tokens=400, seconds=10.0)
    assert line == "answered 50 of 90, 2.0/s, 40 tokens/s, 20 s left"


def test_hours_are_said_as_hours() -> None:
    assert progress_line("answered", 10, 7210, items=10, tokens=400, seconds=10.0).endswith(", 2 h 00 min left")


def test_the_last_line_is_always_printed() -> None:
    out = io.StringIO()
    advance = lines("answered", 1, 4, out)
    advance(1, 10)
    advance(2, 10)
    assert out.getvalue().startswith("answered 4 of 4, ")
    assert out.getvalue().count("\n") == 1
