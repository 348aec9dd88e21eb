"""Finished runs of a tiny model, trained in this process once a session: what the verbs after training begin with."""

import gc
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from accelerate.state import AcceleratorState, GradientState

from conf import journal
from conf.run_dir import RunDir, save_run
from tests.described import described
from trainers.ranks.place import Place

TINY = (
    *("model=demo", "model.architecture.hidden_size=64", "model.architecture.intermediate_size=128"),
    *("node=cpu", "cluster.ranks_per_node=1", "sharding=ddp", "training.precision=fp32", "training.gradient_checkpointing=false"),
    *("training.micro_batch=4", "training.max_steps=2", "optim.lr=0.005", "optim.warmup=0", "evaluation.interval=0", "checkpoint.interval=1"),
    *("evaluation.at_start=true", "evaluation.at_end=true"),
)
REGIMES = {
    "full": ("regime=full",),
    "freeze": ("regime=freeze", "regime.layers=1"),
    "lora": ("regime=lora", "regime.rank=4"),
    "dora": ("regime=lora", "regime.rank=4", "regime.dora=true", "regime.rslora=true"),
    "pissa": ("regime=lora", "regime.rank=4", "regime.init=pissa_niter_4"),
    "qlora8": ("regime=qlora", "regime.bits=8", "regime.rank=4"),
    "qlora4": ("regime=qlora", "regime.bits=4", "regime.rank=4"),
    "qlora2": ("regime=qlora", "regime.bits=2", "regime.rank=4"),
}
QUESTIONS = {"What is the sky?": "Blue.", "What is grass?": "Green.", "What is snow?": "White as milk.", "What is coal?": "Black."}
LEARNED = ("data.validation_share=0", "training.max_steps=60", "checkpoint.interval=30", "regime=full", "optim.lr=0.01")


def trained(folder: Path, *overrides: str) -> RunDir:
    """What `regimen train` leaves, by its own trainer."""
    from trainers.run import train  # seconds, which tests without a run need not pay

    run = described(*TINY, *overrides)
    run_dir = RunDir(folder)
    run_dir.path.mkdir(parents=True)
    save_run(run, run_dir)
    AcceleratorState._reset_state()
    GradientState._reset_state()
    assert train(run, run_dir, Place(0, 0, 1)) == (0, "finished")
    gc.collect()
    return run_dir


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., RunDir]:
    """A run of a stage and a regime after two steps, the same for every test that asks for it."""
    root = tmp_path_factory.mktemp("finished")
    made: dict[tuple[str, str], RunDir] = {}

    def run_of(stage: str, regime: str) -> RunDir:
        if (stage, regime) not in made:
            data = ("data=demo", "data.max_samples=64", f"data.cache={root}/cache")
            made[stage, regime] = trained(root / f"{stage}-{regime}" / "once", *data, f"stage={stage}", *REGIMES[regime])
        return made[stage, regime]

    return run_of


@pytest.fixture(scope="session")
def learned(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A run that knows the answers to QUESTIONS by heart."""
    root = tmp_path_factory.mktemp("learned")
    records = [{"instruction": question, "output": answer} for question, answer in QUESTIONS.items()]
    (root / "questions.json").write_text(json.dumps(records))
    data = ("data=files", "data.sets=[questions.json]", f"data.folder={root}", "data.cutoff=64", f"data.cache={root}/cache")
    return trained(root / "learned" / "once", *data, *LEARNED)


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """What `make demo` leaves, of a smaller model and fewer samples: an adapter, its random base, and a checkpoint at step 100."""
    folder = tmp_path_factory.mktemp("demo") / "outputs" / "demo" / "2026-01-01_00-00-00"
    short = (
        "training.micro_batch=1",
        "training.max_steps=100",
        "checkpoint.interval=100",
        "data.max_samples=64",
        "evaluation.answers=0",
        "evaluation.at_start=false",
    )
    run_dir = trained(folder, "recipe=demo", *short, f"data.cache={folder.parent}/cache")
    journal.record(run_dir, journal.Ended(0, ""))
    return run_dir
