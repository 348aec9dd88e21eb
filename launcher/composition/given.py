"""Which keys of a run the user set, on the command line or in a file of their own, and to what."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from conf.schema import GROUPS


def given_values(overrides: Sequence[str], config_dirs: Sequence[Path]) -> dict[str, str]:
    """Each key that was set and its value as it was written; later ones win. Built-in choices set nothing of the user's.

    The overrides have been composed before: whatever is wrong with them or with a file has been refused.
    """
    values: dict[str, str] = {}
    chosen = [text.partition("=") for text in overrides]
    for group, _, names in chosen:
        if group in (*GROUPS, "recipe"):
            for name in names.strip("[]").split(","):
                values |= of_file(group, name.strip().strip("'\""), config_dirs)
    values |= {".".join(key.split(".")[:2]): value for key, _, value in chosen if key not in (*GROUPS, "recipe", "resume")}
    return values


def of_file(group: str, name: str, config_dirs: Sequence[Path]) -> dict[str, str]:
    files = [folder / group / f"{name}.yaml" for folder in config_dirs]
    found = next((file for file in files if file.is_file()), None)
    content = None if found is None else OmegaConf.load(found)
    return dict(keys_in("" if group == "recipe" else f"{group}.", content)) if isinstance(content, DictConfig) else {}


def keys_in(before: str, content: DictConfig) -> Iterator[tuple[str, str]]:
    for key, value in ((str(key), value) for key, value in content.items_ex(resolve=False)):
        if isinstance(value, DictConfig) and before == "":
            yield from keys_in(f"{key}.", value)
        elif key not in ("defaults", "name") or before == "":
            yield f"{before}{key}", written(value)


def written(value: object) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
