"""A command with the environment that it needs, and what of the site's environment it may see."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from conf.processes import SUPERVISOR
from conf.trackers import TRACKERS

LAUNCHER = (sys.executable, "-m", "launcher")


PACKAGES = Path(__file__).resolve().parent.parent  # holds conf, launcher and trainers


# Credentials that no rank needs. Those of the hub and of trackers are given only to runs that use them.
SECRETS = (
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AZURE_CLIENT_SECRET",
    "GITHUB_TOKEN",
    "GH_TOKEN",
    "GITLAB_TOKEN",
    "OPENAI_API_KEY",
    "ANTHROPIC_API_KEY",
    "NEPTUNE_API_TOKEN",
)


HUB_SECRETS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")


TRACKER_SECRETS = tuple(secret for row in TRACKERS.values() for secret in row.secrets if secret not in HUB_SECRETS)


# Libraries read their own files in the encoding of the site: torch's templates cannot be read where that is ASCII.
UTF8 = ("PYTHONUTF8", "1")


OLDER_NAMES = {"PYTORCH_ALLOC_CONF": ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF")}  # torch reads them only where the new name is not set


@dataclass(frozen=True)
class Command:
    argv: tuple[str, ...]
    defaults: tuple[tuple[str, str], ...]  # set where the site has not set them
    forced: tuple[tuple[str, str], ...]  # set even where the site has set them
    withheld: tuple[str, ...]  # secrets that the ranks do not need

    def environment(self, site: Mapping[str, str]) -> dict[str, str]:
        """The whole environment of the ranks: the site's, less the withheld secrets, plus what is set here."""
        kept = {name: value for name, value in site.items() if name not in self.withheld and name != SUPERVISOR}  # of a run around this one
        extended = {"PATH": with_interpreter(kept.get("PATH", os.defpath)), **python_path(kept.get("PYTHONPATH", ""))}
        missing = {name: value for name, value in self.defaults if not any(older in kept for older in OLDER_NAMES.get(name, ()))}
        return {**missing, **kept, **extended, **dict(self.forced)}

    def changes(self, site: Mapping[str, str]) -> dict[str, str | None]:
        """What differs from the site's own environment; None: withheld. This is what a plan shows, by name."""
        after = self.environment(site)
        removed: dict[str, str | None] = {name: None for name in self.withheld if name in site}
        changed: dict[str, str | None] = {name: value for name, value in after.items() if site.get(name) != value}
        return dict(sorted({**changed, **removed}.items()))


def with_interpreter(path: str) -> str:
    """PATH with the interpreter's folder at its end. It holds ninja, with which DeepSpeed compiles."""
    folder = str(Path(sys.executable).parent)
    return path if folder in path.split(os.pathsep) else f"{path}{os.pathsep}{folder}"


def python_path(site: str) -> dict[str, str]:
    """A checkout that is not installed must be found by the ranks too."""
    if PACKAGES.name in ("site-packages", "dist-packages"):
        return {}
    others = [entry for entry in site.split(os.pathsep) if entry and Path(entry) != PACKAGES]
    return {"PYTHONPATH": os.pathsep.join([str(PACKAGES), *others])}


def launcher_environment(site: Mapping[str, str]) -> dict[str, str]:
    """For a launcher that outlives this one. It imports these packages, whatever the working folder holds."""
    return {**site, **python_path(site.get("PYTHONPATH", "")), "PYTHONSAFEPATH": "1"}
