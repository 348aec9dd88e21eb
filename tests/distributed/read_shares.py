"""Under torchrun: the ranks of FSDP2 read the model in FOLDER once share by share and once whole; rank 0 prints what each held, as JSON.

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
from trainers.measures.host import HostPeaks, held
from trainers.model.shares import read_shares, without_weights
from trainers.ranks.agreement import total


def loaded(folder: str, arguments: TrainingArguments, by_shares: bool) -> tuple[dict[str, Tensor], int]:
    """This rank's part of each weight, and the most bytes that this rank came to hold more than before."""
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
    parts = {name: weight.to_local().clone() for name, weight in model.named_parameters()}
    return parts, peaks.by_phase["load"].fixed - before


def main() -> None:
    split_on_cpus()
    folder = sys.argv[1]
    settings: Any = type("Settings", (), {"reshard_after_forward": True})()
    arguments = TrainingArguments(
        output_dir=str(Path(folder) / "out"), use_cpu=True, report_to=[], fsdp=True, fsdp_config=fsdp_config(settings, None)
    )
    loaded(folder, arguments, by_shares=True)  # what is imported and set up by the first of all is no part of a model
    shares, of_shares = loaded(folder, arguments, by_shares=True)
    whole, of_whole = loaded(folder, arguments, by_shares=False)
    differ = [name for name, part in whole.items() if not torch.equal(part, shares[name])]
    sums = total(torch.tensor([len(differ), len(whole), sum(part.numel() for part in shares.values())], dtype=torch.float64)).tolist()
    peaks = total(torch.tensor([of_shares, of_whole], dtype=torch.float64)).tolist()
    if torch.distributed.get_rank() == 0:
        print(json.dumps({"differ": sums[0], "compared": sums[1], "elements": sums[2], "shares": peaks[0], "whole": peaks[1]}), flush=True)


if __name__ == "__main__":
    main()
