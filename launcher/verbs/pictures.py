"""Pictures that the verbs draw: the memory of a plan, by the trainers' own drawing, and the errors of a memory report."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from conf.exit_codes import REFUSED
from launcher.command import launcher_environment
from launcher.errors import ConfigError, DiskError, RegimenError
from launcher.launch.plan import plan_as_dict
from launcher.verbs.plan import unstarted

FORMATS = (".png", ".svg", ".pdf", ".jpg", ".jpeg")  # which matplotlib writes without other programs; the end of the file's name chooses


def draw_plan(overrides: Sequence[str], config_dirs: Sequence[Path], file: Path) -> int:
    """The predicted phases of a run as a picture; ends as `plan` does."""
    refuse_unwritable(file)
    plan = unstarted(overrides, config_dirs)
    argv = (sys.executable, "-m", "trainers.measures.plots", str(file))  # a finished run draws the same, in a rank: one drawing, and no import across
    text = json.dumps(plan_as_dict(plan, dict(os.environ)))
    done = subprocess.run(argv, input=text, env=launcher_environment(os.environ), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RegimenError(f"--picture {file} could not be drawn: {done.stderr.strip().splitlines()[-1]}")
    print(done.stderr, end="", file=sys.stderr)
    print(f"picture: {file}")
    return 0 if plan.judged.verdict.permitted else REFUSED


def refuse_unwritable(file: Path) -> None:
    """Before anything is computed.

    Raises:
        ConfigError: for a kind of picture that we do not write.
        DiskError: where the file cannot be written.
    """
    if file.suffix.lower() not in FORMATS and not file.is_dir():
        raise ConfigError(f"--picture {file} does not say a kind of picture that can be written. End its name with one of {', '.join(FORMATS)}.")
    if file.is_dir() or not os.access(file.absolute().parent, os.W_OK):
        raise DiskError(f"--picture {file} cannot be written. Name a file in a folder that exists and that you may write to.")


def draw_errors(errors: Mapping[str, Sequence[tuple[str, float]]], title: str, file: Path) -> None:
    """Signed errors, one column a quantity or phase, one colour a key of `errors`."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    columns = list(dict.fromkeys(quantity for points in errors.values() for quantity, _ in points))
    figure, axes = pyplot.subplots(figsize=(10, 5), dpi=120, layout="constrained")
    for number, (label, points) in enumerate(errors.items()):
        shift = 0.5 * ((number + 0.5) / len(errors) - 0.5)  # points of one column side by side, around its name
        places = [columns.index(quantity) + shift for quantity, _ in points]
        axes.scatter(places, [100 * error for _, error in points], s=22, alpha=0.7, label=label)
    axes.axhline(0, color="black", linewidth=1)
    axes.set_xticks(range(len(columns)), columns, rotation=20)
    axes.set_xlim(-0.5, len(columns) - 0.5)  # a name stands under its points, also where there is one column
    axes.set(ylabel="error, % of what was measured", title=title)
    axes.grid(axis="y", alpha=0.3)
    figure.legend(fontsize=8, loc="outside right upper")  # beside the frame, where it hides no point
    figure.savefig(file)
    pyplot.close(figure)
