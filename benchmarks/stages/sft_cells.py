"""Trains SFT cells (model x regime x sharding) for 20 steps each through `regimen train` and writes one JSON line a cell.

    python -m benchmarks.stages.sft_cells --gpus 1 --data FOLDER --out RESULTS.jsonl             one GPU: seven regimes x two models
    python -m benchmarks.stages.sft_cells --gpus 2 --data FOLDER --out RESULTS.jsonl             two GPUs: every allowed pair of regime and sharding
    python -m benchmarks.stages.sft_cells --only qwen2.5_0.5b/lora/ddp ...                       some cells
    python -m benchmarks.stages.sft_cells --tiny --gpus 0 ...                                    a rehearsal on a CPU with tiny shapes

FOLDER holds LLaMA-Factory's alpaca_en_demo.json and dataset_info.json. Cells that RESULTS or an --earlier file already holds are skipped.
A cell has learned when the mean of its last 5 losses is at least 10 % below that of its first 5; cells with learning rate 0 must not.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.running.cell_runs import TINY, folder_name, parser_of, run_cells, wanted

STEPS = 20
REGIMES = {
    "full_bf16": ["regime=full", "training.precision=bf16", "optim.lr=1e-3"],
    "full_amp": ["regime=full", "training.precision=bf16_amp", "optim.lr=1e-3"],
    "freeze": ["regime=freeze", "optim.lr=3e-3"],
    "lora": ["regime=lora", "optim.lr=5e-3"],
    "qlora8": ["regime=qlora", "regime.bits=8", "optim.lr=5e-3"],
    "qlora4": ["regime=qlora", "regime.bits=4", "optim.lr=5e-3"],
    "qlora2": ["regime=qlora", "regime.bits=2", "optim.lr=5e-3"],
}
SHARDINGS = ("ddp", "zero2", "zero3", "fsdp2")


@dataclass(frozen=True)
class Cell:
    model: str
    regime: str
    sharding: str
    gpus: int
    lr_zero: bool = False

    @property
    def name(self) -> str:
        return f"{self.model}/{self.regime}/{self.sharding}/x{self.gpus}" + ("/lr0" if self.lr_zero else "")


def cells_for(gpus: int) -> list[Cell]:
    if gpus < 2:
        both = [Cell(model, regime, "ddp", gpus) for model in ("qwen2.5_0.5b", "llama3.2_1b") for regime in REGIMES]
        return [*both, Cell("qwen2.5_0.5b", "lora", "ddp", gpus, lr_zero=True)]
    small = [Cell("qwen2.5_0.5b", regime, sharding, gpus) for sharding in SHARDINGS for regime in REGIMES]
    larger = [Cell("llama3.2_1b", regime, sharding, gpus) for sharding in SHARDINGS for regime in ("lora", "full_amp", "full_bf16")]
    return small + larger


def overrides(cell: Cell, data: Path, output: Path, tiny: bool) -> list[str]:
    return [
        *(f"model={cell.model}", "model.init=random", "model.path=null", "model.tokenizer=bytes"),
        *("data=files", f"data.folder={data}", "data.sets=[alpaca_en_demo]", "data.cutoff=1024", "data.max_samples=600", "data.template=chatml"),
        *(*REGIMES[cell.regime], "training.fit=off"),
        *(["optim.lr=0.0"] if cell.lr_zero else []),
        *(f"sharding={cell.sharding}", f"cluster.ranks_per_node={max(1, cell.gpus)}", "node=auto" if cell.gpus else "node=cpu"),
        *(f"training.max_steps={STEPS}", "training.micro_batch=4", "checkpoint.interval=0", "evaluation.interval=0"),
        *("optim.warmup=0", "optim.scheduler=constant"),
        *(f"output={output}", f"name={folder_name(cell.name)}"),
        *(TINY if tiny else []),
    ]


def main() -> int:
    arguments = parser_of(__doc__).parse_args()
    cells = wanted(arguments, cells_for(arguments.gpus))
    return run_cells(arguments, cells, partial(overrides, data=arguments.data, output=arguments.output, tiny=arguments.tiny))


if __name__ == "__main__":
    raise SystemExit(main())
