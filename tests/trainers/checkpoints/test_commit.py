"""A checkpoint is committed whole or not at all, whatever kills the rank; damage is found before it is trained on."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conf import journal
from conf.committed import MANIFEST, committed, faults
from conf.run_dir import RunDir
from trainers.checkpoints.commit import clear_leftovers, commit, commit_model
from trainers.checkpoints.keeping import choose, prune

FILES = {"model.safetensors": b"weights" * 1000, "trainer_state.json": b'{"step": 5}', "global_step5/rank_0.pt": b"states" * 500}
KILLS = 20

# A rank that commits step after step until it is killed; after each it says how long the commit took.
COMMITTER = """
import sys
import time
from pathlib import Path
from conf.run_dir import RunDir
from trainers.checkpoints.commit import commit
from trainers.checkpoints.keeping import prune

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
    prune(run_dir, 3, None)
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


def test_every_flipped_bit_of_a_manifest_is_found(run_dir: RunDir) -> None:
    """Also where all files are as they were: step, ranks and list of files are what a resume relies on."""
    checkpoint = committed_step(run_dir, 5, {"model.safetensors": b"weights"})
    manifest = checkpoint / MANIFEST
    good = manifest.read_bytes()
    for position in range(len(good)):
        for bit in range(8):
            flip_bit(manifest, position, bit)
            assert faults(checkpoint, contents=False), f"byte {position}, bit {bit}"
            manifest.write_bytes(good)
    assert faults(checkpoint) == []


FIELDS = [("step", 6), ("world", 3), ("sha256", "0" * 64), ("files", {}), ("more", 1)]


@pytest.mark.parametrize(("field", "value"), FIELDS)
def test_every_changed_field_of_a_manifest_is_found(field: str, value: object, run_dir: RunDir) -> None:
    manifest = committed_step(run_dir, 5) / MANIFEST
    fields = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**fields, field: value}, sort_keys=True))
    assert faults(manifest.parent, contents=False)
    if field in fields:
        manifest.write_text(json.dumps({name: kept for name, kept in fields.items() if name != field}, sort_keys=True))
        assert faults(manifest.parent, contents=False)


def test_a_checkpoint_of_another_step_is_found(run_dir: RunDir) -> None:
    shutil.copytree(committed_step(run_dir, 5), run_dir.checkpoint(7))
    assert faults(run_dir.checkpoint(7)) == [f"{run_dir.checkpoint(7) / MANIFEST} is of step 5, and the folder is step-7"]


def test_files_that_nobody_saved_are_found(run_dir: RunDir) -> None:
    checkpoint = committed_step(run_dir, 5)
    (checkpoint / "global_step5" / "rank_1.pt").write_bytes(b"states")
    (checkpoint / "there").symlink_to("/dev/null")
    assert faults(checkpoint) == [f"{checkpoint / name} does not belong to the checkpoint" for name in ("global_step5/rank_1.pt", "there")]


@pytest.mark.parametrize("name", ["model.safetensors", MANIFEST])
def test_a_file_that_became_a_link_is_found(name: str, run_dir: RunDir) -> None:
    """The damage trials found that a manifest might be one."""
    checkpoint = committed_step(run_dir, 5)
    (checkpoint / name).rename(run_dir.path / "elsewhere")
    (checkpoint / name).symlink_to(run_dir.path / "elsewhere")
    assert faults(checkpoint) == [f"{checkpoint / name} is a link"]


def test_a_damaged_one_does_not_count_as_kept(run_dir: RunDir) -> None:
    """With keep=1 the damaged newest one stayed, and the whole one beside it was removed."""
    for step in (1, 2, 3):
        committed_step(run_dir, step)
    os.truncate(run_dir.checkpoint(3) / "model.safetensors", 3)
    prune(run_dir, 1, None)
    assert names(committed(run_dir)) == ["step-2", "step-1"]
    assert (run_dir.checkpoints / "damaged-step-3").is_dir()
    assert told(run_dir) == [("passed over", "step-3", 1)]


def test_of_a_finished_run_one_may_be_left(run_dir: RunDir) -> None:
    for step in (1, 2, 3):
        committed_step(run_dir, step)
    prune(run_dir, 1, None, at_least=1)
    assert names(committed(run_dir)) == ["step-3"]
    assert [event["checkpoints"] for event in journal.events(run_dir) if event["event"] == "prune"] == [["step-2", "step-1"]]


