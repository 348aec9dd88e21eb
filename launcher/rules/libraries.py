"""Libraries that only some choices need: looked for without being imported, before any process starts."""

from importlib.util import find_spec

from conf.schema import Run
from launcher.errors import ConfigError

# (module, name of its distribution) by choice of optim
OPTIMIZERS = {
    "galore": ("galore_torch", "galore-torch"),
    "galore_8bit": ("galore_torch", "galore-torch"),
    "apollo": ("apollo_torch", "apollo-torch"),
}


def refuse_absent(run: Run) -> None:
    """Raises ConfigError, with the command that installs it, when the run needs a library that is not there."""
    if run.optim.name not in OPTIMIZERS:
        return
    module, distribution = OPTIMIZERS[run.optim.name]
    if find_spec(module) is None:
        raise ConfigError(f"optim={run.optim.name} needs {distribution}, which is not installed here: `pip install {distribution}`, or optim=adamw.")
