"""The lines that the first rank leaves for the user (conf/run_dir.py: notes), each shown once."""

from conf.run_dir import RunDir


class Notes:
    """Those of earlier attempts are not shown again."""

    def __init__(self, run_dir: RunDir) -> None:
        self.path = run_dir.notes
        self.shown = len(self.read())

    def read(self) -> list[str]:
        """Whole lines only."""
        if not self.path.exists():
            return []
        return [line.rstrip("\n") for line in self.path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]

    def new(self) -> list[str]:
        lines = self.read()[self.shown :]
        self.shown += len(lines)
        return lines
