"""Under torchrun or accelerate: trains the run folders given, one after another in the same processes, so that imports are paid once.

python -m torch.distributed.run --standalone --nproc-per-node=2 tests/distributed/run_cells.py FOLDER...
"""

import gc
import os
import sys
import traceback
from pathlib import Path

from conf.run_dir import RunDir, load_run
from trainers.__main__ import place_of_this_rank, write_exit
from trainers.ranks.causes import cause_of
from trainers.ranks.libraries import only_what_is_needed


def forget_last_cell() -> None:
    """Accelerate keeps one state a process; a run of its own would have found none."""
    from accelerate.state import AcceleratorState, GradientState  # seconds: as a rank imports it, below

    AcceleratorState._reset_state()
    GradientState._reset_state()
    gc.collect()
    gc.freeze()  # what is left was imported and stays: every cell collects twice, and would walk through all of it


def main() -> int:
    place = place_of_this_rank()
    worst = 0
    folders = [RunDir(Path(folder)) for folder in sys.argv[1:]]
    with only_what_is_needed(*(load_run(run_dir) for run_dir in folders)):
        from trainers.run import train
    for run_dir in folders:
        run_dir.logs.mkdir(exist_ok=True)
        try:
            code, message = train(load_run(run_dir), run_dir, place)
        except Exception as error:  # noqa: BLE001 - recorded as a rank records it; the test reads the file
            run_dir.rank_log(place.rank).write_text(traceback.format_exc(), encoding="utf-8")
            code, message = cause_of(error)
        write_exit(run_dir, place, code, message)
        worst = max(worst, code)
        forget_last_cell()
    return worst


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)
