"""The cells of the scaling benchmark: a job on one or two GPUs, and the settings of its sharding that differ from regimen's own."""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.memory.cells import tiny
from conf.schema import Composed
from launcher.composition.compose import compose

FULL = ("model=llama3.2_1b", "regime=full", "training.precision=bf16", "data.cutoff=4096", "training.micro_batch=4")
LORA = (
    *("model=llama3.1_8b", "regime=lora", "regime.rank=16", "regime.alpha=32", "regime.dropout=0", "regime.targets=[all-linear]"),
    *("data.cutoff=2048", "training.micro_batch=4"),
)
KEPT = ("training.accumulation=1", "training.gradient_checkpointing=false", "training.dataloader_workers=4")
FUSED = (*KEPT, "training.kernels=fused", "training.loss=fused")
PLAIN = (*KEPT, "training.kernels=plain", "training.loss=plain")  # of shardings that split weights, which the fused kernels cannot read
SPLIT = ("zero3", "fsdp2")
ROWS, CHARACTERS = 4, 4300  # of a micro-batch; of an answer, each a token: more than any cutoff here


@dataclass(frozen=True)
class Cell:
    """`changes`: see scaling_rank.py, apply; `environment` beside them."""

    name: str  # job/GPUs/sharding/settings
    job: tuple[str, ...]
    sharding: str
    gpus: int = 2
    keys: tuple[str, ...] = ()
    changes: dict[str, Any] = field(default_factory=dict)
    goal: float | None = None  # of its rate to that of `compared`

    @property
    def overrides(self) -> tuple[str, ...]:
        kernels = PLAIN if self.plain else FUSED
        return (*self.job, *kernels, f"sharding={self.sharding}", f"cluster.ranks_per_node={self.gpus}", *self.keys)

    @property
    def plain(self) -> bool:
        return self.sharding in SPLIT or self.name.endswith("/plain")

    @property
    def model(self) -> str:
        return self.job[0].removeprefix("model=")

    @property
    def tokens(self) -> int:
        """Of one GPU in one step."""
        return ROWS * int(next(key for key in self.job if key.startswith("data.cutoff=")).removeprefix("data.cutoff="))

    @property
    def compared(self) -> str:
        """The cell of one GPU without a sharding, by the same kernels."""
        return f"{self.name.split('/')[0]}/1/{'plain' if self.plain else 'fused'}"


# Layers whose weights DeepSpeed gathers, and whose gradients it reduces, at once. A layer of the 1B llama has 61 million weights.
LEAVES = {"leaf_module": {"classes": ["LlamaDecoderLayer"]}}
LAYER = 61_000_000


def zero(**keys: Any) -> dict[str, Any]:
    return {"zero": keys}


def ahead(layers: int, **keys: Any) -> dict[str, Any]:
    """ZeRO-3 by whole layers, so many gathered ahead; one layer's gradients are a bucket."""
    return zero(**LEAVES, stage3_prefetch_bucket_size=layers * LAYER, reduce_bucket_size=LAYER, **keys)


WHOLE, MODULES = ("sharding.whole_layers=true",), ("sharding.whole_layers=false",)
SMALL = zero(reduce_bucket_size=2**26, reduce_scatter=False)
VIEWS = {"ddp": {"gradient_as_bucket_view": True}}
WAITING, WRAPPED = {"waiting": True}, {"wrapped": True}
DEEPSPEED = {"reduce_bucket_size": 500_000_000, "reduce_scatter": True}  # its own settings

