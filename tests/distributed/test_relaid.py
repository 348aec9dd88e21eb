"""A run goes on under another sharding and on other ranks: the same weights and states, the same rows, the same losses within rounding."""

import json
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from trainers.checkpoints.pickles import admit
from trainers.checkpoints.saved import Part, Saved, read_saved

pytestmark = [pytest.mark.distributed, pytest.mark.long]

SCRIPT = Path(__file__).with_name("run_relaid_cells.py")
STEP = 2
BATCH = 12  # divides by 1, 2, 3 and 4 ranks
LENGTH = ("training.max_steps=4", "data.max_samples=128", "optim.weight_decay=0.1")


@dataclass(frozen=True)
class Move:
    before: str
    after: str
    ranks: int = 2
    regime: str = "full_fp32"


FP32 = ("ddp", "fsdp2", "zero2", "zero3")  # the order in which one process can have them, as tests/distributed/cells.py says
MOVES = [
    *(Move(before, after) for after in FP32 for before in FP32 if before != after),
    Move("zero2", "zero1"),
    *(
        Move(before, after, 2, regime)
        for regime in ("full_amp", "lora")
        for before, after in (("zero2", "zero3"), ("ddp", "zero2"), ("zero3", "ddp"))
    ),
    Move("zero3", "zero2", 2, "full_bf16"),
    *(Move(before, after, ranks) for ranks in (1, 3) for before, after in (("zero2", "zero3"), ("zero3", "zero3"), ("zero3", "ddp"))),
    *(Move("zero2", after, 4) for after in ("zero2", "zero3")),
    Move("zero2", "fsdp2", 3),
]
# Of losses, relative. 16 bits: plain ranks keep fp32 weights and cast them for each product, DeepSpeed computes with weights of 16 bits.
TOLERANCE = {"full_fp32": 1e-6, "lora": 1e-6, "full_amp": 1e-2, "full_bf16": 1e-2}


def keys(ranks: int) -> tuple[str, ...]:
    return (*LENGTH, f"cluster.ranks_per_node={ranks}", f"training.micro_batch={BATCH // ranks}", f"training.effective_batch={BATCH}")


@pytest.fixture(scope="module")
def moved(cells: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> dict[Move, tuple[Any, Any]]:
    """What each run left that went on to its end as it was, and what the one left that moved at step 2."""
    root = tmp_path_factory.mktemp("relaid")
    wanted = sorted({(FP32.index(move.before), move.before, move.regime) for move in MOVES})
    sources = {(before, regime): cells.Cell(regime, before, further=keys(2)) for _, before, regime in wanted}
    found: dict[Move, tuple[Any, Any]] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cells, "SCRIPT", SCRIPT)
        left = cells.run_cells([*sources.values()], root, "torchrun")
        for ranks in (2, 1, 3, 4):
            moves = [move for move in MOVES if move.ranks == ranks]
            targets = {move: cells.Cell(move.regime, move.after, further=keys(ranks)) for move in moves}
            for move, cell in targets.items():
                first = left[sources[move.before, move.regime]]
                found[move] = (first, cells.going_on(cell, first, STEP, f"{move.after}-on-{ranks}"))
            order = sorted(moves, key=lambda move: move.after.startswith("zero") * 2 + (move.after == "fsdp2"))
            cells.train_folders(targets[order[0]], [found[move][1] for move in order], root, "torchrun")
    return found


def rows_of(left: Any) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for path in left.folder.rows_file(0).parent.glob("rank-*.jsonl"):
        for line in map(json.loads, path.read_text().splitlines()):
            found[line["step"]] = sorted([*found.get(line["step"], []), *line["rows"]])
    return found


def saved_in(folder: Path, order: list[str], saved_as: dict[str, str]) -> Saved:
    admit(folder)
    return read_saved(folder, order, saved_as)


def flat(parts: list[Part]) -> torch.Tensor:
    return torch.cat([part[: part.numel()] for part in parts])


@pytest.mark.parametrize("move", MOVES, ids=lambda move: f"{move.regime}-{move.before}-{move.after}-{move.ranks}")
def test_a_run_that_moves_goes_on_as_if_it_had_not(moved: dict[Move, tuple[Any, Any]], move: Move) -> None:
    stayed, left = moved[move]
    log = left.folder.rank_log(0)
    assert [entry["code"] for entry in left.exits] == [0] * move.ranks, log.read_text()[-3000:] if log.exists() else left.exits
    assert left.losses == pytest.approx(stayed.losses[STEP:], rel=TOLERANCE[move.regime])
    assert rows_of(left) == {step: rows for step, rows in rows_of(stayed).items() if step > STEP}
    loaded = left.folder.path / "as-loaded"
    names = json.loads((loaded / "names.json").read_text())
    before, after = saved_in(stayed.folder.checkpoint(STEP), *names), saved_in(loaded, *names)
    assert set(names[0]) == {name for name in after if name in names[0]} != set()
    for name in names[0]:
        assert before[name].step == after[name].step == STEP
        assert before[name].parts.keys() == after[name].parts.keys() == {"weight", "exp_avg", "exp_avg_sq"}
        for key, parts in before[name].parts.items():
            assert torch.equal(flat(parts), flat(after[name].parts[key])), (name, key)
