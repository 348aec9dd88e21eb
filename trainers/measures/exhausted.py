"""Out of memory in a step: which step, which samples, what was held and what was predicted.

Shown on CPUs by an error that a test raises where a model would; how much of a GPU is held is torch's own count (docs/reference/measured_memory.md).
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase, Trainer

from conf.run_dir import RunDir
from conf.schema import Run
from trainers.measures.host import held
from trainers.ranks.causes import OutOfMemory, first_line, is_out_of_memory

IDS, MASK, POSITIONS = "input_ids", "attention_mask", "position_ids"
SHOWN = 60  # characters of the longest sample
MOST = 8  # lengths that are listed
GIB = 2**30


class LastBatch:
    """What passes through the model now; nothing is held once it has passed."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self.inputs: Any = None
        self.doing = "between two passes"
        trainer.training_step = self.watching(trainer.training_step, "training")
        trainer.prediction_step = self.watching(trainer.prediction_step, "evaluating")

    def watching(self, step: Callable[..., Any], doing: str) -> Callable[..., Any]:
        def watched(model: torch.nn.Module, inputs: Any, *further: Any, **named: Any) -> Any:
            self.inputs, self.doing = inputs, doing
            result = step(model, inputs, *further, **named)
            self.inputs, self.doing = None, "between two passes"
            return result

        return watched


@contextmanager
def telling_out_of_memory(last: LastBatch, run: Run, run_dir: RunDir, tokenizer: PreTrainedTokenizerBase) -> Iterator[None]:
    """Raises OutOfMemory with all that is known, in the place of an error that says how much could not be allocated."""
    try:
        yield
    except BaseException as error:
        if not is_out_of_memory(error):
            raise
        step = last.trainer.state.global_step + (last.doing != "evaluating")
        raise OutOfMemory(
            f"Out of memory at step {step}, {last.doing}: {first_line(error) or 'host memory is exhausted.'} "
            f"{batch_sentence(last.inputs, tokenizer)}{rows_sentence(last)}{peak_sentence(run_dir)}{what_helps(run)}"
        ) from error


def what_helps(run: Run) -> str:
    """Without another run; the launcher prints what it estimates to fit."""
    training = run.training
    keys = [f"training.micro_batch={max(1, training.micro_batch // 2)}"] if training.micro_batch > 1 else []
    keys += [] if training.gradient_checkpointing is True else ["training.gradient_checkpointing=true"]
    return f" Resume with {' or '.join(keys)}: each step keeps its samples." if keys else " Start a new run with a lower data.cutoff."


def batch_sentence(inputs: Any, tokenizer: PreTrainedTokenizerBase) -> str:
    """Lengths of the samples that were passing, and how the longest begins; empty where none were."""
    samples = samples_of(inputs)
    if not samples:
        return ""
    lengths = sorted((len(ids) for ids in samples), reverse=True)
    listed = f"{', '.join(map(str, lengths[:MOST]))} tokens" + (f" and {len(lengths) - MOST} shorter ones" if len(lengths) > MOST else "")
    begins = tokenizer.decode(max(samples, key=len)[:SHOWN])[:SHOWN]
    many = f"{len(lengths)} texts" if len(lengths) != 1 else "1 text"
    return f"The micro-batch had {many} of {listed}; the longest begins with {json.dumps(begins, ensure_ascii=False)}. "


def rows_sentence(last: LastBatch) -> str:
    """The rows of the prepared data, from 0, that this rank takes in the step; empty outside of a training step."""
    rows = list(getattr(last.trainer, "step_rows", ())) if last.doing == "training" else []
    listed = ", ".join(map(str, rows[:MOST])) + (f" and {len(rows) - MOST} more" if len(rows) > MOST else "")
    return f"This rank's rows of the step are {listed}. " if rows else ""


def samples_of(inputs: Any) -> list[list[int]]:
    """The token ids of each text in a batch, without padding. A batch of a stage that makes its own rows has none."""
    if not isinstance(inputs, Mapping):
        return []
    found: list[list[int]] = []
    for name, ids in inputs.items():
        if name.endswith(IDS) and isinstance(ids, Tensor) and ids.dim() == 2:
            found += texts(ids.cpu(), inputs.get(name.replace(IDS, MASK)), inputs.get(POSITIONS) if name == IDS else None)
    return found


def texts(ids: Tensor, mask: Any, positions: Any) -> list[list[int]]:
    """Rows without what is masked, cut where positions begin again: at the samples of a packed row."""
    rows = []
    for number, row in enumerate(ids):
        kept = mask[number].cpu().bool() if isinstance(mask, Tensor) and mask.shape == ids.shape else torch.ones_like(row, dtype=torch.bool)
        starts = (positions[number].cpu()[kept] == 0).nonzero().flatten().tolist() if isinstance(positions, Tensor) else []
        rows += pieces(row[kept].tolist(), starts)
    return rows


def pieces(row: list[int], starts: Sequence[int]) -> list[list[int]]:
    borders = sorted({0, *starts, len(row)})
    return [row[begin:end] for begin, end in pairwise(borders)]


def peak_sentence(run_dir: RunDir) -> str:
    """What this rank held at its highest, beside what was predicted for it."""
    memory = json.loads(run_dir.plan.read_text(encoding="utf-8"))["memory"] if run_dir.plan.exists() else {}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        found, name = torch.cuda.max_memory_allocated(), "allocated"
        beside = f", and {memory[name] / GIB:.2f} GiB were predicted as its peak" if memory else ""
        return f"This rank had allocated {found / GIB:.2f} GiB{beside}."
    beside = f", and {memory['host'] / GIB:.2f} GiB were predicted for all ranks of a node" if memory else ""
    return f"This rank holds {held().fixed / GIB:.2f} GiB of host memory{beside}."
