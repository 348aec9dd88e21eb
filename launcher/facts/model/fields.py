"""Reads single values of a config.json and refuses what no model could have."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from launcher.errors import ConfigError

LARGEST_SIZE = 10**9  # beyond any width, vocabulary or context; the number of layers has its own bound
MOST_LAYERS = 10_000


@dataclass(frozen=True)
class Fields:
    values: Mapping[str, Any]  # config.json
    defaults: Mapping[str, int | float | bool | None]  # of transformers' configuration class, for keys that may be absent
    own_names: Mapping[str, str]  # common name -> what this family calls it; both are accepted, as in transformers' attribute_map
    source: str  # where config.json came from

    def size(self, name: str) -> int:
        """A positive integer.

        Raises:
            ConfigError: where it is missing, null or absurd.
        """
        size = self.optional_size(name)
        if size is None:
            raise ConfigError(f"{self.source}: {self.own(name)} is missing. Use the config.json that the model was published with.")
        return size

    def optional_size(self, name: str) -> int | None:
        value = self.lookup(name)
        if value is None:
            return None
        largest = MOST_LAYERS if name == "num_hidden_layers" else LARGEST_SIZE
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= largest:
            raise ConfigError(f"{self.source}: {self.own(name)}={value!r} is not possible. Give a whole number from 1 to {largest}.")
        return value

    def count(self, name: str) -> int:
        """A number that may be 0; null means 0."""
        return 0 if self.lookup(name) in (None, 0) else self.size(name)

    def flag(self, name: str) -> bool:
        value = self.lookup(name)
        if not isinstance(value, bool):
            raise ConfigError(f"{self.source}: {self.own(name)}={value!r} is not possible. Give true or false.")
        return value

    def switch(self, switch: bool | str) -> bool:
        """A bias that a family has always, never, or by a key of that name."""
        return self.flag(switch) if isinstance(switch, str) else switch

    def layer_numbers(self, name: str) -> frozenset[int]:
        value = self.lookup(name) or []
        if not isinstance(value, (list, tuple)) or not all(isinstance(number, int) for number in value):
            raise ConfigError(f"{self.source}: {name}={value!r} is not possible. Give a list of layer numbers.")
        return frozenset(value)

    def lookup(self, name: str) -> Any:  # JSON: the callers check its type
        for key in (self.own(name), name):
            if key in self.values:
                return self.values[key]
        return self.defaults.get(name)

    def own(self, name: str) -> str:
        return self.own_names.get(name, name)
