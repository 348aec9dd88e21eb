"""Random bf16 weights of a choice of conf/model, made on the GPU where there is one: python -m benchmarks.speed.weights llama3.1_8b FOLDER [--tiny]"""

import os
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, set_seed

from benchmarks.speed.cells import TINY
from launcher.composition.compose import compose
from trainers.model.build import whole_random_model


def main() -> int:
    name, folder = sys.argv[1], Path(sys.argv[2])
    given = [
        f"model={name}",
        "data=demo",
        "model.init=random",
        "model.path=null",
        "regime=full",
        "training.precision=bf16",
        "training.attention=sdpa",
    ]
    run = compose([*given, *(TINY if "--tiny" in sys.argv else ())])
    set_seed(run.training.seed)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = whole_random_model(run, AutoModelForCausalLM)
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f".{folder.name}.partial")
    model.save_pretrained(partial, max_shard_size="4GB")
    os.replace(partial, folder)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
