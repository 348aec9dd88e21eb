"""A run in the making: what becomes of each argument, and the keys that it gives."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TRANSLATED, WITHOUT_EFFECT, REFUSED = "translated", "without effect", "refused"
ASSUMED = "the default there"  # how the note of a key begins that the file does not state
OFF: tuple[Any, ...] = (None, False, "", "no", "none", "false", [], {})
SECRET = "a token does not belong into a file: set HF_TOKEN (or the tracker's variable) in the environment"
NAME_OF_A_SECRET = re.compile(r"(?i)token|secret|passw|credential|_key$")
TRUTHS: Mapping[Any, bool] = {True: True, False: False, "true": True, "false": False, "yes": True, "no": False, "1": True, "0": False, "": False}


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
    beside: Path = Path()  # the folder of the file, from which the files that it names are looked for too
    values: dict[str, Any] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)  # by key: what stands beside it in the file
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)  # by key: the argument that gives it

    def stated(self, name: str) -> bool:
        return self.given.get(name) is not None

    def on(self, name: str) -> bool:
        """Whether a switch is on, or anything but nothing is named."""
        value = self.value(name)
        return (value.lower() if isinstance(value, str) else value) not in OFF

    def value(self, name: str) -> Any:
        return self.given[name] if self.stated(name) else self.defaults.get(name)

    def switch(self, name: str) -> bool:
        """Whether a truth is true; False, and a refusal, for what is none."""
        value = self.value(name)
        known = value.lower() if isinstance(value, str) else value
        if known is None or (isinstance(known, (bool, int, str)) and known in TRUTHS):
            return known is not None and TRUTHS[known]
        self.refuse(name, f"{shown(value)} is neither true nor false")
        return False

    def text(self, name: str) -> str | None:
        """A text; None, and a refusal, for what is none. What YAML has read as a number or a truth is no longer as it was written: 1.10 is 1.1."""
        value = self.value(name)
        if value is None or isinstance(value, str):
            return value
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        self.refuse(
            name,
            f"it needs a text, and {in_words(value)} is none. Put it in quotes" if is_single(value) else f"it needs one text, and is {shown(value)}",
        )
        return None

    def number(self, name: str) -> float | int | None:
        """A number; YAML takes 1e-4 for a text. None, and a refusal, where it is none."""
        value = self.value(name)
        try:
            number = float(value) if isinstance(value, str) else value
        except ValueError:
            number = None
        if number is None or isinstance(number, bool) or not isinstance(number, (int, float)):
            if value is not None:
                self.refuse(name, f"{shown(value)} is not a number")
            return None
        if not is_finite(number):
            self.refuse(name, f"{number} is not a finite number")
            return None
        return int(number) if isinstance(number, float) and number.is_integer() and abs(number) >= 1 else number

    def whole(self, name: str) -> int | None:
        """A whole number; None, and a refusal, where it is none."""
        number = self.number(name)
        if number is None or number == int(number):
            return None if number is None else int(number)
        self.refuse(name, f"{number} is not a whole number")
        return None

    def share(self, name: str) -> float | int | None:
        """A number from 0 to below 1; None, and a refusal, where it is none: from 1 on optim.warmup would count steps."""
        number = self.number(name)
        if number is None or 0 <= number < 1:
            return number
        self.refuse(name, f"{number} is no share of the steps. Write one from 0 to below 1, or warmup_steps")
        return None

    def texts(self, name: str) -> list[str]:
        """A list, written as one or with commas. Without its entries, and a refusal, where one of them is no text."""
        value = self.value(name)
        parts = value if isinstance(value, list) else [] if value in OFF else value.split(",") if isinstance(value, str) else [value]
        odd = next((part for part in parts if not isinstance(part, str) and (isinstance(part, (bool, float)) or not is_single(part))), None)
        if odd is not None:
            self.refuse(name, f"it needs texts, and {in_words(odd)} is none. Put it in quotes")
            return []
        return [str(part).strip() for part in parts if str(part).strip()]

    def put(self, name: str, key: str, value: Any, note: str = "") -> None:
        """The key has this value because of the argument, or of its default there."""
        self.values[key] = value
        self.sources[key] = name
        if self.stated(name):
            before = self.outcomes.get(name)
            said = f"{key}: {in_words(value)}{f' ({note})' if note else ''}"
            if before is None or before.kind == TRANSLATED:
                self.outcomes[name] = Outcome(TRANSLATED, said if before is None else f"{before.said}, {said}")
        note = note if self.stated(name) else "; ".join(part for part in (ASSUMED, note) if part)
        if note:
            self.notes[key] = note

    def assume(self, key: str, value: Any, why: str = "") -> None:
        """The key has this value by what the program does without an argument."""
        self.values[key] = value
        self.notes[key] = "; ".join(part for part in (ASSUMED, why) if part)

    def number_to(self, name: str, key: str) -> None:
        value = self.number(name)
        if value is not None:
            self.put(name, key, value)

    def text_to(self, name: str, key: str, note: str = "") -> None:
        value = self.text(name)
        if value is not None:
            self.put(name, key, value, note)

    def numbers_to(self, **keys: str) -> None:
        for name, key in keys.items():
            self.number_to(name, key)

    def switch_to(self, name: str, key: str, when_on: Any = True) -> None:
        """The key where the switch is on; stated as off, it is what regimen does without it."""
        if self.switch(name):
            self.put(name, key, when_on)
        elif name in self.given and name not in self.outcomes:
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


def shown(value: Any) -> str:
    """A value in a reason; of a list or a table not what it holds, which may be a secret under a name of its own."""
    return repr(value) if is_single(value) else "a list" if isinstance(value, list) else "a table"


def is_single(value: Any) -> bool:
    return not isinstance(value, (list, dict))


def in_words(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(str, value))}]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def is_finite(number: float) -> bool:
    try:
        return math.isfinite(number)
    except OverflowError:  # a whole number that no float holds
        return False
