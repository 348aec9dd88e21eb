"""As run_evaluations.py, with FSDP2 on CPUs (see run_fsdp_cells.py)."""

import runpy
from pathlib import Path

from run_fsdp_cells import split_on_cpus

if __name__ == "__main__":
    split_on_cpus()
    runpy.run_path(str(Path(__file__).with_name("run_evaluations.py")), run_name="__main__")
