"""Libraries that only some choices need: looked for without being imported, before any process starts."""

import os
import sys
from importlib.machinery import PathFinder
from importlib.util import find_spec

from conf.optimizers import BITSANDBYTES, optimizer_row
from conf.schema import Grpo, Run
from conf.trackers import tracker_row, trackers
from launcher.errors import ConfigError


def refuse_absent(run: Run) -> None:
    """Raises ConfigError, with the command that installs it, when the run needs a library that is not there, or a package of rewards."""
    refuse_absent_rewards(run)
    refuse_absent_trackers(run)
    distribution = optimizer_row(run.optim.name).library
    if distribution is None or distribution == BITSANDBYTES:  # which pyproject.toml installs with regimen
        return
    if find_spec(distribution.replace("-", "_")) is None:
        raise ConfigError(
            f"optim={run.optim.name} needs {distribution}, which is not installed. Install it with `pip install {distribution}`, or use optim=adamw."
        )


def refuse_absent_rewards(run: Run) -> None:
    """Nothing of a package is imported here, only looked for where the ranks will: they begin in this folder."""
    for name in run.stage.rewards if isinstance(run.stage, Grpo) else ():
        package = name.partition(":")[0].split(".")[0]
        if ":" in name and find_spec(package) is None and PathFinder.find_spec(package, [os.getcwd()]) is None:
            raise ConfigError(
                f"stage.rewards: {name} needs the package {package}, which is not installed here and not in this folder. Install it, or fix the name."
            )


def refuse_absent_trackers(run: Run) -> None:
    for name in trackers(run.tracking):
        row = tracker_row(name)
        if find_spec(row.module) is None:
            raise ConfigError(
                f"tracking={name} needs the package {row.package}, which is not installed. "
                f"Install it with `{sys.executable} -m pip install {row.package}`, or use tracking=none."
            )
