"""Trains every stage for a few steps through `regimen train`, predicted against measured memory, and writes one JSON line a cell.

    python benchmarks/stage_cells.py --gpus 1 --data FOLDER --out RESULTS.jsonl --concurrent 6      one GPU: nine stages x full, LoRA, QLoRA in 4 bits
    python benchmarks/stage_cells.py --gpus 2 --data FOLDER --out RESULTS.jsonl --concurrent 2      two GPUs: LoRA under ZeRO-2, full under ZeRO-3
    python benchmarks/stage_cells.py --gpus 0 --tiny --data FOLDER --out RESULTS.jsonl              a rehearsal on a CPU with tiny shapes
    python benchmarks/stage_cells.py --gpus 0 --ranks 2 --tiny --data FOLDER --out RESULTS.jsonl    the same of the cells on two GPUs

FOLDER holds LLaMA-Factory's demo sets and dataset_info.json. A reward model for ppo is trained first, for a step.
"""

import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cell_runs import TINY, folder_name, newest_run, parser_of, run_cells

STEPS = {"ppo": 6, "grpo": 6}  # others: MOST
MOST = 20
MODEL = "qwen2.5_0.5b"
SETS = {
    "pt": "[c4_demo]",
    "sft": "[alpaca_en_demo]",
    **dict.fromkeys(("rm", "dpo", "orpo", "simpo"), "[dpo_en_demo]"),
    "kto": "[kto_en_demo]",
    **dict.fromkeys(("ppo", "grpo"), "[alpaca_en_demo]"),
}
REGIMES = {
    "full": ["regime=full", "optim.lr=1e-5"],
    "lora": ["regime=lora", "optim.lr=1e-4"],
    "qlora4": ["regime=qlora", "regime.bits=4", "optim.lr=1e-4"],
}
# Pairs are two sequences each. Answers are written to prompts of at most 192 bytes, and are as long as they may be: random weights hardly end one.
PAIRS, SINGLE = ("data.cutoff=1536", "training.micro_batch=2"), ("data.cutoff=1536", "training.micro_batch=4")
LONG = ("data.cutoff=1536",)  # most prompts of these sets are longer than a tiny cutoff
BATCHES = {
    **dict.fromkeys(("rm", "dpo", "orpo", "simpo"), PAIRS),
    **dict.fromkeys(("pt", "sft", "kto"), SINGLE),
    "ppo": ("data.cutoff=192", "stage.response_length=320", "training.micro_batch=8", "stage.epochs=2"),
    "grpo": ("data.cutoff=192", "stage.response_length=320", "training.micro_batch=8", "stage.generations=8", "stage.kl_coef=0.05"),
}
TINY_BATCHES = {
    **dict.fromkeys(("rm", "dpo", "orpo", "simpo", "kto"), LONG),
    "ppo": ("data.cutoff=192", "stage.response_length=16"),
    "grpo": ("data.cutoff=192", "stage.response_length=16", "stage.generations=2"),
}
JUDGE = "judge"


@dataclass(frozen=True)
class Cell:
    stage: str
    regime: str
    sharding: str
    gpus: int
    model: str = MODEL
    lr_zero: bool = False

    @property
    def name(self) -> str:
        return f"{self.model}/{self.stage}/{self.regime}/{self.sharding}/x{self.gpus}"


def cells_for(ranks: int) -> list[Cell]:
    if ranks < 2:
        return [Cell(stage, regime, "ddp", ranks) for stage in SETS for regime in REGIMES]
    return [Cell(stage, regime, sharding, ranks) for stage in SETS for regime, sharding in (("lora", "zero2"), ("full", "zero3"))]


def overrides(cell: Cell, data: Path, output: Path, tiny: bool, on_gpu: bool) -> list[str]:
    judge = [f"stage.reward_model={newest_run(output, JUDGE)}"] if cell.stage == "ppo" else []
    return [
        *(f"model={cell.model}", "model.init=random", "model.path=null", "model.tokenizer=bytes", f"stage={cell.stage}"),
        *("data=files", f"data.folder={data}", f"data.sets={SETS[cell.stage]}", "data.max_samples=600", "data.template=chatml"),
        *REGIMES[cell.regime],
        *(f"sharding={cell.sharding}", f"cluster.ranks_per_node={max(1, cell.gpus)}", "node=auto" if on_gpu else "node=cpu"),
        *(f"training.max_steps={2 if tiny else STEPS.get(cell.stage, MOST)}", "checkpoint.interval=0", "evaluation.interval=0"),
        "gate.mode=advise",  # cells share a GPU
        *("optim.warmup=0", "optim.scheduler=constant", *BATCHES[cell.stage], *judge),
        *(f"output={output}", f"name={folder_name(cell.name)}"),
        *([*TINY, *TINY_BATCHES.get(cell.stage, ())] if tiny else []),
    ]


def train_judge(data: Path, output: Path, tiny: bool, on_gpu: bool) -> None:
    """A reward model of the policy's shape."""
    if not list((output / JUDGE).glob("*/model")):
        given = overrides(Cell("rm", "full", "ddp", 1), data, output, tiny, on_gpu)
        subprocess.run([sys.executable, "-m", "launcher", "train", *given, f"name={JUDGE}", "training.max_steps=1"], check=True)


def main() -> int:
    parser = parser_of(__doc__)
    parser.add_argument("--ranks", type=int, default=1, help="of a rehearsal on a CPU")
    arguments = parser.parse_args()
    on_gpu = arguments.gpus > 0
    cells = cells_for(arguments.gpus if on_gpu else arguments.ranks)
    place = {"data": arguments.data, "output": arguments.output, "tiny": arguments.tiny, "on_gpu": on_gpu}
    train_judge(**place)
    return run_cells(arguments, cells, partial(overrides, **place))


if __name__ == "__main__":
    raise SystemExit(main())
