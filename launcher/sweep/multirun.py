"""`train --multirun` through Hydra's own multirun: its sweepers choose the points, its launcher gets a Sweep to run them."""

import json
from collections.abc import Sequence
from pathlib import Path

from hydra._internal.hydra import Hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.types import RunMode

from launcher.composition.compose import CONFIG_NAME, checked_overrides, config_loader, load_config
from launcher.errors import ConfigError
from launcher.sweep import ledger, table
from launcher.sweep.grid import fixed_keys
from launcher.sweep.ledger import SweepDir
from launcher.sweep.session import Sweep, say

NO_TRIAL = "No trials are completed yet"  # the message of optuna.study.Study.best_trial


def multirun(overrides: Sequence[str], config_dirs: Sequence[Path]) -> int:
    """Run every point of a sweep; the exit code of the whole.

    Raises:
        ConfigError: for a sweep that cannot be composed or that its sweeper refuses.
        Unsafe: when a value is a secret.
    """
    given = checked_overrides(overrides, config_dirs)
    base = load_config(given, config_dirs, RunMode.MULTIRUN)  # every mistake that is not one point's own is reported here
    sweep_dir = ledger.make_sweep_dir(Path(base.output))
    sweep = Sweep(sweep_dir, config_dirs, fixed_keys(OverridesParser.create().parse_overrides([*given])))
    ledger.record(sweep_dir, "sweep", overrides=given)
    say(f"sweep folder: {sweep_dir.path}")
    try:
        drive(sweep, [f"hydra.sweep.dir={json.dumps(str(sweep_dir.path), ensure_ascii=False)}", *given], config_dirs)
    finally:
        tell(sweep_dir, sweep)
    return table.exit_code(sweep.results)


def drive(sweep: Sweep, given: list[str], config_dirs: Sequence[Path]) -> None:
    """Hydra's multirun; a sampler without a finished trial, or a request to stop, is an end and no error."""
    hydra = Hydra("regimen", config_loader(config_dirs))
    try:
        hydra.multirun(CONFIG_NAME, sweep, given, with_log_configuration=False)
    except KeyboardInterrupt:
        say("The sweep was asked to stop.")
    except HydraException as error:
        raise ConfigError(f"The sweep cannot go on: {str(error).splitlines()[0]}") from error
    except ValueError as error:
        if NO_TRIAL not in str(error):
            raise
        say("No point finished, so the sampler has no best point.")


def tell(sweep_dir: SweepDir, sweep: Sweep) -> None:
    """Show and keep the table; a sweep that came to no point leaves no folder."""
    if not sweep.results:
        ledger.remove(sweep_dir)
        return
    lines = table.table_lines(sweep.results)
    ledger.write_table(sweep_dir, lines)
    say("\n" + "\n".join(lines))
