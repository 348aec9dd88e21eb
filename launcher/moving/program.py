"""Another program, as far as its training files are read: its defaults, and the order in which its arguments become keys."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conf.secrets import shape_of_secret
from launcher.moving.draft import SECRET, Draft, shown

Part = Callable[[Draft], None]


@dataclass(frozen=True)
class Program:
    """`lists` and `tables` name the arguments that may be one; all others are one value."""

    name: str
    defaults: Mapping[str, Any]
    lists: Sequence[str]
    tables: Sequence[str]
    model: Part
    stage: Part
    regime: Part
    data: Part
    training: Part
    settle_others: Part

    def translate(self, given: Mapping[str, Any], beside: Path = Path()) -> Draft:
        """What a training file means here. `beside`: the folder of the file, from which the files that it names are looked for too."""
        several = {name: value for name, value in given.items() if self.is_odd(name, value)}
        draft = Draft({name: None if name in several else value for name, value in given.items()}, self.defaults, beside)
        for name, value in several.items():
            draft.refuse(name, f"it needs one value, and is {shown(value)}")
        for part in (self.model, self.stage, self.regime, self.data, self.training, self.settle_others):
            part(draft)
        refuse_tokens(draft, given)
        return draft

    def is_odd(self, name: str, value: Any) -> bool:
        return (isinstance(value, list) and name not in self.lists) or (isinstance(value, dict) and name not in self.tables)


def refuse_tokens(draft: Draft, given: Mapping[str, Any]) -> None:
    """A token under a name that is none of a token would be shown, and written into files."""
    for name, value in given.items():
        shape = shape_of_secret(f"{name}: {value}")
        if shape and draft.outcomes[name].said != SECRET:
            draft.refuse(name, f"its value looks like an access token ({shape}). Remove it, and set it in the environment (HF_TOKEN, WANDB_API_KEY)")
