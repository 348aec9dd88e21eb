"""A run in the making: what becomes of each argument, and the keys that it gives."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

TRANSLATED, WITHOUT_EFFECT, REFUSED = "translated", "without effect", "refused"
ASSUMED = "the default there"  # how the note of a key begins that the file does not state
OFF: tuple[Any, ...] = (None, False, "", "no", "none", "false", [], {})


@dataclass(frozen=True)
class Outcome:
    """What became of one argument; `said` is the key that it gives, or the reason."""

    kind: str
    said: str


@dataclass
class Draft:
    """Arguments and the program's defaults on one side, our keys on the other. An argument that is null has its default."""

    given: Mapping[str, Any]
    defaults: Mapping[str, Any]
    values: dict[str, Any] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)  # by key: what stands beside it in the file
    outcomes: dict[str, Outcome] = field(default_factory=dict)

    def stated(self, name: str) -> bool:
        return self.given.get(name) is not None

    def on(self, name: str) -> bool:
        """Whether a switch is on, or anything but nothing is named."""
        value = self.value(name)
        return (value.lower() if isinstance(value, str) else value) not in OFF

    def value(self, name: str) -> Any:
        return self.given[name] if self.stated(name) else self.defaults.get(name)

    def number(self, name: str) -> float | int | None:
        """A number; YAML takes 1e-4 for a text. None, and a refusal, where it is none."""
        value = self.value(name)
        try:
            number = float(value) if isinstance(value, str) else value
        except ValueError:
            number = None
        if number is None or isinstance(number, bool) or not isinstance(number, (int, float)):
            if value is not None:
                self.refuse(name, f"{value!r} is not a number")
            return None
        return int(number) if isinstance(number, float) and number.is_integer() and abs(number) >= 1 else number

    def texts(self, name: str) -> list[str]:
        """A list, written as one or with commas."""
        value = self.value(name)
        parts = value if isinstance(value, list) else [] if value is None else str(value).split(",")
        return [str(part).strip() for part in parts if str(part).strip()]

    def put(self, name: str, key: str, value: Any, note: str = "") -> None:
        """The key has this value because of the argument, or of its default there."""
        self.values[key] = value
        if self.stated(name):
            self.outcomes.setdefault(name, Outcome(TRANSLATED, f"{key}: {in_words(value)}{f' ({note})' if note else ''}"))
        note = note if self.stated(name) else "; ".join(part for part in (ASSUMED, note) if part)
        if note:
            self.notes[key] = note

    def number_to(self, name: str, key: str) -> None:
        value = self.number(name)
        if value is not None:
            self.put(name, key, value)

    def numbers_to(self, **keys: str) -> None:
        for name, key in keys.items():
            self.number_to(name, key)

    def switch_to(self, name: str, key: str, when_on: Any = True) -> None:
        """The key where the switch is on; stated as off, it is what regimen does without it."""
        if self.on(name):
            self.put(name, key, when_on)
        elif name in self.given:
            self.idle(name, "off, as here")

    def same(self, name: str, why: str) -> None:
        """The argument is met without a key of its own."""
        if name in self.given:
            self.outcomes.setdefault(name, Outcome(TRANSLATED, why))

    def idle(self, name: str, why: str) -> None:
        if name in self.given:
            self.outcomes.setdefault(name, Outcome(WITHOUT_EFFECT, why))

    def refuse(self, name: str, why: str) -> None:
        self.outcomes[name] = Outcome(REFUSED, why)

    @property
    def refused(self) -> list[tuple[str, str]]:
        return [(name, outcome.said) for name, outcome in self.outcomes.items() if outcome.kind == REFUSED]


def in_words(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(str, value))}]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
