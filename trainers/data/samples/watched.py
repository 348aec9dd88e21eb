"""Which columns of a record are read: unread columns are named in the report and do not vanish silently."""

from collections.abc import ItemsView, Mapping


class Watched(dict[str, object]):
    """A dict that remembers which keys were read."""

    def __init__(self, values: Mapping[str, object]) -> None:
        super().__init__(values)
        self._asked: set[object] = set()

    def __getitem__(self, key: str) -> object:
        self._asked.add(key)
        return super().__getitem__(key)

    def __contains__(self, key: object) -> bool:
        self._asked.add(key)
        return super().__contains__(key)

    def get(self, key: str, default: object = None) -> object:  # type: ignore[override]
        self._asked.add(key)
        return super().get(key, default)

    def items(self) -> ItemsView[str, object]:  # type: ignore[override]
        self._asked.update(self)
        return super().items()


def unasked(watched: Watched) -> list[str]:
    """Keys that hold something and were never read."""
    return [str(key) for key in watched if key not in watched._asked and holds_something(dict.__getitem__(watched, key))]


def holds_something(value: object) -> bool:
    return value is not None and value not in ("", [], {})
