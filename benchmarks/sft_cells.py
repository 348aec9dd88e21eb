"""Trains SFT cells (model x regime x sharding) for 20 steps each through `regimen train` and writes one JSON line a cell.

    python benchmarks/sft_cells.py --gpus 1 --data FOLDER --out RESULTS.jsonl             one GPU: seven regimes x two models
    python benchmarks/sft_cells.py --gpus 2 --data FOLDER --out RESULTS.jsonl             two GPUs: every allowed pair of regime and sharding
    python benchmarks/sft_cells.py --only qwen2.5_0.5b/lora/ddp ...                       some cells
    python benchmarks/sft_cells.py --tiny --gpus 0 ...                                    a rehearsal on a CPU with tiny shapes

FOLDER holds LLaMA-Factory's alpaca_en_demo.json and dataset_info.json. Cells that RESULTS or an --earlier file already holds are skipped.
A cell has learned when the mean of its last 5 losses is at least 10 % below that of its first 5; cells with learning rate 0 must not.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from shutil import which

STEPS = 20
LEARNED_SHARE = 0.9
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
TINY = [
    "model.architecture.hidden_size=64",
    "model.architecture.intermediate_size=128",
    "model.architecture.num_hidden_layers=2",
    "model.architecture.num_attention_heads=4",
    "model.architecture.num_key_value_heads=2",
    "model.architecture.vocab_size=512",
    "data.cutoff=128",
    "training.micro_batch=2",
]


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
        *REGIMES[cell.regime],
        *(["optim.lr=0.0"] if cell.lr_zero else []),
        *(f"sharding={cell.sharding}", f"cluster.ranks_per_node={max(1, cell.gpus)}", "node=auto" if cell.gpus else "node=cpu"),
        *(f"training.max_steps={STEPS}", "training.micro_batch=4", "checkpoint.interval=0", "evaluation.interval=0"),
        *("optim.warmup=0", "optim.scheduler=constant"),
        *(f"output={output}", f"name={cell.name.replace('/', '-')}"),
        *(TINY if tiny else []),
    ]


def run_cell(cell: Cell, data: Path, output: Path, tiny: bool, devices: str | None, concurrent: int) -> dict[str, object]:
    command = [sys.executable, "-m", "launcher", "train", *overrides(cell, data, output, tiny)]
    environment = dict(os.environ) if devices is None else {**os.environ, "CUDA_VISIBLE_DEVICES": devices}
    began = time.monotonic()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    record: dict[str, object] = {
        "cell": cell.name,
        **asdict(cell),
        "exit_code": done.returncode,
        "seconds": round(time.monotonic() - began, 1),
        "concurrent": concurrent,
        "command": ["regimen", *command[3:]],
    }
    folders = sorted((output / cell.name.replace("/", "-")).glob("*/run.yaml"))
    if done.returncode != 0:
        return {**record, "error": (done.stderr or done.stdout)[-600:]}
    return {**record, **measured(folders[-1].parent), "learned": learned(folders[-1].parent)}


def entries(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "progress.jsonl").read_text().splitlines()]


def losses(folder: Path) -> list[float]:
    return [entry["loss"] for entry in entries(folder) if "loss" in entry]


def learned(folder: Path) -> bool:
    curve = losses(folder)
    return statistics.mean(curve[-5:]) <= LEARNED_SHARE * statistics.mean(curve[:5])


def measured(folder: Path) -> dict[str, object]:
    memory = json.loads((folder / "memory.json").read_text())
    layout = json.loads((folder / "layout" / "rank-0.json").read_text())
    rates = [entry["tokens_per_second"] for entry in entries(folder) if "tokens_per_second" in entry][5:]
    return {
        "first_losses": losses(folder)[:5],
        "last_losses": losses(folder)[-5:],
        "tokens_per_second": statistics.median(rates) if rates else None,
        "predicted": memory["predicted"],
        "measured": memory["measured"],
        "layout": layout,
    }


def surroundings() -> dict[str, object]:
    packages = ("torch", "transformers", "peft", "accelerate", "deepspeed", "bitsandbytes", "hqq", "datasets")
    query = ("nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader")
    gpus = subprocess.run(query, capture_output=True, text=True, check=False) if which("nvidia-smi") else None
    return {
        "date": time.strftime("%Y-%m-%d"),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in packages},
        "gpus": gpus.stdout.strip().splitlines() if gpus else [],
        "cpus": os.cpu_count(),
        "command": " ".join(sys.argv),
    }


def finished(paths: list[Path]) -> set[object]:
    """Names of the cells that ended well in any of these files."""
    records = [json.loads(line) for path in paths if path.exists() for line in path.read_text().splitlines()]
    return {record["cell"] for record in records if record["exit_code"] == 0}


def summary(record: dict[str, object]) -> str:
    return f"{record['cell']:<40} exit {record['exit_code']} {record.get('learned', '')} {str(record.get('error', ''))[-300:]}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpus", type=int, default=1)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--earlier", type=Path, nargs="*", default=[], help="results whose finished cells are not run again")
    parser.add_argument("--only", nargs="*", default=[], help="prefixes of cell names")
    parser.add_argument("--concurrent", type=int, default=1, help="cells at a time; with more than 1, tokens/s are no figures of speed")
    parser.add_argument("--devices", nargs="*", default=[], help="CUDA_VISIBLE_DEVICES of each slot")
    parser.add_argument("--seconds", type=float, default=1e9, help="start no cell after this time")
    parser.add_argument("--output", type=Path, default=Path("/tmp/regimen-cells"))
    parser.add_argument("--tiny", action="store_true")
    arguments = parser.parse_args()
    done = finished([arguments.out, *arguments.earlier])
    cells = [cell for cell in cells_for(arguments.gpus) if cell.name not in done]
    cells = [cell for cell in cells if not arguments.only or any(cell.name.startswith(prefix) for prefix in arguments.only)]
    began, facts = time.monotonic(), surroundings()

    def work(numbered: tuple[int, Cell]) -> None:
        number, cell = numbered
        if time.monotonic() - began > arguments.seconds:
            return
        slots = arguments.devices
        record = run_cell(cell, arguments.data, arguments.output, arguments.tiny, slots[number % len(slots)] if slots else None, arguments.concurrent)
        with arguments.out.open("a") as file:
            file.write(json.dumps({**record, "surroundings": facts}) + "\n")
        print(f"{time.monotonic() - began:6.0f} s  {summary(record)}", flush=True)

    with ThreadPoolExecutor(arguments.concurrent) as pool:
        list(pool.map(work, enumerate(cells)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