def test_the_newest_whole_checkpoint_is_taken_and_the_damaged_one_told(run_dir: RunDir) -> None:
    older, newer = committed_step(run_dir, 5), committed_step(run_dir, 10)
    flip_bit(newer / "model.safetensors", 0)
    assert choose(run_dir) == older
    fault = f"{newer / 'model.safetensors'} was changed since it was saved (its hash differs)"
    assert run_dir.notes.read_text() == (
        f"WARNING: the checkpoint of step 10 is damaged: {fault}. It was set aside as damaged-step-10. "
        "The run goes on from step-5: 5 steps are trained again.\n"
    )
    assert names(sorted(run_dir.checkpoints.glob("*step*"))) == ["damaged-step-10", "step-5"]
    assert told(run_dir) == [("passed over", "step-10", 5)]
    assert choose(run_dir) == older  # nothing more is said of it
    assert len(run_dir.notes.read_text().splitlines()) == 1


def told(run_dir: RunDir) -> list[tuple[str, str, int]]:
    return [(event["event"], event["checkpoint"], event["steps_lost"]) for event in journal.events(run_dir) if event["event"] == "passed over"]


def test_where_every_checkpoint_is_damaged_nothing_begins_anew(run_dir: RunDir) -> None:
    """The run began at step 1 again and ended with 0."""
    for step in (5, 10):
        os.truncate(committed_step(run_dir, step) / "model.safetensors", 3)
    with pytest.raises(ValueError, match=r"^No checkpoint of .* is whole: .*step-10/model\.safetensors has 3 bytes .* checkpoint\.resume=start$"):
        choose(run_dir)
    assert names(committed(run_dir)) == ["step-10", "step-5"]


def test_where_only_one_that_was_set_aside_is_left_nothing_begins_anew(run_dir: RunDir) -> None:
    older, newer = committed_step(run_dir, 5), committed_step(run_dir, 10)
    flip_bit(newer / "model.safetensors", 0)
    choose(run_dir)
    shutil.rmtree(older)
    with pytest.raises(ValueError, match="damaged-step-10 was set aside because it is damaged"):
        choose(run_dir)


def test_without_checkpoints_there_is_nothing_to_go_on_from(run_dir: RunDir) -> None:
    assert choose(run_dir) is None


def test_committing_a_step_again_does_not_change_it(run_dir: RunDir) -> None:
    first = committed_step(run_dir, 5)
    before = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in first.rglob("*")}
    assert committed_step(run_dir, 5, {"model.safetensors": b"other"}) == first
    assert {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in first.rglob("*")} == before
    assert not (run_dir.checkpoints / ".making" / "checkpoint").exists()


def test_committing_a_damaged_step_again_sets_it_aside(run_dir: RunDir) -> None:
    """Nothing that is damaged is removed: it may be all that is left of a run."""
    checkpoint = committed_step(run_dir, 5)
    os.truncate(checkpoint / "model.safetensors", 3)
    committed_step(run_dir, 5)
    assert faults(checkpoint) == []
    assert names(sorted(run_dir.checkpoints.iterdir())) == [".making", "damaged-step-5", "step-5"]


@pytest.mark.parametrize(("keep", "best", "left"), [(2, None, [4, 3]), (2, 1, [4, 1]), (3, 1, [4, 3, 1]), (1, None, [4, 3]), (1, 1, [4, 1])])
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
    (run_dir.path / ".removing-model").mkdir()
    (run_dir.checkpoints / ".nfs0001").write_text("kept open by another node")
    (run_dir.path / "model").mkdir()
    clear_leftovers(run_dir)
    assert names(sorted(run_dir.checkpoints.iterdir())) == [".nfs0001", "step-5"]
    assert names(sorted(run_dir.path.iterdir())) == ["checkpoints", "journal.jsonl", "model"]


@pytest.mark.parametrize("renamed", [0, 1])
def test_a_kill_while_a_model_takes_the_place_of_an_earlier_one_leaves_one_of_them(
    renamed: int, run_dir: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A longer run saves its model a second time. The new name is given by the second of two renames; `renamed` of them were made."""
    run_dir.model.mkdir()
    (run_dir.model / "model.safetensors").write_text("earlier")
    staged = run_dir.path / ".making-model"
    staged.mkdir()
    (staged / "model.safetensors").write_text("later")
    rename, made = os.rename, []

    def killed(source: Path, target: Path) -> None:
        if len(made) == renamed:
            raise KeyboardInterrupt
        made.append(rename(source, target))

    with monkeypatch.context() as patch:
        patch.setattr("trainers.checkpoints.commit.os.rename", killed)
        with pytest.raises(KeyboardInterrupt):
            commit_model(staged, run_dir, 6, 1)
    clear_leftovers(run_dir)
    assert (run_dir.model / "model.safetensors").read_text() == "earlier"
    staged.mkdir()
    (staged / "model.safetensors").write_text("later")
    commit_model(staged, run_dir, 6, 1)
    assert (run_dir.model / "model.safetensors").read_text() == "later"
    assert [path.name for path in run_dir.path.glob(".*")] == []
