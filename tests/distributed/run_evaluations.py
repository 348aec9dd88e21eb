"""Under torchrun: each of the given run folders is trained for its steps, then evaluated with each micro-batch, all in the same processes.

python -m torch.distributed.run --standalone --nproc-per-node=2 tests/distributed/run_evaluations.py FOLDER...
"""

import json
import os
import sys
import traceback
from pathlib import Path

from datasets import Dataset
from evaluations import SIZES
from run_cells import forget_last_cell

from conf.run_dir import RunDir, load_run
from conf.schema import Zero
from trainers.__main__ import place_of_this_rank
from trainers.arguments import keep_output_dtype
from trainers.building import build
from trainers.data import PreparedData
from trainers.model.tokenizer import load_tokenizer
from trainers.ranks.extensions import guard_deepspeed
from trainers.ranks.place import Place
from trainers.run import join_ranks, set_device
from trainers.stages import stage_module


def evaluate_folder(folder: Path, place: Place) -> None:
    run_dir = RunDir(folder)
    run = load_run(run_dir)
    set_device(run, place)
    tokenizer, stage = load_tokenizer(run), stage_module(run)
    data = PreparedData(*(Dataset.load_from_disk(folder / name) for name in ("train", "evaluation")), report=None)
    arguments = stage.build_arguments(run, run_dir, True)
    keep_output_dtype(arguments, run)
    if isinstance(run.sharding, Zero):
        guard_deepspeed(run_dir, place)
    join_ranks(run, place)
    trainer = build(stage, run, run_dir, place, arguments, tokenizer, data, [])
    trainer.train()
    found = {}
    for size in SIZES:
        trainer.args.per_device_eval_batch_size = size
        found[size] = trainer.evaluate()
    trainer.save_model(str(run_dir.model))
    (folder / f"found-{place.rank}.json").write_text(json.dumps(found))


def main() -> int:
    place = place_of_this_rank()
    for folder in sys.argv[1:]:
        evaluate_folder(Path(folder), place)
        forget_last_cell()
    return 0


if __name__ == "__main__":
    try:
        code = main()
    except BaseException:  # noqa: BLE001 - a rank that fails ends here, and with it the others
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
