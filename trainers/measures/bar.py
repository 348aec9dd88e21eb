"""A bar on a terminal, with words beside it that are never cut in two."""

from collections.abc import Sequence

from conf.words import BAR_WIDTH, fitted


class WordsBar:
    """Give its `progress` to a `with` statement: rich draws as long as that lasts."""

    def __init__(self, what: str, done: int, total: int | None) -> None:
        from rich.progress import BarColumn, Progress, TextColumn
        from rich.table import Column

        self.what = what
        words = TextColumn("{task.fields[words]}", markup=False, table_column=Column(no_wrap=True))
        self.progress = Progress(BarColumn(bar_width=BAR_WIDTH), words)
        self.task = self.progress.add_task("", total=total, completed=done, words=what)

    def advance(self, more: int, facts: Sequence[str]) -> None:
        """`more` items are done; `facts`, the most important first, stand beside the bar as far as there is room."""
        [task] = self.progress.tasks
        done, of = int(task.completed) + more, "" if task.total is None else f" of {int(task.total):,}"
        words = fitted([f"{self.what} {done:,}{of}", *facts], self.progress.console.width - BAR_WIDTH - 1)
        self.progress.update(self.task, advance=more, words=words)
