"""The words beside a bar of 80 columns."""

import pytest

from trainers.data.prepare.progress import Bar
from trainers.measures.bar import WordsBar


def shown(bar: WordsBar) -> str:
    with bar.progress.console.capture() as captured:
        bar.progress.console.print(bar.progress.get_renderable())
    [line] = captured.get().splitlines()
    return line.rstrip()


def test_at_80_columns_whole_facts_are_shown_or_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    bar = WordsBar("answering", 100, 1_200_000)
    bar.advance(345_578, ["25 min 03 s left", "34,568 records/s", "12,345,673 tokens/s"])
    assert shown(bar).endswith(" answering 345,678 of 1,200,000 · 25 min 03 s left")
    assert len(shown(bar)) <= 80
    [task] = bar.progress.tasks
    assert (task.completed, task.total) == (345_678, 1_200_000)


def test_without_a_known_total_only_what_is_done_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    bar = Bar(None)
    bar.began -= 10.0
    bar.add(1000, 50_000)
    assert " tokenising 1,000 · " in shown(bar)
    assert "left" not in shown(bar)
