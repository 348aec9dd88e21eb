"""Where runs are: the one answer for `last`, for `status`, and for every verb that looks for a run.

Runs of a working folder are in its own `outputs`, and in each folder that `output` named when a run was started there. Those folders are
noted in a file of the user's, one a line, so that neither a recipe nor --config-dir need be given again to find a run.
"""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

DEFAULT = Path("outputs")  # what conf/run.yaml says of `output`


def state_folder(environment: Mapping[str, str]) -> Path:
    """As the XDG base directory specification has it: state of the user's that outlives a process and is no configuration."""
    home = environment.get("XDG_STATE_HOME") or Path(environment.get("HOME") or Path.home()) / ".local" / "state"
    return Path(home) / "regimen"


def noted_file(environment: Mapping[str, str]) -> Path:
    return state_folder(environment) / "outputs.jsonl"


def places(given: Path | None) -> list[Path]:
    """The folders in which runs are looked for: the given one alone, else all that this working folder has used."""
    if given is not None:
        return [given]
    return [DEFAULT, *(place for place in noted_here() if place.is_dir())]


def noted_here() -> list[Path]:
    """The folders other than outputs that runs were started into from this working folder, oldest first. A damaged line counts as absent."""
    try:
        lines = noted_file(os.environ).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    entries = [entry for line in lines if (entry := read_line(line)) is not None]
    return list(dict.fromkeys(Path(output) for folder, output in entries if folder == str(Path.cwd())))


def read_line(line: str) -> tuple[str, str] | None:
    try:
        entry = json.loads(line)
        return entry["from"], entry["output"]
    except (ValueError, KeyError, TypeError):
        return None


def remember(output: Path) -> None:
    """Note where a run of this working folder goes. Where that is not possible, a line says what to do instead."""
    place = output.absolute()
    if place == DEFAULT.absolute() or place in noted_here():
        return
    file = noted_file(os.environ)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a", encoding="utf-8") as noted:
            noted.write(json.dumps({"from": str(Path.cwd()), "output": str(place)}, ensure_ascii=False) + "\n")
    except OSError as error:
        print(f"note: {file} cannot be written ({error.strerror}). To find this run again, name it or give --output {place}.", file=sys.stderr)


def in_words(found: list[Path]) -> str:
    return " or ".join(str(place) for place in found)
