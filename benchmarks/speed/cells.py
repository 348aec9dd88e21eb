"""The cells of the speed benchmark: a model, a regime and a batch each, and the keys of every variant that is measured of it."""

import json
import math
import random
from dataclasses import dataclass
from pathlib import Path

MODELS = {"llama3.1_8b": "8b", "llama3.2_1b": "1b"}
TINY = (
    *("model.architecture.hidden_size=64", "model.architecture.intermediate_size=128", "model.architecture.num_hidden_layers=2"),
    *("model.architecture.num_attention_heads=4", "model.architecture.num_key_value_heads=2", "model.architecture.vocab_size=512"),
)
LORA = ("regime.rank=16", "regime.alpha=32", "regime.dropout=0", "regime.targets=[all-linear]")


@dataclass(frozen=True)
class Cell:
    name: str
    model: str  # a choice of conf/model
    keys: tuple[str, ...]
    rows: int  # samples a step
    cutoff: int  # tokens
    mixed: bool = False  # lengths as in practice: log-normal, median 400, sigma 0.9, from 16 to the cutoff; else all are of the cutoff
    warm_up: int = 4  # steps before those that count
    steps: int = 8


CELLS = (
    Cell("8b-lora", "llama3.1_8b", ("regime=lora", *LORA), 4, 2048),
    Cell("1b-lora-mixed", "llama3.2_1b", ("regime=lora", *LORA), 8, 2048, mixed=True, warm_up=25, steps=50),
    Cell("1b-full", "llama3.2_1b", ("regime=full",), 4, 4096, steps=12),
    Cell("8b-full", "llama3.1_8b", ("regime=full", "training.precision=bf16"), 2, 2048),
    Cell("8b-qlora", "llama3.1_8b", ("regime=qlora", "regime.bits=4", "regime.double_quant=true", *LORA), 4, 2048),
)
KEPT = ("training.gradient_checkpointing=false",)
BY_HAND = ("training.loss=fused", "training.dataloader_workers=4")
VARIANTS: dict[str, tuple[str, ...]] = {
    "default": (),  # the model, the data, the regime and the samples of a step are said, and nothing more
    "by-hand": (*KEPT, *BY_HAND, "data.packing=true"),  # the fastest keys without the kernels; packing changes the samples of a step
    "kernels": (*KEPT, *BY_HAND, "training.kernels=fused"),
    "kernels-packed": (*KEPT, *BY_HAND, "training.kernels=fused", "data.packing=true"),
    "kernels-recomputed": (*BY_HAND, "training.kernels=fused"),
}
# One key more than the default, of one cell alone
OPTED: dict[tuple[str, str], tuple[str, ...]] = {
    ("8b-lora", "fp8"): ("training.fp8=true",),
    ("8b-qlora", "dequantised-once"): ("regime.dequantised=true",),
}
FULL_ALONE = {"kernels-amp": (*KEPT, *BY_HAND, "training.kernels=fused")}  # of regime=full, whose other fast variants are in bf16
PURE = "training.precision=bf16"


def variants_of(cell: Cell) -> tuple[str, ...]:
    opted = (variant for name, variant in OPTED if name == cell.name)
    return (*VARIANTS, *(FULL_ALONE if cell.name == "1b-full" else ()), *opted)


def variant_keys(cell: Cell, variant: str) -> tuple[str, ...]:
    if cell.name == "1b-full" and variant in FULL_ALONE:
        return FULL_ALONE[variant]
    if (cell.name, variant) in OPTED:
        return OPTED[cell.name, variant]
    pure = (PURE,) if cell.name == "1b-full" and variant != "default" else ()
    return (*VARIANTS[variant], *pure)


def overrides(cell: Cell, variant: str, base: Path, data: Path, output: Path, small: bool) -> list[str]:
    """What follows `regimen train`."""
    open_batch = variant == "default" or (cell.name, variant) in OPTED
    batch = (f"training.effective_batch={cell.rows}",) if open_batch else (f"training.micro_batch={cell.rows}", "training.accumulation=1")
    length = (f"data.cutoff={cell.cutoff}", *batch)
    return [
        *(f"model={cell.model}", "model.init=pretrained", f"model.path={base}", "model.tokenizer=bytes"),
        *(TINY if small else ()),
        *("data=files", f"data.folder={data}", f"data.sets=[{data_name(cell)}]", "data.template=chatml", "data.validation_share=0"),
        *(cell.keys + length),
        *(f"training.max_steps={cell.warm_up + cell.steps}", "checkpoint.interval=0", "evaluation.interval=0", "gate.mode=advise"),
        *("cluster.ranks_per_node=1", f"output={output}", f"name={cell.name}-{variant}"),
        *variant_keys(cell, variant),
    ]


def data_name(cell: Cell) -> str:
    return f"{'mixed' if cell.mixed else 'full'}-{cell.cutoff}.json"


def lengths(cell: Cell, count: int) -> list[int]:
    if not cell.mixed:
        return [cell.cutoff] * count
    draw = random.Random(0)
    return [max(16, min(cell.cutoff, int(draw.lognormvariate(math.log(400), 0.9)))) for _ in range(count)]


OVERHEAD = 41  # tokens of the template around a question of eight letters and its answer, each byte a token


def write_data(cell: Cell, folder: Path, count: int) -> None:
    """Answers of random letters, as long as the built-in byte tokenizer needs for the length of the row; full rows are cut at their end."""
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / data_name(cell)).exists():
        return
    draw = random.Random(1)
    more = 0 if cell.mixed else 64
    rows = [
        {
            "instruction": "".join(draw.choices("abcdefgh", k=8)),
            "input": "",
            "output": "".join(draw.choices("abcdefgh ", k=max(1, size - OVERHEAD + more))),
        }
        for size in lengths(cell, count)
    ]
    (folder / data_name(cell)).write_text(json.dumps(rows))