CELLS = (
    Cell("1b-full/1/fused", FULL, "ddp", gpus=1),
    Cell("1b-full/1/plain", FULL, "ddp", gpus=1),
    Cell("8b-lora/1/fused", LORA, "ddp", gpus=1),
    Cell("8b-lora/2/ddp", LORA, "ddp", changes=VIEWS, goal=0.99),
    Cell("1b-full/2/ddp", FULL, "ddp", changes=VIEWS, goal=0.96),
    Cell("1b-full/2/zero2", FULL, "zero2", changes=SMALL, goal=0.95),
    Cell("1b-full/2/zero3", FULL, "zero3", keys=MODULES, goal=0.85),
    Cell("1b-full/2/zero3/layers", FULL, "zero3", keys=WHOLE, goal=0.85),
    Cell("1b-full/2/fsdp2", FULL, "fsdp2", goal=0.96),
    Cell("1b-full/2/zero1", FULL, "zero1", changes=SMALL),
    Cell("1b-full/1/zero3", FULL, "zero3", keys=MODULES, gpus=1),
    Cell("1b-full/1/fsdp2", FULL, "fsdp2", gpus=1),
    Cell("1b-full/1/zero2", FULL, "zero2", gpus=1, changes=SMALL),
    Cell("1b-full/1/zero1", FULL, "zero1", gpus=1, changes=SMALL),
    Cell("1b-full/1/zero2/waiting", FULL, "zero2", gpus=1, changes={**SMALL, **WAITING}),
    Cell("1b-full/1/zero1/waiting", FULL, "zero1", gpus=1, changes={**SMALL, **WAITING}),
    Cell("1b-full/1/zero3/layers", FULL, "zero3", keys=WHOLE, gpus=1),
    Cell("1b-full/1/zero3/layers-waiting", FULL, "zero3", keys=WHOLE, gpus=1, changes=WAITING),
    Cell("1b-full/1/ddp", FULL, "ddp", gpus=1, changes=WRAPPED),
    Cell("8b-lora/1/ddp", LORA, "ddp", gpus=1, changes=WRAPPED),
    Cell("8b-lora/1/ddp/each-gradient", LORA, "ddp", gpus=1, changes={**WRAPPED, **WAITING}),
    Cell("1b-full/2/zero2/deepspeeds-own", FULL, "zero2", changes=zero(**DEEPSPEED), goal=0.95),
    Cell("1b-full/2/zero2/256M", FULL, "zero2", changes=zero(reduce_bucket_size=2**28, reduce_scatter=False), goal=0.95),
    Cell("1b-full/2/zero2/one-stream", FULL, "zero2", changes=zero(reduce_bucket_size=2**26, reduce_scatter=False, overlap_comm=False), goal=0.95),
    Cell("1b-full/2/fsdp2/kept", FULL, "fsdp2", keys=("sharding.reshard_after_forward=false",), goal=0.96),
    Cell(
        "1b-full/2/zero3/layers-kept",
        FULL,
        "zero3",
        keys=WHOLE,
        changes=ahead(2, stage3_max_live_parameters=10**10, stage3_max_reuse_distance=10**10),
        goal=0.85,
    ),
    Cell("1b-full/2/zero3/layers-4-ahead", FULL, "zero3", keys=WHOLE, changes=ahead(4), goal=0.85),
    Cell("1b-full/2/zero3/layers-whole-bucket", FULL, "zero3", keys=WHOLE, changes=ahead(2, reduce_scatter=False), goal=0.85),
    Cell(
        "1b-full/2/zero3/large-buckets",
        FULL,
        "zero3",
        keys=MODULES,
        changes=zero(reduce_bucket_size=LAYER, stage3_prefetch_bucket_size=2 * LAYER),
        goal=0.85,
    ),
    Cell("1b-full/2/fsdp2/2-ahead", FULL, "fsdp2", changes={"ahead": 2}, goal=0.96),
    Cell("1b-full/2/fsdp2/few-channels", FULL, "fsdp2", changes={"environment": {"NCCL_MAX_CTAS": "8"}}, goal=0.96),
    Cell("1b-full/2/ddp/100MB", FULL, "ddp", keys=("sharding.bucket_mb=100",), changes=VIEWS, goal=0.96),
    Cell("1b-full/2/ddp/copies", FULL, "ddp", changes={"ddp": {"gradient_as_bucket_view": False}}, goal=0.96),
    Cell("1b-full/2/ddp/few-channels", FULL, "ddp", changes={**VIEWS, "environment": {"NCCL_MAX_CTAS": "8"}}, goal=0.96),
)


def write_data(folder: Path, steps: int) -> None:
    """Enough answers of random letters for so many steps of two GPUs; each is cut at its end."""
    folder.mkdir(parents=True, exist_ok=True)
    source = random.Random(0)
    letters = ["".join(source.choices("abcdefgh ", k=CHARACTERS)) for _ in range(2 * ROWS * steps)]
    (folder / "answers.json").write_text(json.dumps([{"instruction": "Go on.", "input": "", "output": text} for text in letters]))


def composed(cell: Cell, work: Path, bases: Path, steps: int, node: Sequence[str], more: Sequence[str] = (), small: bool = False) -> Composed:
    return compose(
        [
            *(*cell.overrides, "model.init=pretrained", f"model.path={bases / cell.model}", "model.tokenizer=bytes"),
            *("data=files", f"data.folder={work / 'data'}", "data.sets=[answers.json]", "data.template=chatml", f"data.cache={work / 'cache'}"),
            *("data.validation_share=0", f"training.max_steps={steps}", "training.fit=off", "checkpoint.interval=0", "evaluation.interval=0"),
            *("optim.scheduler=constant", "optim.warmup=0", "gate.mode=off", f"output={work / 'runs'}", f"name={cell.name.replace('/', '-')}"),
            *(*node, *more),
            *(shrunk(cell) if small else []),
        ]
    )


def shrunk(cell: Cell) -> list[str]:
    """For a CPU."""
    architecture = compose([f"model={cell.model}", "data=demo"]).model.architecture or {}
    sizes = [*tiny(architecture), "data.cutoff=64", "training.micro_batch=2", "training.dataloader_workers=0"]
    return [*sizes, "training.loss=plain", "training.kernels=plain"]
