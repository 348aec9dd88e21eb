"""Draws a grid of memory cells on two GPUs at random, as lines for drawn_on_two.py: what is refused, or too large, is drawn again.

python -m benchmarks.memory.draw --seed 20261129 --cells 28 --largest 24
"""

import argparse
import random
from pathlib import Path

from benchmarks.memory.cells import GIB, GRIDS, predict, write_samples
from benchmarks.memory.chosen import (
    CHUNKED,
    FREEZE,
    FULL_AMP,
    FULL_BF16,
    FUSED,
    LORA,
    OFF,
    QLORA2,
    QLORA4,
    QLORA8,
    MemoryCell,
    write_shapes,
)
from benchmarks.memory.drawn import ACCUMULATED
from benchmarks.memory.from_files import EAGER, PACKED, filed
from launcher.errors import ConfigError

SMALL = ("qwen2.5_0.5b", "qwen3_0.6b", "gemma3_1b", "llama3.2_1b", "qwen2.5_1.5b", "llama3.2_3b", "mistral_7b_cut", "gpt2_medium", "pythia_410m")
SHARDINGS = ("ddp", "zero1", "zero2", "zero3", "zero2_offload", "zero3_offload", "fsdp2")
REGIMES = {
    "full_bf16": FULL_BF16,
    "full_amp": FULL_AMP,
    "freeze": f"{FREEZE} regime.layers=4",
    "lora": LORA,
    "qlora8": QLORA8,
    "qlora4": QLORA4,
    "qlora2": QLORA2,
}
SIZES = ((1, 2048), (1, 4096), (2, 1024), (2, 2048), (4, 512), (4, 1024), (8, 512))
LOSSES = {"": "", "chunked": CHUNKED, "fused": FUSED}
OPTIMIZERS = ("adamw_8bit", "lion", "lion_8bit", "sgd", "adafactor")
VARIANTS = {"rank64": "regime.rank=64", "q_v": "regime.targets=[q_proj,v_proj]", "dropout": "regime.dropout=0.1", "dora": "regime.dora=true"}


def drawn(draw: random.Random, sharding: str) -> tuple[str, str, int, int, list[str]]:
    """Name, model, micro-batch, length and overrides of one cell under that sharding."""
    regime = draw.choices(list(REGIMES), weights=(3, 3, 2, 3, 1, 2, 1))[0]
    kept, accumulated, packed = draw.random() < 0.3, draw.random() < 0.35, draw.random() < 0.15
    loss = draw.choices(list(LOSSES), weights=(3, 1, 1))[0]
    optimizer = draw.choice(OPTIMIZERS) if draw.random() < 0.35 else ""
    variant = draw.choice(list(VARIANTS)) if "lora" in regime and draw.random() < 0.4 else ""
    model = draw.choice(SMALL)
    parts = {
        regime: REGIMES[regime],
        sharding: f"sharding={sharding}",
        "kept": OFF if kept else "",
        loss: LOSSES[loss],
        optimizer: f"optim={optimizer}" if optimizer else "",
        variant: VARIANTS.get(variant, ""),
        "accumulated": ACCUMULATED if accumulated else "",
        "packed": PACKED if packed else "",
        "eager": EAGER if model == "gemma2_2b" else "",
    }
    taken = {name: text for name, text in parts.items() if text}
    return "-".join(taken), model, *draw.choice(SIZES), list(taken.values())


def fitting(cell: MemoryCell, work: Path, largest: float) -> bool:
    try:
        predicted = predict(cell, work / "data", work / "shapes")["memory"]
    except ConfigError:
        return False
    return predicted["nvml"] <= largest * GIB


def quoted(text: str) -> str:
    return f'"{text}"'


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--cells", type=int, required=True)
    parser.add_argument("--largest", type=float, required=True, help="GiB of a GPU that a cell may take")
    parser.add_argument("--work", type=Path, default=Path("/tmp/regimen-draw"))
    arguments = parser.parse_args()
    write_shapes(arguments.work / "shapes")
    write_samples(arguments.work / "data")
    draw, earlier = random.Random(arguments.seed), {cell.name for grid in GRIDS.values() for cell in grid[1]}
    for number in range(arguments.cells):
        while True:
            name, model, samples, length, choices = drawn(draw, SHARDINGS[number % len(SHARDINGS)])
            cell = filed(name, model, samples, length, *choices, gpus=2)
            if cell.name not in earlier and fitting(cell, arguments.work, arguments.largest):
                break
        earlier.add(cell.name)
        print(f"    filed({', '.join(map(quoted, (name, model)))}, {samples}, {length}, {', '.join(map(quoted, choices))}, gpus=2),")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
