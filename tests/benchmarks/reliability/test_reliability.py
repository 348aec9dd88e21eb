"""The figures of benchmarks/reliability with few trials; each script must fail where the protection is taken out."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.reliability import damage, kills_in_save
from conf.run_dir import RunDir
from trainers.checkpoints.commit import commit, commit_model


def exit_code(main: Callable[[], int], patch: pytest.MonkeyPatch, *words: str) -> int:
    patch.setattr(sys, "argv", ["script", *words])
    return main()


def test_kills_inside_a_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "kills.jsonl"
    assert exit_code(kills_in_save.main, monkeypatch, "--trials", "6", "--out", str(out)) == 0
    assert exit_code(kills_in_save.main, monkeypatch, "--trials", "8", "--first", "6", "--out", str(out)) == 0
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["trial"] for line in lines] == list(range(8))
    assert any(line["landed"] for line in lines)


def test_kills_inside_a_save_that_writes_in_place_are_not_survived(monkeypatch: pytest.MonkeyPatch) -> None:
    assert exit_code(kills_in_save.main, monkeypatch, "--trials", "16", "--broken") == 1


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    run_dir = RunDir(tmp_path / "run")
    for finish in (lambda staged: commit(staged, run_dir, 3, 2), lambda staged: commit_model(staged, run_dir, 3, 2)):
        staged = run_dir.checkpoints / ".making"
        (staged / "part").mkdir(parents=True)
        (staged / "model.safetensors").write_bytes(os.urandom(9000))
        (staged / "part" / "rank_0.pt").write_bytes(os.urandom(5000))
        finish(staged)
    return run_dir.path


def test_damage_of_every_kind_is_found(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two folders with three files, seven ways each, and seven fields and more in each manifest: all of them within 80 trials."""
    assert exit_code(damage.main, monkeypatch, str(run_folder), "--trials", "80") == 0


def test_damage_is_missed_without_hashes(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert exit_code(damage.main, monkeypatch, str(run_folder), "--trials", "80", "--broken") == 1


@pytest.mark.long
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts file systems, which needs root")
def test_a_disk_that_fills_up(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks.reliability import full_disk  # it imports torch

    assert exit_code(full_disk.main, monkeypatch, "--trials", "3") == 0
    assert exit_code(full_disk.main, monkeypatch, "--trials", "3", "--broken") == 1
