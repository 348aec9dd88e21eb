"""F2 beside peers: SIGKILL inside a save of a real training process, then the start that goes on, at each system's recommended settings.

    PYTHONPATH=. python benchmarks/reliability/peers_in_save.py --system trainer --trials 20 --out RESULTS.jsonl       HF Trainer
    PYTHONPATH=. python benchmarks/reliability/peers_in_save.py --system accelerate --trials 20 --out RESULTS.jsonl    Accelerate
    PYTHONPATH=. python benchmarks/reliability/peers_in_save.py --system regimen --trials 20 --out RESULTS.jsonl       a rank of this project

All train a small llama with AdamW on a CPU, save every step and keep two checkpoints. HF Trainer goes on by resume_from_checkpoint=True,
Accelerate by load_state() with automatic_checkpoint_naming. A process is killed within a save that has two whole checkpoints before it, at a
random share of the time that the save before it took; the kill landed where the last file of that save was not there, or, here, its commit.
It held where the next start ends by itself with the weights of a run that nobody disturbed. There is no broken variant: the peers are what
must be told apart.
"""

import hashlib
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import ProjectConfiguration
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

from benchmarks.reliability.trials import arguments, child, run
from conf.exit_codes import DONE
from conf.reserve import RUN_BYTES, reserve
from conf.run_dir import RunDir, save_run
from tests.described import described
from trainers import __main__ as rank
from trainers import run as training  # noqa: F401 - imported once, for all forks

STEPS, BEFORE = 6, 2
SHAPE = {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 4}
LATEST = 300.0  # seconds until a process must have ended
PAUSE = 0.0005
OURS = (
    *("model=demo", "data=demo", "data.max_samples=64", "node=cpu", "cluster.ranks_per_node=1", "training.precision=fp32", "regime=full"),
    *("training.micro_batch=4", f"training.max_steps={STEPS}", "evaluation.interval=0", "checkpoint.interval=1", "optim.warmup=0"),
    *(f"model.architecture.{name}={value}" for name, value in SHAPE.items()),
)


def model_of_peers() -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SHAPE, vocab_size=512))


