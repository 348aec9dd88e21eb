"""F11: a file of a committed checkpoint is rewritten so that loading it runs a command, and the manifest with it. How many commands run?

`PYTHONPATH=. python benchmarks/reliability/pickles.py --trials 60 --out benchmarks/results/reliability/pickles.jsonl`; `--first 60` goes on.
Each trial resumes a copy of one run by a rank of its own (trainers/__main__.py, in a fork that has imported it). The file is one that this run
loads, or one that another sharding or an older version would have left; the command has several forms. Held: the command did not run, and the rank
ended with 77, or it finished without having loaded the file. --broken loads states without weights_only, as DeepSpeed asks torch to, and looks at
no names.
"""

import io
import os
import pickle
import random
import shutil
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from benchmarks.reliability.trials import arguments, child, run
from conf.committed import MANIFEST, committed, faults
from conf.exit_codes import DONE, UNSAFE
from conf.reserve import RUN_BYTES, reserve
from conf.run_dir import RunDir, save_run
from tests.described import described
from trainers import __main__ as rank
from trainers import run as training  # noqa: F401 - imported once, for all forks
from trainers.checkpoints.commit import seal

RUN = (
    *("model=demo", "data=demo", "data.max_samples=16", "data.validation_share=0", "node=cpu", "cluster.ranks_per_node=1", "training.precision=fp32"),
    *("regime=full", "sharding=ddp", "training.micro_batch=2", "training.max_steps=3", "checkpoint.interval=2", "optim.warmup=0"),
    *("model.architecture.hidden_size=32", "model.architecture.intermediate_size=64", "evaluation.interval=0", "evaluation.answers=0"),
)
OWN = ("optimizer.pt", "scheduler.pt", "rng_state.pth")  # what this run loads
FOREIGN = (
    *("training_args.bin", "pytorch_model.bin", "adapter_model.bin", "scaler.pt", "optimizer_0/.metadata", "optimizer_0/__0_0.distcp"),
    *("global_step2/zero_pp_rank_0_mp_rank_00_optim_states.pt", "global_step2/mp_rank_00_model_states.pt", "a_file_of_a_later_version"),
)


class Payload:
    """Calls `call` with `given` while it is loaded."""

    def __init__(self, call: Callable[..., Any], *given: Any) -> None:
        self.call, self.given = call, given

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call, self.given


def system(mark: Path) -> Payload:
    return Payload(os.system, f"touch {mark}")


def executed(mark: Path) -> Payload:
    return Payload(exec, f"open({str(mark)!r}, 'w')")


def opened(mark: Path) -> Payload:
    return Payload(open, str(mark), "w")


def from_within(mark: Path) -> Payload:
    """The bytes of another pickle, loaded by the first."""
    return Payload(pickle.loads, pickle.dumps(system(mark)))


CALLS = (system, executed, opened, from_within)


def saved(state: Any) -> bytes:
    held = io.BytesIO()
    torch.save(state, held)
    return held.getvalue()


def saved_without_zip(state: Any) -> bytes:
    held = io.BytesIO()
    torch.save(state, held, _use_new_zipfile_serialization=False)
    return held.getvalue()


FORMS: dict[str, Callable[[Any], bytes]] = {
    "torch.save": saved,
    "torch.save without zip": saved_without_zip,
    **{f"pickle protocol {protocol}": lambda state, protocol=protocol: pickle.dumps(state, protocol) for protocol in (0, 2, 4)},
}


def begun(run_dir: RunDir) -> RunDir:
    for folder in (run_dir.checkpoints, run_dir.logs, run_dir.exits, run_dir.layouts, run_dir.peaks):
        folder.mkdir(parents=True, exist_ok=True)
    reserve(run_dir.reserve, RUN_BYTES)
    save_run(described(*RUN, f"data.cache={run_dir.path.parent}/cache"), run_dir)
    return run_dir


def trained(run_dir: RunDir, broken: bool = False) -> int:
    """The exit status of a rank in a process of its own."""
    shutil.rmtree(run_dir.exits)
    run_dir.exits.mkdir()

    def act() -> int:
        sys.argv = ["trainers", str(run_dir.path)]
        with ExitStack() as taken_out:
            if broken:
                for name in ("trainers.run.load_only_weights", "trainers.run.admit"):
                    taken_out.enter_context(mock.patch(name))
                load = torch.load
                taken_out.enter_context(mock.patch("torch.load", lambda *given, **named: load(*given, **{**named, "weights_only": False})))
            return rank.main()

    return os.waitstatus_to_exitcode(os.waitpid(child(act), 0)[1])


def trial(number: int, seed: int, broken: bool, whole: RunDir) -> dict[str, Any]:
    chance = random.Random(f"{seed}:{number}")
    name = chance.choice(OWN if number % 2 == 0 else FOREIGN)
    form, call = chance.choice([*FORMS]), chance.choice(CALLS)
    with tempfile.TemporaryDirectory(prefix="regimen-trial-") as place:
        run_dir, mark = RunDir(shutil.copytree(whole.path, Path(place) / "run")), Path(place) / "ran"
        checkpoint = committed(run_dir)[0]
        path = checkpoint / name
        state = torch.load(path, weights_only=False) if name in OWN else {"weight": torch.ones(2)}  # what we wrote ourselves a moment ago
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(FORMS[form]({**state, "further": call(mark)}))
        (checkpoint / MANIFEST).unlink()
        seal(checkpoint, 2, 1)
        landed = not faults(checkpoint)
        code = trained(run_dir, broken)
        ran = mark.exists()
    held = not ran and (code == UNSAFE or (code == DONE and name in FOREIGN))
    why = f"{name} as {form}, {call.__name__}: exit code {code}, the command {'ran' if ran else 'did not run'}"
    return {"file": name, "form": form, "call": call.__name__, "code": code, "ran": ran, "landed": landed, "held": held, "why": why}


def main() -> int:
    options = arguments(__doc__ or "").parse_args()
    with tempfile.TemporaryDirectory(prefix="regimen-run-") as place:
        whole = begun(RunDir(Path(place) / "run"))
        code = trained(whole)
        if code != DONE:
            print(whole.rank_log(0).read_text()[-2000:], file=sys.stderr)
            return 1
        shutil.rmtree(whole.model)
        shutil.rmtree(whole.checkpoint(3))  # what is resumed is not finished
        return run(options, "F11 pickles", lambda number, seed: trial(number, seed, options.broken, whole))


if __name__ == "__main__":
    sys.exit(main())
