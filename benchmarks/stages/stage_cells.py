"""Trains every stage for a few steps through `regimen train`, predicted against measured memory, and writes one JSON line a cell.

    python -m benchmarks.stages.stage_cells --gpus 1 --data DATA --out OUT --devices 0 1 --concurrent 8   nine stages x full, LoRA, QLoRA-4
    python -m benchmarks.stages.stage_cells --gpus 2 --data DATA --out OUT --devices 0,1 --concurrent 6   18 under ZeRO-2 and 3, 12 more
    python -m benchmarks.stages.stage_cells --gpus 2 --predict --data DATA --out OUT                      no GPU; committed before measuring
    python -m benchmarks.stages.stage_cells --gpus 0 --tiny --data DATA --out OUT                         a rehearsal on a CPU with tiny shapes
    python -m benchmarks.stages.stage_cells --gpus 0 --ranks 2 --tiny --data DATA --out OUT               the same of the cells on two GPUs

--bases names the folder that bases.py filled, which spares every cell making random weights of its own. DATA holds LLaMA-Factory's demo sets and
dataset_info.json. A reward model for ppo is trained for a step beside the other cells.
"""

import json
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.running.cell_runs import TINY, folder_name, newest_run, parser_of, run_cells, wanted
from benchmarks.running.processes import environment_for
from launcher.composition.compose import compose
from launcher.gate.judge import judge_run

STEPS = {"ppo": 6, "grpo": 6}  # others: MOST
MOST, MOST_OF_TWO = 20, 10  # cells that share two GPUs wait for each other in every collective
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
JUDGE, ANY_JUDGE = "judge", "org/name"
# Further cells on two GPUs, of the other triples of stage, regime and sharding: random.Random(20261129).sample; and four that were
# changed: formulas of two, and adapters that FSDP2 took for frozen.
DRAWN = (
    ("pt", "full", "fsdp2"),
    ("simpo", "qlora4", "zero1"),
    ("dpo", "qlora4", "fsdp2"),
    ("rm", "full", "zero2"),
    ("pt", "lora", "fsdp2"),
    ("simpo", "lora", "ddp"),
    ("orpo", "full", "zero2"),
    ("rm", "lora", "fsdp2"),
)
ORDER = {"grpo": 0, "kto": 1, "ppo": 2}  # answers take longest, and ppo waits for its judge
NEW = (("dpo", "full", "fsdp2"), ("dpo", "lora", "zero3"), ("dpo", "lora", "fsdp2"), ("kto", "qlora4", "fsdp2"))


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
    every = [(stage, regime, sharding) for stage in SETS for regime, sharding in (("lora", "zero2"), ("full", "zero3"))]
    every.sort(key=lambda triple: ORDER.get(triple[0], len(ORDER)))
    return [Cell(*triple, ranks) for triple in (*every, *NEW, *DRAWN)]


@dataclass(frozen=True)
class Place:
    """What all cells share."""

    data: Path
    output: Path
    bases: Path | None  # folder that bases.py filled; None: every cell makes random weights
    tiny: bool
    on_gpu: bool
    steps: int | None  # of every cell; None: as many as its stage has


def overrides(cell: Cell, place: Place) -> list[str]:
    steps = 2 if place.tiny else place.steps or STEPS.get(cell.stage, MOST if cell.gpus < 2 else MOST_OF_TWO)
    return [
        *(f"model={cell.model}", *weights(cell.model, place.bases), "model.tokenizer=bytes", f"stage={cell.stage}"),
        *("data=files", f"data.folder={place.data}", f"data.sets={SETS[cell.stage]}", "data.max_samples=600", "data.template=chatml"),
        *(*REGIMES[cell.regime], "training.fit=off"),
        *(f"sharding={cell.sharding}", f"cluster.ranks_per_node={max(1, cell.gpus)}", "node=auto" if place.on_gpu else "node=cpu"),
        *(f"training.max_steps={steps}", "checkpoint.interval=0", "evaluation.interval=0"),
        "gate.mode=advise",  # cells share a GPU
        *("optim.warmup=0", "optim.scheduler=constant", *BATCHES[cell.stage]),
        *(f"output={place.output}", f"name={folder_name(cell.name)}"),
        *([*TINY, *TINY_BATCHES.get(cell.stage, ())] if place.tiny else []),
    ]


def weights(model: str, bases: Path | None) -> list[str]:
    if bases is None:
        return ["model.init=random", "model.path=null"]
    return ["model.init=pretrained", f"model.path={bases / model}"]


def overrides_with_judge(cell: Cell, place: Place, judge: Future[None]) -> list[str]:
    """Cells of ppo wait for their reward model, the others go on beside it."""
    if cell.stage != "ppo":
        return overrides(cell, place)
    judge.result()
    return [*overrides(cell, place), f"stage.reward_model={newest_run(place.output, JUDGE)}"]


def predict(cell: Cell, place: Place) -> dict[str, object]:
    """On a stated node; a reward model that is not trained yet counts as large as the policy."""
    given = [override for override in overrides(cell, place) if not override.startswith("node=")]
    judge = [f"stage.reward_model={ANY_JUDGE}"] if cell.stage == "ppo" else []
    judged = judge_run(compose([*given, *judge, "node=h200_141", f"node.gpus={cell.gpus}"]))
    return {"cell": cell.name, "memory": judged.estimate.as_dict()}


def train_judge(place: Place, environment: dict[str, str]) -> None:
    """A reward model of the policy's shape."""
    if list((place.output / JUDGE).glob("*/model")):
        return
    given = overrides(Cell("rm", "full", "ddp", 1), place)
    command = [sys.executable, "-m", "launcher", "train", *given, f"name={JUDGE}", "training.max_steps=1"]
    subprocess.run(command, env=environment, check=True)


def main() -> int:
    parser = parser_of(__doc__)
    parser.add_argument("--ranks", type=int, default=1, help="of a rehearsal on a CPU")
    parser.add_argument("--predict", action="store_true", help="what each cell will take, and run none")
    parser.add_argument("--bases", type=Path, help="folder that bases.py filled; left out, every cell makes random weights of its own")
    parser.add_argument("--steps", type=int, help="of every cell: two show its memory, but not that it learns")
    arguments = parser.parse_args()
    on_gpu = arguments.gpus > 0
    cells = wanted(arguments, cells_for(arguments.gpus if on_gpu else arguments.ranks))
    place = Place(arguments.data, arguments.output, arguments.bases, arguments.tiny, on_gpu, arguments.steps)
    if arguments.predict:
        arguments.out.write_text("".join(json.dumps(predict(cell, place)) + "\n" for cell in cells))
        return 0
    first_gpu = arguments.devices[0].split(",")[:1] if arguments.devices else []
    with ThreadPoolExecutor(1) as pool:
        judge = pool.submit(train_judge, place, environment_for(first_gpu, 1)) if any(cell.stage == "ppo" for cell in cells) else Future[None]()
        return run_cells(arguments, cells, partial(overrides_with_judge, place=place, judge=judge))


if __name__ == "__main__":
    raise SystemExit(main())
