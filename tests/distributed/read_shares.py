"""Under torchrun: the ranks of FSDP2 read the model in FOLDER once share by share and once whole, and save it in shards and file by file. Rank 0
prints what each held and what differs, as JSON.

python -m torch.distributed.run --standalone --nproc-per-node=2 tests/distributed/read_shares.py FOLDER
"""

import gc
import json
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from run_fsdp_cells import split_on_cpus
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel, Trainer, TrainingArguments

from trainers.arguments import fsdp_config
from trainers.checkpoints import streamed
from trainers.checkpoints.saved import WEIGHT, read_saved
from trainers.checkpoints.shards import save_in_shards
from trainers.checkpoints.streamed import write_file_by_file
from trainers.measures.host import HostPeaks, held
from trainers.model.shares import read_shares, without_weights
from trainers.ranks.agreement import total

FILE = 40_000_000  # bytes, in place of WEIGHTS_FILE: the model is of eleven such files


def loaded(folder: str, arguments: TrainingArguments, by_shares: bool) -> tuple[Trainer, int]:
    """A trainer with the model, and the most bytes that this rank came to hold more than before."""
    gc.collect()
    before, peaks = held().fixed, HostPeaks()
    peaks.watch()
    with without_weights() if by_shares else nullcontext():
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    trainer = Trainer(model=model, args=arguments)
    read_shares(trainer)
    if not by_shares:
        trainer.accelerator.prepare(model, torch.optim.SGD(model.parameters()))
    peaks.end("load")
    return trainer, peaks.by_phase["load"].fixed - before


def parts_of(trainer: Trainer) -> dict[str, Tensor]:
    """This rank's part of each weight and of each state."""
    parts = {name: weight.to_local().clone() for name, weight in trainer.model.named_parameters()}
    states = {} if trainer.optimizer is None else {name: trainer.optimizer.state[weight] for name, weight in trainer.model.named_parameters()}
    return parts | {f"{name}.{key}": value.to_local().clone() for name, state in states.items() for key, value in state.items() if key != "step"}


def step(trainer: Trainer) -> None:
    """Weights that no file has, and states."""
    for weight in trainer.model.parameters():
        weight.grad = weight.detach().clone() + 0.1
    trainer.optimizer.step()
    trainer.optimizer.zero_grad()


def saved(trainer: Trainer, folder: Path) -> int:
    """The most bytes that this rank came to hold more than before."""
    save_in_shards()
    write_file_by_file(trainer)
    trainer.create_scheduler(1, trainer.optimizer)
    gc.collect()
    before, peaks = held().fixed, HostPeaks()
    peaks.watch()
    trainer.save_model(str(folder))
    trainer._save_optimizer_and_scheduler(str(folder))
    peaks.end("save")
    return peaks.by_phase["save"].fixed - before


def differing(trainer: Trainer, folder: Path) -> list[str]:
    """Tensors of the checkpoint, read as a model, as a checkpoint of another layout, and into what was emptied before, that are not the trainer's."""
    weights = dict(trainer.model.named_parameters())
    wanted = {name: weight.full_tensor() for name, weight in weights.items()}
    states = {
        name: {key: value.full_tensor() for key, value in state_of(trainer, weight).items() if key != "step"} for name, weight in weights.items()
    }
    model = AutoModelForCausalLM.from_pretrained(folder)
    found = [f"model: {name}" for name, weight in model.named_parameters() if not torch.equal(weight, wanted[name])]
    laid = read_saved(folder, [], {})
    for name, whole in wanted.items():
        for key, value in {WEIGHT: whole, **states[name]}.items():
            if not torch.equal(torch.cat([part[:] for part in laid[name].parts[key]]), value.reshape(-1)) or laid[name].step != 1:
                found.append(f"laid out: {name} {key}")
    before = parts_of(trainer)
    with torch.no_grad():
        for weight in weights.values():
            weight.zero_()
    trainer.optimizer = torch.optim.AdamW(trainer.model.parameters(), lr=0.1)
    trainer._load_from_checkpoint(str(folder))
    trainer._load_optimizer_and_scheduler(str(folder))
    after = parts_of(trainer)
    return [*found, *(f"loaded: {name}" for name, part in before.items() if not torch.equal(part, after[name]))]


def state_of(trainer: Trainer, weight: Any) -> dict[str, Any]:
    state: dict[str, Any] = trainer.optimizer.state[weight]
    return state


def main() -> None:
    split_on_cpus()
    streamed.WEIGHTS_FILE = FILE
    folder = sys.argv[1]
    settings: Any = type("Settings", (), {"reshard_after_forward": True})()
    arguments = TrainingArguments(
        output_dir=str(Path(folder) / "out"), use_cpu=True, report_to=[], fsdp=True, fsdp_config=fsdp_config(settings, None)
    )
    loaded(folder, arguments, by_shares=True)  # what is imported and set up by the first of all is no part of a model
    split, of_shares = loaded(folder, arguments, by_shares=True)
    shares = parts_of(split)
    trainer, of_whole = loaded(folder, arguments, by_shares=False)
    whole = parts_of(trainer)
    differ = [name for name, part in whole.items() if not torch.equal(part, shares[name])]
    del trainer, whole
    split.optimizer = torch.optim.AdamW(split.model.parameters(), lr=0.1)
    step(split)
    made = Path(folder, "out", "step-1")
    of_save = saved(split, made)
    wrong = differing(split, made)
    sums = total(torch.tensor([len(differ), sum(part.numel() for part in shares.values()), len(wrong)], dtype=torch.float64)).tolist()
    peaks = total(torch.tensor([of_shares, of_whole, of_save], dtype=torch.float64)).tolist()
    if torch.distributed.get_rank() == 0:
        print(wrong, file=sys.stderr)
        counted = {"differ": sums[0], "compared": len(shares), "elements": sums[1], "wrong": sums[2]}
        print(json.dumps({**counted, "shares": peaks[0], "whole": peaks[1], "save": peaks[2]}), flush=True)


if __name__ == "__main__":
    main()
