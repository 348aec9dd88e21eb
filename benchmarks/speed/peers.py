"""Plain TRL with PEFT on the cells of cells.py: tokens a second of its SFTTrainer as it comes and as its pages advise, beside ours in the same call.

    python -m benchmarks.speed.peers --out RESULTS.jsonl --bases FOLDER                              8b-lora and 1b-lora-mixed, each way
    python -m benchmarks.speed.peers --out RESULTS.jsonl --bases FOLDER --only 1b-lora-mixed/trl     one of them
    python -m benchmarks.speed.peers --out RESULTS.jsonl --bases FOLDER --tiny                       a rehearsal on a CPU

Nothing of regimen trains here. The same weights, adapters, lengths and samples a step; every token is learned. A step's time is that of the GPU's
queue between the ends of two steps, and its tokens are those that are no padding. Lines that are there are not measured again; one run at a time.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any

from transformers import TrainerControl, TrainerState, TrainingArguments

from benchmarks.speed import alone
from benchmarks.speed.cells import CELLS, LORA, MODELS, Cell, lengths
from benchmarks.speed.measure import finished, make_base, surroundings

NAMES = ("8b-lora", "1b-lora-mixed")
# What SFTConfig is given beside the cell. Advised: reducing memory and speeding up, in TRL's pages; activations fit here, so they are kept.
PEERS: dict[str, dict[str, Any]] = {
    "trl": {},
    "trl-advised": {"bf16": True, "use_liger_kernel": True, "gradient_checkpointing": False},
}
ATTENTION = "sdpa"
KEYS = dict(each.removeprefix("regime.").split("=") for each in LORA)


@dataclass
class Counted:
    """A collator, and the tokens without padding of each batch that it made in this process."""

    collate: Callable[[list[dict[str, Any]]], Any]
    tokens: list[int]

    def __call__(self, rows: list[dict[str, Any]]) -> Any:
        self.tokens.append(sum(len(row["input_ids"]) for row in rows))
        return self.collate(rows)


class PeerClock(alone.Clock):
    """As alone.py's, over the steps of a cell."""

    def __init__(self, cell: Cell, tokens: list[int], result: Path) -> None:
        super().__init__(result)
        self.cell, self.tokens = cell, tokens

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.global_step >= self.cell.warm_up:
            self.marks.append(self.mark())

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        seconds = self.step_seconds()
        tokens = self.tokens[self.cell.warm_up : self.cell.warm_up + len(seconds)]
        rates = [count / each for count, each in zip(tokens, seconds, strict=True)]
        found = {
            "tokens_per_second": median(rates),
            "mean_tokens_per_second": round(sum(tokens) / sum(seconds), 1),
            "step_seconds": round(median(seconds), 4),
            "tokens_a_step": round(mean(tokens)),
            "allocated_gib": round(alone.peak().get("allocated", 0) / 2**30, 3),
            "step_times": [round(each, 4) for each in seconds],
            "losses": [entry["loss"] for entry in state.log_history if "loss" in entry],
        }
        self.result.write_text(json.dumps(found))
        os._exit(0)


def train(cell: Cell, peer: str, base: Path, result: Path) -> None:
    """In a process of its own, which ends with the last step."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM
    from trl import SFTConfig, SFTTrainer

    from trainers.model.tokenizer import byte_tokenizer

    on_gpu = torch.cuda.is_available()
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16 if on_gpu else torch.float32, attn_implementation=ATTENTION)
    steps = cell.warm_up + cell.steps
    torch.manual_seed(0)
    cutoff = cell.cutoff if on_gpu else 128
    rows = [torch.randint(0, 256, (min(size, cutoff),)).tolist() for size in lengths(cell, cell.rows * (steps + 2))]
    choices = PEERS[peer] if on_gpu else {"use_cpu": True, "bf16": False}
    config = SFTConfig(
        **{"output_dir": str(result.parent / "trl"), "per_device_train_batch_size": cell.rows, "max_steps": steps, "max_length": cell.cutoff},
        **{"report_to": "none", "save_strategy": "no", "disable_tqdm": True, "logging_steps": 1, **choices},
    )
    adapter = LoraConfig(
        **{"r": int(KEYS["rank"]), "lora_alpha": int(KEYS["alpha"]), "lora_dropout": 0.0, "target_modules": "all-linear"}, task_type="CAUSAL_LM"
    )
    trainer = SFTTrainer(
        model=model, args=config, train_dataset=Dataset.from_dict({"input_ids": rows}), processing_class=byte_tokenizer(), peft_config=adapter
    )
    counted = Counted(trainer.data_collator, [])
    trainer.data_collator = counted
    trainer.add_callback(PeerClock(cell, counted.tokens, result))
    trainer.train()


def measure(cell: Cell, peer: str, arguments: argparse.Namespace) -> dict[str, Any]:
    base, result = arguments.bases / MODELS[cell.model], arguments.work / "peer.json"
    make_base(cell, base, arguments.tiny)
    result.unlink(missing_ok=True)
    command = [sys.executable, "-m", "benchmarks.speed.peers", "--train", f"{cell.name}/{peer}", "--bases", str(base), "--out", str(result)]
    began = time.monotonic()
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=arguments.cell_seconds, check=False)
        code, said = ended.returncode, ended.stdout + ended.stderr
    except subprocess.TimeoutExpired as late:
        code, said = 124, str(late)
    line = {"cell": f"{cell.name}/{peer}", "exit_code": code, "seconds": round(time.monotonic() - began, 1), "settings": PEERS[peer]}
    if code or not result.exists():
        return {**line, "exit_code": code or 1, "error": said[-2500:]}
    return {**line, "attention": ATTENTION, **json.loads(result.read_text())}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--bases", type=Path, required=True)
    parser.add_argument("--only", nargs="*", default=[f"{name}/{peer}" for name in NAMES for peer in PEERS])
    parser.add_argument("--work", type=Path, default=Path("/tmp/regimen-peers"))
    parser.add_argument("--seconds", type=float, default=1e9, help="start no run after this time")
    parser.add_argument("--cell-seconds", type=float, default=120)
    parser.add_argument("--train", help=argparse.SUPPRESS)
    parser.add_argument("--tiny", action="store_true")
    arguments = parser.parse_args()
    cells = {cell.name: cell for cell in CELLS}
    if arguments.train:
        name, peer = arguments.train.split("/")
        train(cells[name], peer, arguments.bases, arguments.out)
        return 1
    arguments.work.mkdir(parents=True, exist_ok=True)
    began, facts, done = time.monotonic(), surroundings(), finished([arguments.out])
    for each in arguments.only:
        name, peer = each.split("/")
        if each in done or time.monotonic() - began > arguments.seconds:
            continue
        line = measure(cells[name], peer, arguments)
        with arguments.out.open("a") as file:
            file.write(json.dumps({**line, "surroundings": facts}) + "\n")
        print(each, line.get("tokens_per_second") or line.get("error"), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
