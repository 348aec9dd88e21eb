"""Where a figure of CPU seconds came from: the command, the versions, the processor, and what else the machine did."""

import os
import platform
import re
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

Load = tuple[float, float, float]  # processes that ran or waited, over 1, 5 and 15 minutes


def command_line() -> str:
    """Of this process, for a file of results: without the folder in which this machine has the project."""
    return " ".join(("python", os.path.relpath(sys.argv[0]), *sys.argv[1:]))


def surroundings(packages: Sequence[str], load_before: Load) -> dict[str, object]:
    """Of this process, for a file of results."""
    return {
        "command": command_line(),
        "date": time.strftime("%Y-%m-%d"),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in packages},
        "cpu": processor(),
        "cpus": os.cpu_count(),
        "load_before": load_before,
        "load_after": os.getloadavg(),
    }


def processor() -> str:
    found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    return found[1] if found else platform.machine()
