"""As run_fsdp_cells.py, and what a rank has loaded from a checkpoint of another layout is saved again at once, as its own libraries save it.

python -m torch.distributed.run --standalone --nproc-per-node=2 tests/distributed/run_relaid_cells.py FOLDER...
"""

import json
import runpy
from pathlib import Path

from transformers import Trainer

from trainers.checkpoints import relaid

AS_LOADED = "as-loaded"


def save_what_is_loaded() -> None:
    load = relaid.load_across

    def load_and_save(trainer: Trainer, checkpoint: Path, names: relaid.Names) -> None:
        load(trainer, checkpoint, names)
        folder = Path(trainer.args.output_dir).parents[1] / AS_LOADED
        trainer.save_model(str(folder))
        trainer._save_optimizer_and_scheduler(str(folder))
        if trainer.args.should_save:
            (folder / "names.json").write_text(json.dumps([names.order, names.saved_as]))

    relaid.load_across = load_and_save


if __name__ == "__main__":
    folder = Path(__file__).parent
    runpy.run_path(str(folder / "run_fsdp_cells.py"))["split_on_cpus"]()
    save_what_is_loaded()
    runpy.run_path(str(folder / "run_cells.py"), run_name="__main__")
