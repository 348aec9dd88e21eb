"""A checkpoint is committed whole or not at all, whatever kills the rank; damage is found before it is trained on."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conf.committed import MANIFEST, committed, faults
from conf.run_dir import RunDir
from trainers.checkpoints.commit import choose, clear_leftovers, commit, prune

FILES = {"model.safetensors": b"weights" * 1000, "trainer_state.json": b'{"step": 5}', "global_step5/rank_0.pt": b"states" * 500}
KILLS = 20

# A rank that commits step after step until it is killed; after each it says how long the commit took.
COMMITTER = """
import sys
import time
from pathlib import Path
from conf.run_dir import RunDir
from trainers.checkpoints.commit import commit, prune

run_dir = RunDir(Path(sys.argv[1]))
step = int(sys.argv[2])
while True:
    step += 1
    began = time.monotonic()
    staged = run_dir.checkpoints / ".making" / f"checkpoint-{step}"
    (staged / "part").mkdir(parents=True)
    for number in range(6):
        (staged / "part" / f"{number}.bin").write_bytes(bytes([number, step % 256]) * 5000)
    commit(staged, run_dir, step, 1)
    prune(run_dir, 3, frozenset())
    print(time.monotonic() - began, flush=True)
"""


@pytest.fixture
def run_dir(tmp_path: Path) -> RunDir:
    made = RunDir(tmp_path)
    made.checkpoints.mkdir()
    return made


def stage(run_dir: RunDir, files: dict[str, bytes]) -> Path:
    staged = run_dir.checkpoints / ".making" / "checkpoint"
    for name, content in files.items():
        path = staged / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return staged


def committed_step(run_dir: RunDir, step: int, files: dict[str, bytes] | None = None) -> Path:
    return commit(stage(run_dir, files or FILES), run_dir, step, 2)


def flip_bit(path: Path, position: int, bit: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1 << bit
    path.write_bytes(content)


def names(folders: list[Path]) -> list[str]:
    return [folder.name for folder in folders]


def test_a_committed_checkpoint_is_whole_and_holds_every_file(run_dir: RunDir) -> None:
    checkpoint = committed_step(run_dir, 5)
    assert checkpoint == run_dir.checkpoint(5)
    assert faults(checkpoint) == []
    assert {
        str(path.relative_to(checkpoint)): path.read_bytes() for path in checkpoint.rglob("*") if path.is_file() and path.name != MANIFEST
    } == FILES


def test_checkpoints_are_ordered_by_step_and_not_by_name(run_dir: RunDir) -> None:
    for step in (9, 100, 20):
        committed_step(run_dir, step)
    (run_dir.checkpoints / "step-x").mkdir()
    assert names(committed(run_dir)) == ["step-100", "step-20", "step-9"]


def test_a_rank_killed_at_any_moment_leaves_only_whole_checkpoints(run_dir: RunDir, site_environment: dict[str, str]) -> None:
    chance = random.Random(0)
    last, times_cut_short = 0, 0
    for _ in range(KILLS):
        argv = [sys.executable, "-c", COMMITTER, str(run_dir.path), str(last)]
        child = subprocess.Popen(argv, env=site_environment, stdout=subprocess.PIPE)
        assert child.stdout is not None
        took = float(child.stdout.readline())
        time.sleep(chance.uniform(0.0, 2 * took))
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        left = committed(run_dir)
        assert [faults(checkpoint) for checkpoint in left] == [[]] * len(left)
        assert len(left) <= 4  # three are kept; a kill between commit and prune leaves one more
        times_cut_short += any(path.is_dir() and any(path.iterdir()) for path in run_dir.checkpoints.glob(".*"))
        clear_leftovers(run_dir)
        assert sorted(run_dir.checkpoints.iterdir()) == sorted(left)
        last = int(left[0].name.removeprefix("step-"))
    assert times_cut_short > 0
    assert last >= KILLS


@pytest.mark.parametrize("name", FILES)
def test_one_flipped_bit_is_found(name: str, run_dir: RunDir) -> None:
    checkpoint = committed_step(run_dir, 5)
    flip_bit(checkpoint / name, len(FILES[name]) // 2)
    assert faults(checkpoint) == [f"{checkpoint / name} was changed since it was saved (its hash differs)"]


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file_is_found(name: str, run_dir: RunDir) -> None:
    checkpoint = committed_step(run_dir, 5)
    os.truncate(checkpoint / name, 3)
    assert faults(checkpoint) == [f"{checkpoint / name} has 3 bytes instead of {len(FILES[name])}"]


@pytest.mark.parametrize("name", [*FILES, MANIFEST])
def test_a_missing_file_is_found(name: str, run_dir: RunDir) -> None:
    checkpoint = committed_step(run_dir, 5)
    (checkpoint / name).unlink()
    assert faults(checkpoint) == [f"{checkpoint / name} is missing"]


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "3", '{"files": []}', '{"files": {}}', '{"files": null}', '{"files": {"a": 1}}', '{"files": {"a": [1]}}', "\x00\x00"],
)
def test_a_damaged_manifest_is_found(text: str, run_dir: RunDir) -> None:
    checkpoint = committed_step(run_dir, 5)
    (checkpoint / MANIFEST).write_text(text)
    assert faults(checkpoint)[0].startswith(f"{checkpoint / MANIFEST} is damaged")


def test_no_flipped_bit_of_a_manifest_makes_a_damaged_file_pass(run_dir: RunDir) -> None:
    """Two bits of every byte in turn: one makes another character of the same kind, the other one of another kind."""
    checkpoint = committed_step(run_dir, 5, {"model.safetensors": b"weights"})
    manifest = checkpoint / MANIFEST
    good = manifest.read_bytes()
    (checkpoint / "model.safetensors").write_bytes(b"weightz")
    for position in range(len(good)):
        for bit in (0, 4):
            flip_bit(manifest, position, bit)
            assert faults(checkpoint), f"byte {position}, bit {bit}"
            manifest.write_bytes(good)


def test_the_newest_whole_checkpoint_is_taken_and_the_damaged_one_told(run_dir: RunDir) -> None:
    older, newer = committed_step(run_dir, 5), committed_step(run_dir, 10)
    flip_bit(newer / "model.safetensors", 0)
    choice = choose(run_dir)
    assert choice.checkpoint == older
    assert choice.passed_over == [(newer.name, f"{newer / 'model.safetensors'} was changed since it was saved (its hash differs)")]


def test_without_checkpoints_there_is_nothing_to_go_on_from(run_dir: RunDir) -> None:
    assert choose(run_dir).checkpoint is None


def test_committing_a_step_again_does_not_change_it(run_dir: RunDir) -> None:
    first = committed_step(run_dir, 5)
    before = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in first.rglob("*")}
    assert committed_step(run_dir, 5, {"model.safetensors": b"other"}) == first
    assert {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in first.rglob("*")} == before
    assert not (run_dir.checkpoints / ".making" / "checkpoint").exists()


def test_committing_a_damaged_step_again_mends_it(run_dir: RunDir) -> None:
    """A resume from an older checkpoint reaches the step of the damaged one again."""
    checkpoint = committed_step(run_dir, 5)
    os.truncate(checkpoint / "model.safetensors", 3)
    committed_step(run_dir, 5)
    assert faults(checkpoint) == []
    assert names(sorted(run_dir.checkpoints.iterdir())) == [".making", "step-5"]


@pytest.mark.parametrize(("keep", "best", "left"), [(2, None, [4, 3]), (2, 1, [4, 1]), (3, 1, [4, 3, 1]), (1, None, [4]), (1, 1, [4, 1])])
def test_pruning_keeps_the_newest_and_the_best(keep: int, best: int | None, left: list[int], run_dir: RunDir) -> None:
    for step in (1, 2, 3, 4):
        committed_step(run_dir, step)
    prune(run_dir, keep, None if best is None else run_dir.checkpoint(best))
    assert names(committed(run_dir)) == [f"step-{step}" for step in left]


def test_what_a_killed_attempt_left_is_cleared_and_nothing_else(run_dir: RunDir) -> None:
    committed_step(run_dir, 5)
    stage(run_dir, FILES)
    shutil.copytree(run_dir.checkpoint(5), run_dir.checkpoints / ".removing-step-4")
    (run_dir.path / ".making-model").mkdir()
    (run_dir.checkpoints / ".nfs0001").write_text("kept open by another node")
    (run_dir.path / "model").mkdir()
    clear_leftovers(run_dir)
    assert names(sorted(run_dir.checkpoints.iterdir())) == [".nfs0001", "step-5"]
    assert names(sorted(run_dir.path.iterdir())) == ["checkpoints", "journal.jsonl", "model"]
