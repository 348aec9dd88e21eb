"""The figures of benchmarks/reliability with few trials; each script must fail where the protection is taken out."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.reliability import damage, kills_in_save, kills_in_training, two_starts
from benchmarks.reliability.live_runs import environment
from conf.run_dir import RunDir
from tests.waiting import PATIENCE
from trainers.checkpoints.commit import commit, commit_model
from trainers.checkpoints.pickles import FORCED

ROOT = Path(__file__).resolve().parents[3]


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


def test_two_starts_of_one_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first lives, was killed, or begins at the same moment."""
    assert exit_code(two_starts.main, monkeypatch, "--trials", "3") == 0


def test_two_starts_under_a_lock_for_everybody(monkeypatch: pytest.MonkeyPatch) -> None:
    assert exit_code(two_starts.main, monkeypatch, "--trials", "1", "--broken") == 1


def test_what_a_trial_starts_finds_the_packages_of_this_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where they are installed beside Python, as on a machine that is lent with a torch of its own."""
    monkeypatch.setenv("PYTHONPATH", "/packages")
    assert environment(tmp_path, tmp_path / "site")["PYTHONPATH"].split(os.pathsep) == [str(tmp_path / "site"), str(ROOT), "/packages"]


def test_a_start_that_fails_before_the_first_trial_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(two_starts, "RUN", ("no.such=key",))
    with pytest.raises(RuntimeError, match=r"the command line ended with exit code 2.*no\.such"):
        two_starts.template(tmp_path)


def by_itself(script: str, *options: str) -> int:
    """The exit code of a script that imports torch and forks."""
    argv = [sys.executable, "-m", f"benchmarks.reliability.{script}", *options]
    environment = {name: value for name, value in os.environ.items() if name != FORCED}  # other tests of this process may have set it
    return subprocess.run(argv, cwd=ROOT, env={**environment, "OMP_NUM_THREADS": "1"}, timeout=PATIENCE, check=False).returncode


def test_a_checkpoint_that_would_run_a_command() -> None:
    """In a file that the run loads and in one that it does not."""
    assert by_itself("pickles", "--trials", "2") == 0


@pytest.mark.long
def test_a_checkpoint_whose_command_runs_where_nothing_looks_at_it() -> None:
    assert by_itself("pickles", "--trials", "2", "--broken") == 1


@pytest.mark.long
@pytest.mark.parametrize(("options", "code"), [(("--trials", "4"), 0), (("--trials", "1", "--broken"), 1)])
def test_secrets_of_real_runs_and_of_a_sweep(options: tuple[str, ...], code: int) -> None:
    assert by_itself("planted_secrets", *options) == code


@pytest.mark.long
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts file systems, which needs root")
def test_a_disk_that_fills_up(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks.reliability import full_disk  # it imports torch

    assert exit_code(full_disk.main, monkeypatch, "--trials", "3") == 0
    assert exit_code(full_disk.main, monkeypatch, "--trials", "3", "--broken") == 1


@pytest.mark.long
def test_kills_of_real_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One in a step and one in a save, of the job that draws random numbers in each step."""
    out = tmp_path / "kills.jsonl"
    job = ("--job", "lora-ddp", "--trials", "2", "--at-once", "2")
    assert exit_code(kills_in_training.main, monkeypatch, *job, "--out", str(out)) == 0
    assert sorted(line["in_save"] for line in map(json.loads, out.read_text().splitlines())) == [False, True]
    assert exit_code(kills_in_training.main, monkeypatch, *job, "--broken") == 1


@pytest.mark.long
@pytest.mark.parametrize(("options", "code"), [((), 0), (("--in-save",), 0), (("--in-save", "--broken"), 1)])
def test_kills_of_forked_ranks(options: tuple[str, ...], code: int) -> None:
    """Four of one run; the broken variant takes a save that was not finished."""
    assert by_itself("kills_of_ranks", "--job", "lora-ddp", "--trials", "1", "--kills", "4", *options) == code


@pytest.mark.long
@pytest.mark.parametrize(("options", "code"), [((), 0), (("--broken",), 1)])
def test_hostile_inputs(options: tuple[str, ...], code: int) -> None:
    assert by_itself("hostile_inputs", "--trials", "60", *options) == code


@pytest.mark.long
def test_kills_in_saves_of_peers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rank goes on by itself; whether a peer does is what its lines say."""
    from benchmarks.reliability import peers_in_save  # it imports torch

    out = tmp_path / "peers.jsonl"
    assert exit_code(peers_in_save.main, monkeypatch, "--system", "regimen", "--trials", "2", "--out", str(out)) == 0
    for system in ("trainer", "accelerate"):
        exit_code(peers_in_save.main, monkeypatch, "--system", system, "--trials", "2", "--out", str(out))
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["system"] for line in lines] == ["regimen"] * 2 + ["trainer"] * 2 + ["accelerate"] * 2
    assert all(line["held"] or line["said"] or not line["same_weights"] for line in lines)
