"""What is printed while data are tokenised."""

import io

from trainers.data.prepare.progress import counter_for, line


def test_a_line_tells_rate_and_time_left() -> None:
    assert line(2000, 50_000, 6000, 10.0) == "tokenised 2,000 of 6,000 records, 200 records/s, 5,000 tokens/s, 20 s left"
    assert line(2000, 50_000, None, 10.0) == "tokenised 2,000 records, 200 records/s, 5,000 tokens/s"


def test_a_log_of_short_work_stays_empty() -> None:
    out = io.StringIO()
    with counter_for(10, out) as counter:
        counter.add(10, 100)
    assert out.getvalue() == ""


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_a_bar() -> None:
    with counter_for(10, Terminal()) as counter:
        counter.add(5, 100)
        counter.add(5, 100)
    assert counter.progress.tasks[0].completed == 10  # type: ignore[attr-defined]
