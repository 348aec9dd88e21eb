"""Predicts the memory of every cell of memory_grid.py, and measures it: one `regimen train` of six steps a cell.

    python benchmarks/memory_cells.py predict --gpus 1 --out benchmarks/results/h200_memory_predicted.jsonl      no GPU; committed before measuring
    python benchmarks/memory_cells.py measure --gpus 1 --out RESULTS.jsonl --predicted benchmarks/results/h200_memory_predicted.jsonl
    python benchmarks/memory_cells.py measure --gpus 0 --tiny --out RESULTS.jsonl                                a rehearsal on a CPU

Cells run side by side while their predicted memory fits the GPU; peaks of torch's allocator are per process and do not notice. Two in five samples
are short, so that batches of several samples are padded as the prediction assumes. Cells that RESULTS already holds are skipped.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path

from cell_runs import entries, surroundings
from memory_grid import ONE_GPU, SHAPES, TWO_GPUS, MemoryCell, write_shapes

from launcher.compose import compose
from launcher.plan import judge_run

STEPS = 6
GIB = 2**30
ROOM = 134  # GiB of one H200 that processes side by side may fill
LONG, SHORT, SAMPLES = 34_000, 60, 40  # characters, and tokens of the byte-level tokenizer
TINY = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 512}
TINY |= {"n_embd": 64, "n_layer": 2, "n_head": 4, "num_hidden_layers": 2, "moe_intermediate_size": 32, "shared_expert_intermediate_size": 64}
TINY |= {"num_experts": 4, "n_routed_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "q_lora_rank": 32, "kv_lora_rank": 32}
TINY |= {"qk_rope_head_dim": 16, "v_head_dim": 16, "qk_nope_head_dim": 16}


def write_samples(folder: Path) -> Path:
    """Questions with answers of random letters, three in five longer than any cutoff."""
    draw = random.Random(0)
    sizes = [LONG if number % 5 < 3 else SHORT for number in range(SAMPLES)]
    rows = [{"instruction": "Go on.", "input": "", "output": "".join(draw.choices("abcdefgh ", k=size))} for size in sizes]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "samples.json").write_text(json.dumps(rows), encoding="utf-8")
    return folder


def overrides(cell: MemoryCell, data: Path) -> list[str]:
    return [
        *cell.overrides,
        *([] if cell.model in SHAPES else ["model.init=random", "model.path=null", "model.tokenizer=bytes"]),
        *("data=files", f"data.folder={data}", "data.sets=[samples.json]", "data.template=chatml"),
        *(f"training.max_steps={STEPS}", "checkpoint.interval=0", "evaluation.interval=0", "optim.scheduler=constant", "optim.warmup=0"),
        *("gate.mode=off", f"cluster.ranks_per_node={max(1, cell.gpus)}"),
    ]


def tiny(cell: MemoryCell, architecture: dict[str, object]) -> list[str]:
    """The same cell small enough for a CPU."""
    smaller = [f"model.architecture.{key}={value}" for key, value in TINY.items() if key in architecture]
    return [*smaller, f"data.cutoff={min(cell.length, 128)}"]


def predict(cell: MemoryCell, data: Path, shapes: Path) -> dict[str, object]:
    node = ["node=h200_141", f"node.gpus={cell.gpus}"]
    judged = judge_run(compose([*overrides(cell, data), *node], [shapes]))
    return {"cell": cell.name, "memory": judged.estimate.as_dict()}


def measure(cell: MemoryCell, given: list[str], work: Path) -> dict[str, object]:
    name = cell.name.replace("/", "-")
    command = [sys.executable, "-m", "launcher", "train", "--config-dir", str(work / "shapes"), *given, f"output={work / 'runs'}", f"name={name}"]
    began = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    record = {"cell": cell.name, **asdict(cell), "exit_code": done.returncode, "seconds": round(time.monotonic() - began, 1), "overrides": given}
    folders = sorted((work / "runs" / name).glob("*/memory.json"))
    if done.returncode == 0 and folders:
        record |= found(folders[-1].parent)
    else:
        record["error"] = (done.stderr or done.stdout)[-1500:]
    shutil.rmtree(work / "runs" / name, ignore_errors=True)
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


class Queue:
    """Cells in order of size, given out while the memory and the cores that they take are there."""

    def __init__(self, sizes: dict[str, int], room: int, at_once: int) -> None:
        self.waiting = sorted(sizes, key=lambda name: -sizes[name])
        self.sizes, self.free, self.slots = sizes, room, at_once
        self.changed = threading.Condition()

    def take(self) -> str | None:
        """The largest cell that fits beside those that run; None when none is left."""
        with self.changed:
            while self.waiting:
                fitting = [name for name in self.waiting if self.sizes[name] <= self.free]
                if fitting and self.slots:
                    self.waiting.remove(fitting[0])
                    self.free -= self.sizes[fitting[0]]
                    self.slots -= 1
                    return fitting[0]
                self.changed.wait()
            return None

    def give_back(self, name: str) -> None:
        with self.changed:
            self.free += self.sizes[name]
            self.slots += 1
            self.changed.notify_all()

    def close(self) -> None:
        """Nothing more is started."""
        with self.changed:
            self.waiting.clear()
            self.changed.notify_all()


def run_all(cells: dict[str, MemoryCell], predicted: dict[str, dict], arguments: argparse.Namespace, data: Path, shapes: Path) -> None:
    began, facts, writing = time.monotonic(), surroundings(), threading.Lock()
    sizes = {name: int(1.25 * predicted[name]["nvml"]) + GIB if arguments.gpus else 1 for name in cells}
    queue = Queue(sizes, arguments.room * GIB, arguments.concurrent)
    closing = threading.Timer(arguments.seconds, queue.close)
    closing.daemon = True
    closing.start()

    def work() -> None:
        while (name := queue.take()) is not None:
            cell = cells[name]
            given = [*overrides(cell, data), "node=auto" if arguments.gpus else "node=cpu"]
            if arguments.tiny:
                given += tiny(cell, architecture_of(cell, shapes))
            record = measure(cell, given, arguments.work)
            record |= {"predicted": predicted[name], "surroundings": facts, "concurrent": arguments.concurrent}
            with writing:
                with arguments.out.open("a") as file:
                    file.write(json.dumps(record) + "\n")
                print(f"{time.monotonic() - began:6.0f} s  {summary(record)}", flush=True)
            queue.give_back(name)

    threads = [threading.Thread(target=work) for _ in range(arguments.concurrent)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


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
    parser.add_argument("--concurrent", type=int, default=1)
    parser.add_argument("--room", type=int, default=ROOM, help="GiB of each GPU that the cells may fill together")
    parser.add_argument("--seconds", type=float, default=1e9, help="start no cell after this time")
    parser.add_argument("--work", type=Path, default=Path("/tmp/regimen-memory"))
    parser.add_argument("--tiny", action="store_true")
    arguments = parser.parse_args()
    shapes, data = write_shapes(arguments.work / "shapes"), write_samples(arguments.work / "data")
    cells = {cell.name: cell for cell in (TWO_GPUS if arguments.gpus > 1 else ONE_GPU)}
    cells = {name: cell for name, cell in cells.items() if not arguments.only or any(part in name for part in arguments.only)}
    if arguments.act == "predict":
        lines = [json.dumps(predict(cell, data, shapes)) for cell in cells.values()]
        arguments.out.write_text("\n".join(lines) + "\n")
        return 0
    done = {json.loads(line)["cell"] for line in arguments.out.read_text().splitlines()} if arguments.out.exists() else set()
    os.environ.pop("CUDA_VISIBLE_DEVICES", None) if arguments.gpus else None
    lines = arguments.predicted.read_text().splitlines() if arguments.predicted else []
    predicted = {line["cell"]: line["memory"] for line in map(json.loads, lines)}
    if not predicted:
        predicted = {name: predict(cell, data, shapes)["memory"] for name, cell in cells.items()}
    run_all({name: cell for name, cell in cells.items() if name not in done}, predicted, arguments, data, shapes)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
