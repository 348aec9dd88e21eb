"""Predicts the memory of every cell of the sets beside this module, and measures it: one `regimen train` of six steps a cell.

    python -m benchmarks.memory.cells predict --gpus 1 --out PREDICTED.jsonl                                 no GPU; committed before measuring
    python -m benchmarks.memory.cells measure --gpus 1 --out RESULTS.jsonl --predicted PREDICTED.jsonl
    python -m benchmarks.memory.cells measure --gpus 0 --tiny --out RESULTS.jsonl                           a rehearsal on a CPU
    python -m benchmarks.memory.cells measure --gpus 0 --grid on_cpus --out RESULTS.jsonl                   host memory on a CPU node

PREDICTED and RESULTS are files of benchmarks/results/memory. Cells run side by side while their predicted memory fits the GPU; peaks of torch's
allocator are per process and do not notice. Two in five samples are short, so that batches of several samples are padded as the prediction
assumes. Cells whose measurement RESULTS already holds are skipped.
"""

import argparse
import json
import random
import shutil
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import yaml

from benchmarks.memory.chosen import CHOSEN_ONE_GPU, CHOSEN_TWO_GPUS, MemoryCell, write_shapes
from benchmarks.memory.drawn import DRAWN_AGAIN_ONE_GPU, DRAWN_ONE_GPU
from benchmarks.memory.drawn_on_two import DRAWN_AGAIN_TWO_GPUS, DRAWN_TWO_GPUS
from benchmarks.memory.families import FAMILIES_ONE_GPU
from benchmarks.memory.families import SHAPES as FAMILY_SHAPES
from benchmarks.memory.from_files import FROM_FILES_ONE_GPU, FROM_FILES_TWO_GPUS
from benchmarks.memory.fused import FUSED_AGAIN_ONE_GPU, FUSED_LAYERS_ONE_GPU, FUSED_ONE_GPU
from benchmarks.memory.mixtures import MIXTURES_ONE_GPU, MIXTURES_TWO_GPUS
from benchmarks.memory.mixtures import SHAPES as MIXTURE_SHAPES
from benchmarks.memory.on_cpus import ON_CPUS
from benchmarks.memory.stages_on_two import STAGES_ON_TWO_GPUS
from benchmarks.memory.variants import FIXED_ONE_GPU, VARIANTS_ONE_GPU
from benchmarks.running.cell_runs import entries, surroundings
from benchmarks.running.processes import Room, environment_for, run_limited
from launcher.composition.compose import compose
from launcher.gate.judge import judge_run

