"""A batch for which there is no memory: the rank's end says which samples it had, what was held and predicted, and what helps.

No test on a CPU can exhaust a GPU: here the model itself raises what torch's allocator would, above a number of tokens.
"""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState, GradientState

import trainers.run
from conf.committed import committed, step_of
from conf.exit_codes import OUT_OF_MEMORY
from conf.run_dir import RunDir, load_run, save_run
from tests.described import described
from tests.trainers.conftest import REGIMES, TINY
from trainers.ranks.causes import cause_of
from trainers.ranks.place import Place

LONG = " ".join(["word"] * 60)
ROWS = [*({"instruction": f"Say {number}.", "output": f"{number}."} for number in range(30)), {"instruction": "A long one.", "output": LONG}]


def run_in(folder: Path, *overrides: str) -> RunDir:
    (folder / "rows.json").write_text(json.dumps(ROWS))
    data = ("data=files", f"data.folder={folder}", "data.sets=[rows.json]", "data.template=chatml", "data.validation_share=0", "data.cutoff=512")
    run = described(*TINY, *REGIMES["full"], *data, f"data.cache={folder / 'cache'}", "training.max_steps=8", "checkpoint.interval=1", *overrides)
    run_dir = RunDir(folder / "run")
    run_dir.path.mkdir()
    save_run(run, run_dir)
    return run_dir


def exhausted_above(tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    build = trainers.run.build

    def with_limit(*given: Any) -> Any:
        trainer = build(*given)

        def refuse(module: torch.nn.Module, positional: tuple[Any, ...], named: dict[str, Any]) -> None:
            if module.training and named["input_ids"].numel() > tokens:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

        trainer.model.register_forward_pre_hook(refuse, with_kwargs=True)
        return trainer

    monkeypatch.setattr(trainers.run, "build", with_limit)


def end_of(run_dir: RunDir, **portions: Any) -> tuple[int, str]:
    """As a rank ends: its exit code and its sentence."""
    run = load_run(run_dir)
    run = replace(run, training=replace(run.training, **portions))
    shutil.rmtree(run_dir.exits, ignore_errors=True)
    AcceleratorState._reset_state()
    GradientState._reset_state()
    try:
        return trainers.run.train(run, run_dir, Place(0, 0, 1))
    except BaseException as error:  # noqa: BLE001 - as trainers/__main__.py
        return cause_of(error)


def test_the_end_names_step_samples_memory_and_what_helps_and_that_is_true(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_dir = run_in(tmp_path)
    run_dir.plan.write_text(json.dumps({"memory": {"allocated": 2**30, "host": 3 * 2**30}}))
    exhausted_above(600, monkeypatch)
    code, said = end_of(run_dir)
    assert code == OUT_OF_MEMORY
    made = max((step_of(path) for path in committed(run_dir)), default=0)
    assert said.startswith(f"Out of memory at step {made + 1}, training: ")
    assert "CUDA out of memory. Tried to allocate 2.00 GiB. The micro-batch had 4 texts of " in said
    assert 'the longest begins with "<|im_start|>' in said
    assert re.search(r"This rank's rows of the step are \d+, \d+, \d+, \d+\. ", said)
    assert "GiB of host memory, and 3.00 GiB were predicted for all ranks of a node." in said
    assert said.endswith("Resume with training.micro_batch=2 or training.gradient_checkpointing=true: each step keeps its samples.")
    run_dir.plan.unlink()  # this one says too little for a finished run
    assert end_of(run_dir, micro_batch=1, accumulation=4) == (0, "finished")


def test_nothing_is_kept_of_a_batch_that_has_passed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_dir = run_in(tmp_path, "training.max_steps=1")
    build, seen = trainers.run.build, []
    monkeypatch.setattr(trainers.run, "build", lambda *given: seen.append(build(*given)) or seen[-1])
    assert end_of(run_dir) == (0, "finished")
    watched = seen[0].training_step.__closure__
    last = next(cell.cell_contents for cell in watched if isinstance(cell.cell_contents, trainers.run.LastBatch))
    assert last.inputs is None
