"""Cells of every stage on two GPUs, drawn at random by the seed below over what may be chosen today, on random weights of small shapes.

    python -m benchmarks.memory.stages_on_two       the numbers of the draws that are permitted and small enough, for DRAWS

Every draw has a number, and random numbers of its own. The shardings take turns, and the first permitted draws of each are taken. A draw is passed
over that a rule refuses, that takes more than LARGEST of a GPU, or whose plan says that it does not know its kernels (training.kernels=fused beyond
what the formulas reach). Rows are longer than any cutoff, but for a third of the draws of two samples and more.
"""

import random
from dataclasses import replace
from itertools import count
from pathlib import Path

from benchmarks.memory.chosen import CHUNKED, FREEZE, FULL_AMP, FULL_BF16, FUSED, LORA, QLORA2, QLORA4, QLORA8, MemoryCell, cell, write_shapes
from benchmarks.memory.drawn import ACCUMULATED
from benchmarks.memory.from_files import PACKED
from benchmarks.memory.fused import KERNELS
from launcher.errors import ConfigError

SEED, EACH = 20261201, 4
LARGEST = 12  # GiB of each GPU
UNKNOWN = 0.5  # what a plan states where it counts plain kernels for fused ones
SHARDINGS = ("ddp", "zero1", "zero2", "zero3", "zero2_offload", "zero3_offload", "fsdp2")
STAGES = {"sft": 4, "pt": 2, "rm": 2, "dpo": 2, "kto": 2, "orpo": 2, "simpo": 2}  # with weights
PAIRS, LABELLED, TEXTS = ("rm", "dpo", "orpo", "simpo"), ("kto",), ("pt",)
REGIMES = {
    "full_bf16": (FULL_BF16, 3),
    "full_amp": (FULL_AMP, 3),
    "freeze": (f"{FREEZE} regime.layers=4", 2),
    "lora": (LORA, 3),
    "qlora8": (QLORA8, 1),
    "qlora4": (QLORA4, 2),
    "qlora2": (QLORA2, 1),
}
MODELS = ("qwen2.5_0.5b", "qwen3_0.6b", "gemma3_1b", "llama3.2_1b", "gpt2_medium", "pythia_410m")
SIZES = ((1, 2048), (2, 1024), (2, 2048), (4, 512), (4, 1024))
LOSSES = {"": ("", 3), "chunked": (CHUNKED, 1), "fused": (FUSED, 1)}
CHECKPOINTING = {"": ("", 2), "kept": ("training.gradient_checkpointing=false", 1), "some": ("training.gradient_checkpointing=8", 1)}
OPTIMIZERS = ("adamw_8bit", "lion", "sgd", "adafactor")
DRAWS = (8, 9, 15, 23, 28, 35, 39, 51, 52, 64, 65, 66, 70, 71, 77, 111, 132, 137, 145, 165, 179, 194, 199, 208, 213, 216, 250, 349)


def chosen(draw: random.Random, weighted: dict[str, tuple[str, int]]) -> tuple[str, str]:
    name = draw.choices(list(weighted), weights=[weight for _, weight in weighted.values()])[0]
    return name, weighted[name][0]


def drawn(number: int) -> MemoryCell:
    draw, sharding = random.Random(f"{SEED}/{number}"), SHARDINGS[number % len(SHARDINGS)]
    stage = draw.choices(list(STAGES), weights=list(STAGES.values()))[0]
    (regime, learns), (kept, layers) = chosen(draw, REGIMES), chosen(draw, CHECKPOINTING)
    fused, accumulated, packed, mixed = (draw.random() < share for share in (0.4, 0.3, 0.2, 0.33))
    loss, computed = chosen(draw, LOSSES)
    optimizer = draw.choice(OPTIMIZERS) if draw.random() < 0.3 else ""
    model, (samples, length) = draw.choice(MODELS), draw.choice(SIZES)
    parts = {
        stage: f"stage={stage}",
        regime: learns,
        sharding: f"sharding={sharding}",
        kept: layers,
        "kernels": KERNELS if fused else "",
        loss: computed,
        optimizer: f"optim={optimizer}" if optimizer else "",
        "accumulated": ACCUMULATED if accumulated else "",
        "packed": PACKED if packed else "",
    }
    taken = {name: text for name, text in parts.items() if text}
    length = length // 2 if stage in PAIRS else length  # a sample is two sequences
    found = cell("-".join(taken), model, samples, length, *taken.values(), gpus=2)
    return replace(found, rows=rows_of(stage, mixed and samples > 1))


def rows_of(stage: str, mixed: bool) -> str:
    """A file of write_samples in cells.py."""
    if stage in PAIRS:
        return "pairs.json" if mixed else "long_pairs.json"
    if stage in TEXTS:
        return "texts.json" if mixed else "long_texts.json"
    if stage in LABELLED:
        return "labelled.json" if mixed else "long_labelled.json"
    return "samples.json" if mixed else "long.json"


STAGES_ON_TWO_GPUS = tuple(map(drawn, DRAWS))


def taken(one: MemoryCell, work: Path) -> bool:
    from benchmarks.memory.cells import GIB, predict  # which read this module

    try:
        predicted = predict(one, work / "data", work / "shapes")["memory"]
    except ConfigError:
        return False
    return predicted["nvml"] <= LARGEST * GIB and predicted["uncertainty"]["share"] < UNKNOWN


def main() -> int:
    from benchmarks.memory.cells import write_samples  # which reads this module

    work = Path("/tmp/regimen-draw")
    write_shapes(work / "shapes")
    write_samples(work / "data")
    found: dict[int, MemoryCell] = {}
    for number in count():
        alike = [other for other in found if other % len(SHARDINGS) == number % len(SHARDINGS)]
        if len(found) == EACH * len(SHARDINGS):
            break
        one = drawn(number)
        if len(alike) < EACH and one.name not in {other.name for other in found.values()} and taken(one, work):
            found[number] = one
            print(number, one.name, one.rows, flush=True)
    print(", ".join(map(str, found)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