STEPS = 6
GRIDS: dict[str, tuple[tuple[MemoryCell, ...], tuple[MemoryCell, ...]]] = {
    "chosen": (CHOSEN_ONE_GPU, CHOSEN_TWO_GPUS),
    "from_files": (FROM_FILES_ONE_GPU, FROM_FILES_TWO_GPUS),
    "variants": (VARIANTS_ONE_GPU, ()),
    "fixed": (FIXED_ONE_GPU, ()),
    "drawn": (DRAWN_ONE_GPU, ()),
    "drawn_again": (DRAWN_AGAIN_ONE_GPU, ()),
    "fused": (FUSED_ONE_GPU, ()),
    "fused_again": (FUSED_AGAIN_ONE_GPU, ()),
    "fused_layers": (FUSED_LAYERS_ONE_GPU, ()),
    "drawn_on_two": ((), DRAWN_TWO_GPUS),
    "drawn_on_two_again": ((), DRAWN_AGAIN_TWO_GPUS),
    "on_cpus": (ON_CPUS, ()),
    "families": (FAMILIES_ONE_GPU, ()),
    "mixtures": (MIXTURES_ONE_GPU, MIXTURES_TWO_GPUS),
    "stages_on_two": ((), STAGES_ON_TWO_GPUS),
}
MORE_SHAPES = {**FAMILY_SHAPES, **MIXTURE_SHAPES}  # beside those of chosen.py
GIB = 2**30
ROOM = 134  # GiB of one H200 that processes side by side may fill
BASES = Path("bases")  # stands for the folder in predictions: the architecture is in the choice of the model
NEVER_STARTED = -1
LONG, SHORT, SAMPLES = 34_000, 60, 40  # characters, and tokens of the byte-level tokenizer
QUESTION = {"instruction": "Go on.", "input": ""}
TINY = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 512}
TINY |= {"n_embd": 64, "n_layer": 2, "n_head": 4, "num_hidden_layers": 2, "moe_intermediate_size": 32, "shared_expert_intermediate_size": 64}
TINY |= {"num_experts": 4, "n_routed_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "q_lora_rank": 32, "kv_lora_rank": 32}
TINY |= {"qk_rope_head_dim": 16, "v_head_dim": 16, "qk_nope_head_dim": 16}


@dataclass(frozen=True)
class Place:
    """Where and how long cells run."""

    gpus: int  # 0: a rehearsal on a CPU
    out: Path
    work: Path
    bases: Path
    concurrent: int
    cell_seconds: float
    tiny: bool
    ahead: int  # plans at once that fill the cache before their cells wait for room; 0: every cell traces its own family


def write_samples(folder: Path) -> Path:
    """Questions with answers of random letters, three in five longer than any cutoff, and the same with all of them so long: as answers, as plain
    text, as pairs of answers, and as answers called good or bad in turns."""
    folder.mkdir(parents=True, exist_ok=True)
    for prefix, long in (("", 3), ("long_", 5)):
        draw = random.Random(0)
        sizes = [LONG if number % 5 < long else SHORT for number in range(SAMPLES)]
        answers = [letters(draw, size) for size in sizes]
        others = [letters(draw, size) for size in sizes]
        files: dict[str, list[dict[str, object]]] = {
            "long" if prefix else "samples": [{**QUESTION, "output": answer} for answer in answers],
            f"{prefix}texts": [{"text": answer} for answer in answers],
            f"{prefix}pairs": [{**QUESTION, "chosen": answer, "rejected": other} for answer, other in zip(answers, others, strict=True)],
            f"{prefix}labelled": [{**QUESTION, "output": answer, "kto_tag": number % 2 == 0} for number, answer in enumerate(answers)],
        }
        for name, rows in files.items():
            (folder / f"{name}.json").write_text(json.dumps(rows), encoding="utf-8")
    return folder


def letters(draw: random.Random, size: int) -> str:
    return "".join(draw.choices("abcdefgh ", k=size))


def overrides(cell: MemoryCell, data: Path, bases: Path = BASES) -> list[str]:
    """`bases` holds what bases.py wrote; it need not be there where nothing but a prediction is asked."""
    path = ["model.init=pretrained", f"model.path={bases / cell.model}"] if cell.from_files else ["model.init=random", "model.path=null"]
    return [
        *("training.fit=off", *modules_alone(cell), *cell.overrides, *path, "model.tokenizer=bytes"),  # what is not stated is as it was measured
        *("data=files", f"data.folder={data}", f"data.sets=[{cell.rows}]", "data.template=chatml"),
        *(f"training.max_steps={STEPS}", "checkpoint.interval=0", "evaluation.interval=0", "optim.scheduler=constant", "optim.warmup=0"),
        *("gate.mode=off", f"cluster.ranks_per_node={max(1, cell.gpus)}"),
    ]


def modules_alone(cell: MemoryCell) -> tuple[str, ...]:
    """ZeRO-3 gathered module by module."""
    return ("sharding.whole_layers=false",) if "sharding=zero3" in cell.overrides else ()


def tiny(architecture: dict[str, object]) -> list[str]:
    """The same model small enough for a CPU."""
    sizes = {**TINY, "num_key_value_heads": 4} if "kv_lora_rank" in architecture else TINY  # latent attention shares no heads
    return [f"model.architecture.{key}={value}" for key, value in sizes.items() if key in architecture]


def small(shapes: dict[str, str]) -> dict[str, str]:
    """Shapes that leave all but their layers to their families' defaults, with sizes for a CPU; the vocabulary stays unstated."""
    from transformers import AutoConfig  # only a rehearsal needs it

    def sizes(shape: str) -> str:
        defaults = AutoConfig.for_model(**yaml.safe_load(f"{{{shape}}}")).to_dict()
        return "".join(f", {key}: {value}" for key, value in TINY.items() if key in defaults and key not in {"vocab_size", "num_hidden_layers"})

    return {name: shape + sizes(shape) for name, shape in shapes.items()}


def predict(cell: MemoryCell, data: Path, shapes: Path, bases: Path = BASES) -> dict[str, object]:
    node = ["node=h200_141", f"node.gpus={cell.gpus}"]
    judged = judge_run(compose([*overrides(cell, data, bases), *node], [shapes]))
    return {"cell": cell.name, "memory": judged.estimate.as_dict()}


def measure(cell: MemoryCell, given: list[str], devices: Sequence[str], place: Place) -> dict[str, object]:
    name, runs = cell.name.replace("/", "-"), place.work / "runs"
    command = [sys.executable, "-m", "launcher", "train", "--config-dir", str(place.work / "shapes"), *given, f"output={runs}", f"name={name}"]
    began = time.monotonic()
    code, output = run_limited(command, environment_for(devices, place.concurrent), place.cell_seconds)
    record = {"cell": cell.name, **asdict(cell), "exit_code": code, "seconds": round(time.monotonic() - began, 1), "overrides": given}
    folders = sorted(path.parent for path in (runs / name).glob("*/run.yaml"))
    if code == 0 and folders:
        record |= found(folders[-1])
    else:
        logs = sorted(folders[-1].glob("log/rank-*.txt")) if folders else []
        record["error"] = "\n".join([output[-1000:], *(path.read_text()[-1000:] for path in logs)])
    shutil.rmtree(runs / name, ignore_errors=True)
    return record


def found(folder: Path) -> dict[str, object]:
    memory = json.loads((folder / "memory.json").read_text())
    steps = [entry for entry in entries(folder) if "loss" in entry]
    return {
        "predicted_there": memory["predicted"],
        "measured": memory["measured"],
        "losses": [round(step["loss"], 3) for step in steps],
        "padding": [step["padding"] for step in steps],
    }


def run_all(cells: dict[str, MemoryCell], predicted: dict[str, dict], room: Room, place: Place) -> None:
    """One thread a cell, which waits for its weights and its share of the room; the largest stand first in the queue."""
    began, facts, writing, planning = time.monotonic(), surroundings(), threading.Lock(), threading.Semaphore(max(1, place.ahead))
    given = {name: given_here(cell, place) for name, cell in cells.items()}

    def write(record: dict[str, object]) -> None:
        record |= {"predicted": predicted[str(record["cell"])], "surroundings": facts, "concurrent": place.concurrent}
        with writing:
            with place.out.open("a") as file:
                file.write(json.dumps(record) + "\n")
            print(f"{time.monotonic() - began:6.0f} s  {summary(record)}", flush=True)

    def work(cell: MemoryCell) -> None:
        if place.ahead:
            with planning:
                plan_ahead(given[cell.name], place)
        size = predicted[cell.name]["nvml"] + GIB // 2 if place.gpus else 1
        room.wait_until(lambda: not cell.from_files or (place.bases / cell.model).is_dir())
        try:
            ticket = room.queue(size, max(1, place.gpus))
        except ValueError as error:
            write({"cell": cell.name, **asdict(cell), "exit_code": NEVER_STARTED, "seconds": 0.0, "error": str(error)})
            return
        with room.entered(ticket) as devices:
            if devices:
                write(measure(cell, given[cell.name], devices, place))

    threads = [threading.Thread(target=work, args=(cells[name],)) for name in sorted(cells, key=lambda name: -predicted[name]["nvml"])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def plan_ahead(given: list[str], place: Place) -> None:
    """Fills the cache of counts and traces, so that no cell of a family without a table holds its room meanwhile. What fails, fails there too."""
    command = [sys.executable, "-m", "launcher", "plan", "--config-dir", str(place.work / "shapes"), *given, f"output={place.work / 'runs'}"]
    run_limited(command, environment_for((), max(1, place.ahead)), place.cell_seconds)


def given_here(cell: MemoryCell, place: Place) -> list[str]:
    given = [*overrides(cell, place.work / "data", place.bases), "node=auto" if place.gpus else "node=cpu"]
    return (
        [*given, *tiny(architecture_of(cell, place.work / "shapes")), f"data.cutoff={min(cell.length, 128)}", "training.max_steps=2"]
        if place.tiny
        else given
    )


def architecture_of(cell: MemoryCell, shapes: Path) -> dict[str, object]:
    run = compose([f"model={cell.model}", "model.init=random", "model.path=null", "data=demo"], [shapes])
    return run.model.architecture or {}


def summary(record: dict) -> str:
    if "measured" not in record:
        return f"{record['cell']:<60} exit {record['exit_code']} {record['error'][-300:]}"
    allocated = max((rank.get("allocated", 0) for rank in record["measured"]), default=0)
    predicted = record["predicted"]["allocated"]
    error = f"{100 * (predicted - allocated) / allocated:+.2f} %" if allocated else ""
    return f"{record['cell']:<60} {record['seconds']:5.0f} s  {predicted / GIB:6.2f} {allocated / GIB:6.2f} GiB {error}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("act", choices=("predict", "measure"))
    parser.add_argument("--gpus", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--predicted", type=Path, help="what `predict` wrote")
    parser.add_argument("--only", nargs="*", default=[], help="parts of cell names")
    parser.add_argument("--grid", choices=sorted(GRIDS), default="chosen")
    parser.add_argument("--devices", nargs="+", default=["0", "1"], help="GPUs that the cells may use")
    parser.add_argument("--bases", type=Path, default=BASES, help="folder that bases.py filled")
    parser.add_argument("--concurrent", type=int, default=1, help="processes at once: a cell on two GPUs counts as two")
    parser.add_argument("--room", type=int, default=ROOM, help="GiB of each GPU that the cells may fill together")
    parser.add_argument("--seconds", type=float, default=1e6, help="start no cell after this time")
    parser.add_argument("--cell-seconds", type=float, default=150, help="end a cell after this time")
    parser.add_argument("--work", type=Path, default=Path("/tmp/regimen-memory"))
    parser.add_argument("--ahead", type=int, default=0, help="plans at once that trace families before their cells wait for room")
    parser.add_argument("--tiny", action="store_true")
    arguments = parser.parse_args()
    shapes = write_shapes(arguments.work / "shapes", MORE_SHAPES | (small(FAMILY_SHAPES) if arguments.tiny else {}))
    data = write_samples(arguments.work / "data")
    one, two = GRIDS[arguments.grid]
    cells = {
        cell.name: cell for cell in (two if arguments.gpus > 1 else one) if not arguments.only or any(part in cell.name for part in arguments.only)
    }
    if arguments.act == "predict":
        lines = [json.dumps(predict(cell, data, shapes)) for cell in cells.values()]
        arguments.out.write_text("\n".join(lines) + "\n")
        return 0
    there = arguments.out.read_text().splitlines() if arguments.out.exists() else []
    done = {record["cell"] for record in map(json.loads, there) if "measured" in record}
    left = {name: cell for name, cell in cells.items() if name not in done}
    lines = arguments.predicted.read_text().splitlines() if arguments.predicted else []
    before = {line["cell"]: line["memory"] for line in map(json.loads, lines)}
    predicted = {name: before[name] if name in before else predict(cell, data, shapes)["memory"] for name, cell in left.items()}
    room = Room(arguments.devices if arguments.gpus else ["", " "], arguments.room * GIB, arguments.concurrent)
    room.close_after(arguments.seconds)
    taken = ("gpus", "out", "work", "bases", "concurrent", "cell_seconds", "tiny", "ahead")
    run_all(left, predicted, room, Place(**{name: getattr(arguments, name) for name in taken}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
