"""The groups, their choices and the default of each, read from the folders of YAML files: --help needs no Hydra."""

import re
from pathlib import Path

CONF = Path(__file__).resolve().parent
CHOSEN = re.compile(r"^  - (\w+): (\S+)$", re.MULTILINE)  # a line of the defaults list in run.yaml


def built_in_groups() -> list[str]:
    return sorted(folder.name for folder in CONF.iterdir() if folder.is_dir() and folder.name not in ("hydra", "__pycache__"))


def built_in_choices(group: str) -> list[str]:
    return sorted(file.stem for file in (CONF / group).glob("*.yaml"))


def default_choices() -> dict[str, str]:
    """The choice of every group that conf/run.yaml uses; empty where the user chooses."""
    text = (CONF / "run.yaml").read_text(encoding="utf-8")
    return {group: chosen.replace("???", "") for group, chosen in CHOSEN.findall(text) if group != "recipe"}