class Rows(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    def __len__(self) -> int:
        return 64

    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        tokens = torch.randint(512, (32,), generator=torch.Generator().manual_seed(number))
        return {"input_ids": tokens, "labels": tokens}


def train_with_trainer(folder: Path) -> None:
    settings = TrainingArguments(
        output_dir=str(folder / "saved"),
        save_strategy="steps",
        save_steps=1,
        save_total_limit=2,
        max_steps=STEPS,
        per_device_train_batch_size=4,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
    )
    trainer = Trainer(model=model_of_peers(), args=settings, train_dataset=Rows())
    trainer.train(resume_from_checkpoint=any((folder / "saved").glob("checkpoint-*")) or None)
    save_file({name: value.clone() for name, value in trainer.model.state_dict().items()}, folder / "end.safetensors")


def train_with_accelerate(folder: Path) -> None:
    project = ProjectConfiguration(project_dir=str(folder / "saved"), automatic_checkpoint_naming=True, total_limit=2)
    accelerator = Accelerator(cpu=True, project_config=project)
    model = model_of_peers()
    made = torch.utils.data.DataLoader(Rows(), batch_size=4, shuffle=True, generator=torch.Generator().manual_seed(0))
    model, optimizer, batches = accelerator.prepare(model, torch.optim.AdamW(model.parameters(), lr=1e-4), made)
    done = 0
    saved = sorted((folder / "saved" / "checkpoints").glob("checkpoint_*"), key=lambda path: int(path.name.split("_")[1]))
    if saved:
        accelerator.load_state()
        done = int(saved[-1].name.split("_")[1]) + 1
        accelerator.project_configuration.iteration = done
    epoch = accelerator.skip_first_batches(batches, done) if done else batches
    for batch in epoch:
        if done == STEPS:
            break
        accelerator.backward(model(**batch).loss)
        optimizer.step()
        optimizer.zero_grad()
        accelerator.save_state()
        done += 1
    save_file({name: value.clone() for name, value in accelerator.unwrap_model(model).state_dict().items()}, folder / "end.safetensors")


def begin_ours(folder: Path) -> None:
    run_dir = RunDir(folder)
    for each in (run_dir.checkpoints, run_dir.logs, run_dir.exits, run_dir.layouts, run_dir.peaks):
        each.mkdir(parents=True, exist_ok=True)
    reserve(run_dir.reserve, RUN_BYTES)
    save_run(described(*OURS), run_dir)


def train_ours(folder: Path) -> None:
    for path in RunDir(folder).exits.iterdir():
        path.unlink()
    sys.argv = ["trainers", str(folder)]
    if rank.main() != DONE:
        raise RuntimeError("the rank failed")


@dataclass(frozen=True)
class System:
    train: Callable[[Path], None]
    being_made: str  # folder of the save of a step, while it is made
    last: str  # what is there once that save is over
    first: int  # how the save of step 1 is numbered
    end: str
    begin: Callable[[Path], None] = lambda folder: None


SYSTEMS = {
    "trainer": System(train_with_trainer, "saved/checkpoint-{}", "saved/checkpoint-{}/trainer_state.json", 1, "end.safetensors"),
    "accelerate": System(
        train_with_accelerate, "saved/checkpoints/checkpoint_{}", "saved/checkpoints/checkpoint_{}/random_states_0.pkl", 0, "end.safetensors"
    ),
    "regimen": System(train_ours, "checkpoints/.making/checkpoint-{}", "checkpoints/step-{}", 1, "model/model.safetensors", begin_ours),
}


def started(system: System, folder: Path) -> int:
    """The pid of a process that trains in this folder; what it says is in the file `said`."""

    def act() -> int:
        with (folder / "said").open("ab") as said:
            os.dup2(said.fileno(), 1)
            os.dup2(said.fileno(), 2)
        try:
            system.train(folder)
        except Exception as error:  # noqa: BLE001 - its words are the result of the trial
            print(f"{type(error).__name__}: {error}", flush=True)
            return 1
        return 0

    return child(act)


def ended(pid: int) -> int:
    """The exit status; the process is killed where it does not end."""
    end = time.monotonic() + LATEST
    while time.monotonic() < end:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def undisturbed(system: System, folder: Path) -> str:
    """Hash of the weights at the end."""
    system.begin(folder)
    if ended(started(system, folder)):
        raise RuntimeError(f"the undisturbed run failed: {(folder / 'said').read_text()[-2000:]}")
    return weights(folder / system.end)


def until(holds: Callable[[], bool], pid: int) -> float:
    end = time.monotonic() + LATEST
    while not holds():
        if time.monotonic() > end:
            os.kill(pid, signal.SIGKILL)
            raise TimeoutError(f"nothing was saved within {LATEST:.0f} s")
        time.sleep(PAUSE)
    return time.monotonic()


def weights(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else "none"


def save_seconds(system: System, folder: Path, step: int, pid: int) -> float:
    """How long the save of a step takes, from its first file to its last."""
    made, last = folder / system.being_made.format(step), folder / system.last.format(step)
    begun = until(lambda: made.exists() or last.exists(), pid)
    return until(last.exists, pid) - begun


def trial(number: int, seed: int, name: str, reference: str) -> dict[str, Any]:
    chance, system = random.Random(f"{seed} {number}"), SYSTEMS[name]
    step, share = chance.randrange(BEFORE, STEPS - 1) + system.first, chance.random()
    with tempfile.TemporaryDirectory(prefix="peers-", ignore_cleanup_errors=True) as made:
        folder = Path(made)
        system.begin(folder)
        pid = started(system, folder)
        took = save_seconds(system, folder, step - 1, pid)
        until((folder / system.being_made.format(step)).exists, pid)
        time.sleep(share * took)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        landed = not (folder / system.last.format(step)).exists()
        status = ended(started(system, folder))
        same = weights(folder / system.end) == reference
        said = (folder / "said").read_text(errors="replace").strip().splitlines()[-1:]
    why = f"status {status}, same weights: {same}; it said: {said}"
    found = {"system": name, "landed": landed, "held": status == 0 and same, "went_on": status == 0, "same_weights": same}
    return {
        **found,
        "said": "" if status == 0 else " ".join(said)[:300],
        "killed_after": round(share * took, 4),
        "save_seconds": round(took, 4),
        "why": why,
    }


def main() -> int:
    parser = arguments(__doc__ or "")
    parser.add_argument("--system", choices=[*SYSTEMS], required=True)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="undisturbed-", ignore_cleanup_errors=True) as made:
        reference = undisturbed(SYSTEMS[options.system], Path(made))
    return run(options, "F2 beside peers", lambda number, seed: trial(number, seed, options.system, reference))


if __name__ == "__main__":
    sys.exit(main())
