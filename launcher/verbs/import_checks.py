"""What a translation writes passes the checks of an override of the command line; what fails is refused under the name of its argument."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from conf.request import Sampling
from launcher.composition.compose import compose
from launcher.composition.described import in_grammar
from launcher.errors import RegimenError
from launcher.moving.draft import Draft
from launcher.rules.ranges import check_given, check_values
from launcher.verbs.ask import refuse_bad_sampling
from launcher.verbs.export import parsed_size, refuse_repository

GOOD = Sampling(max_new_tokens=1, temperature=0.0, top_p=1.0, seed=0)
SAMPLING = {"--max-new-tokens": "max_new_tokens", "--temperature": "temperature", "--top-p": "top_p", "--seed": "seed"}
ANY_SET = ("data=files", "data.sets=[a]", "model=demo")


def overrides_of(values: Mapping[str, Any]) -> list[str]:
    return [f"{key}={in_grammar(value, key)}" for key, value in values.items()]


def refuse_wrong_values(draft: Draft) -> None:
    """Refuses each argument whose value is not one of the key that it gives.

    Raises:
        RegimenError: for what is wrong with the run and comes from no argument alone.
    """
    values = dict(draft.values)
    while True:
        try:
            check_values(compose(overrides_of(values)))
            return
        except RegimenError as error:
            wrong = {key: line for line in str(error).splitlines() for key in values if is_about(line, key) and key in draft.sources}
            if not wrong and not draft.refused:
                raise
            if not wrong:  # what is left may follow from what is refused already
                return
            for key, line in wrong.items():
                refuse(draft, draft.sources[key], line.strip())
                del values[key]


def refuse(draft: Draft, name: str, why: str) -> None:
    """What was refused before has its own reason, which may hide what the value is."""
    if name not in dict(draft.refused):
        draft.refuse(name, why.removesuffix("."))


def is_about(line: str, key: str) -> bool:
    """Messages begin with the key, and what follows is none of a longer one."""
    rest = line.strip().removeprefix(key)
    return rest != line.strip() and rest[:1] in ("=", ":", " ", "[")


def refuse_wrong_options(draft: Draft) -> None:
    """The same for the options of a verb after training, and the keys that may follow it."""
    for option, value in draft.values.items():
        try:
            check_option(option, value)
        except RegimenError as error:
            refuse(draft, draft.sources[option], str(error))


def check_option(option: str, value: Any) -> None:
    if option in SAMPLING:
        refuse_bad_sampling(replace(GOOD, **{SAMPLING[option]: value}), 1)
    elif option == "--batch":
        refuse_bad_sampling(GOOD, value)
    elif option == "--shard-size":
        parsed_size(value)
    elif option == "--push":
        refuse_repository(value)
    elif not option.startswith("--"):
        check_given(compose([*ANY_SET, *overrides_of({option: value})]), [option])
