"""As run_fsdp_cells.py, with checkpoints as earlier versions of regimen wrote them: accelerate's, whose files hold whole tensors."""

import runpy
from pathlib import Path

import trainers.building

if __name__ == "__main__":
    trainers.building.save_in_shards = lambda: None
    runpy.run_path(str(Path(__file__).with_name("run_fsdp_cells.py")), run_name="__main__")
