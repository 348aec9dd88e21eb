"""Memory of stages that write or compare answers on one GPU, of cells drawn at random by the seeds below: predicted first, then measured.

    python -m benchmarks.stages.answers --predict --data DATA --out PREDICTED.jsonl                             no GPU; committed before measuring
    python -m benchmarks.stages.answers --data DATA --bases FOLDER --out OUT --concurrent 4                    one H200
    python -m benchmarks.stages.answers --gpus 0 --tiny --data DATA --out OUT --only dpo                       a rehearsal on a CPU

DATA holds LLaMA-Factory's demo sets, of which the reward model of ppo is trained for a step, as in stage_cells.py. Prompts and pairs are of random
letters, all as long as the cutoff; random weights hardly end an answer.
"""

import json
import random
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from benchmarks.memory.cells import letters, write_samples
from benchmarks.running.cell_runs import TINY, folder_name, newest_run, parser_of, run_cells, wanted
from benchmarks.running.processes import environment_for
from benchmarks.stages.stage_cells import ANY_JUDGE, JUDGE, MODEL, REGIMES, Place, train_judge, weights
from launcher.composition.compose import compose
from launcher.gate.judge import judge_run
from trainers.model.tokenizer import byte_tokenizer

SEEDS, EACH, STEPS = {"first": 20261203, "again": 20261204}, 5, 4
STAGES = ("ppo", "grpo", "dpo")
MODELS = (MODEL, "llama3.2_1b", "qwen2.5_1.5b")  # ppo's is MODEL, as its reward model
WRITES = {"ppo": ("stage.epochs=2",), "grpo": ("stage.generations=4",)}
CUTOFFS, ANSWERS, WRITTEN = (64, 128, 256), (32, 64, 128, 256), (4, 8, 16)  # tokens, and answers of a micro-batch
PAIRS, LENGTHS = (1, 2, 4), (512, 1024, 1536)
LARGEST = 30  # GiB of a GPU
PROMPTS = 300


@dataclass(frozen=True)
class Cell:
    name: str
    stage: str
    regime: str
    model: str
    cutoff: int
    overrides: tuple[str, ...]
    sharding: str = "ddp"
    gpus: int = 1


def draw(source: random.Random, stage: str) -> Cell:
    regime, model = source.choice(list(REGIMES)), MODEL if stage == "ppo" else source.choice(MODELS)
    accumulation, coefficient = source.choice((1, 1, 2)), source.choice((0.0, 0.05))
    if stage in WRITES:
        size, cutoff, answer = source.choice(WRITTEN), source.choice(CUTOFFS), source.choice(ANSWERS)
        more = (*WRITES[stage], f"stage.response_length={answer}", *((f"stage.kl_coef={coefficient}",) if stage == "grpo" else ()))
        shape = f"{size}x{cutoff}+{answer}x{accumulation}"
    else:
        size, cutoff, more = source.choice(PAIRS), source.choice(LENGTHS), ()
        shape = f"{size}x{cutoff}x{accumulation}"
    kept = source.choice((False, False, True))
    keys = (f"data.cutoff={cutoff}", f"training.micro_batch={size}", f"training.accumulation={accumulation}", *more)
    parts = (model, stage, regime, shape, *(["kl"] if "stage.kl_coef=0.05" in more else []), *(["kept"] if kept else []))
    return Cell("/".join(parts), stage, regime, model, cutoff, (*keys, *(("training.gradient_checkpointing=false",) if kept else ())))


def drawn(seed: int, place: Place) -> list[Cell]:
    """EACH of a stage, none twice and none larger than LARGEST."""
    source, found = random.Random(seed), dict[str, Cell]()
    for stage in STAGES:
        while sum(cell.stage == stage for cell in found.values()) < EACH:
            cell = draw(source, stage)
            if predict(cell, place)["memory"]["allocated"] < LARGEST * 2**30:
                found.setdefault(cell.name, cell)
    return list(found.values())


def write_data(folder: Path) -> None:
    write_samples(folder)
    source, tokenizer = random.Random(0), byte_tokenizer()
    around = len(tokenizer.apply_chat_template([{"role": "user", "content": ""}], add_generation_prompt=True, return_dict=False))
    for cutoff in CUTOFFS:
        prompts = [{"instruction": letters(source, cutoff - around), "input": "", "output": "a"} for _ in range(PROMPTS)]
        (folder / f"prompts_{cutoff}.json").write_text(json.dumps(prompts), encoding="utf-8")


def overrides(cell: Cell, place: Place) -> list[str]:
    rows = f"prompts_{cell.cutoff}.json" if cell.stage in WRITES else "long_pairs.json"
    return [
        *(f"model={cell.model}", *weights(cell.model, place.bases), "model.tokenizer=bytes", f"stage={cell.stage}"),
        *("data=files", f"data.folder={place.output / 'data'}", f"data.sets=[{rows}]", "data.validation_share=0", "data.template=chatml"),
        *(*REGIMES[cell.regime], "training.fit=off", "cluster.ranks_per_node=1", "node=auto" if place.on_gpu else "node=cpu"),
        *(f"training.max_steps={2 if place.tiny else STEPS}", "checkpoint.interval=0", "evaluation.interval=0", "gate.mode=advise"),
        *("optim.warmup=0", "optim.scheduler=constant", *cell.overrides, f"output={place.output}", f"name={folder_name(cell.name)}"),
        *(
            [*TINY, f"data.cutoff={cell.cutoff}", *(["stage.response_length=8", "training.micro_batch=4"] if cell.stage in WRITES else [])]
            if place.tiny
            else []
        ),
    ]


def predict(cell: Cell, place: Place) -> dict:
    """On a stated node; a reward model that is not trained yet counts as large as the policy."""
    given = [override for override in overrides(cell, place) if not override.startswith("node=")]
    judge = [f"stage.reward_model={ANY_JUDGE}"] if cell.stage == "ppo" else []
    judged = judge_run(compose([*given, *judge, "node=h200_141", "node.gpus=1"]))
    return {"cell": cell.name, "overrides": list(cell.overrides), "memory": judged.estimate.as_dict()}


def main() -> int:
    parser = parser_of(__doc__)
    parser.add_argument("--predict", action="store_true", help="what each cell will take, and run none")
    parser.add_argument("--again", action="store_true", help="the cells of another seed")
    parser.add_argument("--bases", type=Path, help="folder that bases.py filled; left out, every cell makes random weights of its own")
    arguments = parser.parse_args()
    write_data(arguments.output / "data")
    stated = Place(arguments.data, arguments.output, None, False, False, STEPS)
    place = Place(arguments.data, arguments.output, arguments.bases, arguments.tiny, arguments.gpus > 0, STEPS)
    every = drawn(SEEDS["again" if arguments.again else "first"], stated)
    if arguments.predict:
        arguments.out.write_text("".join(json.dumps(predict(cell, stated)) + "\n" for cell in every))
        return 0
    cells = wanted(arguments, sorted(every, key=lambda cell: cell.stage == "ppo"))  # the others go first: ppo waits for its judge
    with ThreadPoolExecutor(1) as pool:
        judge = pool.submit(train_judge, place, environment_for([], 1)) if any(cell.stage == "ppo" for cell in cells) else Future[None]()

        def given(cell: Cell) -> list[str]:
            if cell.stage != "ppo":
                return overrides(cell, place)
            judge.result()
            return [*overrides(cell, place), f"stage.reward_model={newest_run(place.output, JUDGE)}"]

        return run_cells(arguments, cells, given)


if __name__ == "__main__":
    raise SystemExit(main())
