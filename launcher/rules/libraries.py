"""Libraries that only some choices need: looked for without being imported, before any process starts."""

from importlib.util import find_spec

from conf.optimizers import BITSANDBYTES, optimizer_row
from conf.schema import Run
from launcher.errors import ConfigError


def refuse_absent(run: Run) -> None:
    """Raises ConfigError, with the command that installs it, when the run needs a library that is not there."""
    distribution = optimizer_row(run.optim.name).library
    if distribution is None or distribution == BITSANDBYTES:  # which pyproject.toml installs with regimen
        return
    if find_spec(distribution.replace("-", "_")) is None:
        raise ConfigError(
            f"optim={run.optim.name} needs {distribution}, which is not installed. Install it with `pip install {distribution}`, or use optim=adamw."
        )
