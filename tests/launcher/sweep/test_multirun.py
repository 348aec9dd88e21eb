"""The way through Hydra, with points that are all refused, so that nothing is started."""

import errno
import json
import re
from pathlib import Path

import pytest

from launcher.cli import main
from launcher.errors import ConfigError, DiskError, Unsafe
from launcher.sweep.multirun import multirun

TOO_SMALL = ["recipe=demo", "node=cpu", "node.host_memory=100000000"]


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ledger_of(folder: Path) -> list[dict[str, object]]:
    (ledger,) = folder.glob("outputs/sweeps/*/ledger.jsonl")
    return [json.loads(line) for line in ledger.read_text(encoding="utf-8").splitlines()]


def test_every_point_is_judged_and_a_sweep_of_refused_ones_ends_with_3(working_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert multirun([*TOO_SMALL, "regime.rank=8,16"], []) == 3
    assert [(event["event"], event["point"]) for event in ledger_of(working_folder)[1:]] == [("refused", 1), ("refused", 2)]
    (table,) = working_folder.glob("outputs/sweeps/*/table.txt")
    assert "2 points: 2 refused" in table.read_text(encoding="utf-8")
    assert table.read_text(encoding="utf-8") in capsys.readouterr().out


def test_refused_points_leave_no_run_folder_and_hydra_no_file(working_folder: Path) -> None:
    multirun([*TOO_SMALL, "regime.rank=8,16"], [])
    files = {str(path.relative_to(working_folder)).split("/", 3)[-1] for path in working_folder.rglob("*") if path.is_file()}
    assert files == {"ledger.jsonl", "table.txt", "sweep.json", "sweep.html"}
    assert [path.name for path in working_folder.iterdir()] == ["outputs"]


def test_hydras_basic_launcher_hands_over_the_points_one_by_one(working_folder: Path) -> None:
    assert multirun([*TOO_SMALL, "regime.rank=8,16", "hydra/launcher=basic"], []) == 3
    assert [event.get("point") for event in ledger_of(working_folder)] == [None, 1, 2]


def test_hydras_basic_sweeper_writes_into_the_folder_of_the_sweep(working_folder: Path) -> None:
    assert multirun([*TOO_SMALL, "regime.rank=8,16", "hydra/sweeper=basic"], []) == 3
    assert len(list(working_folder.glob("outputs/sweeps/*/multirun.yaml"))) == 1
    assert [path.name for path in working_folder.iterdir()] == ["outputs"]


def test_optuna_goes_on_after_refused_points_and_ends_in_one_message(working_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="hydra-optuna-sweeper is not installed")
    sweeper = ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=3", "hydra.sweeper.n_jobs=2", "hydra.sweeper.sampler.seed=1", "regime.rank=range(1,9)"]
    assert multirun([*TOO_SMALL, *sweeper], []) == 3
    said = capsys.readouterr().out
    drawn_again = said.count("describes the same run as point")  # the sampler may draw a value twice
    assert [event.get("point") for event in ledger_of(working_folder)] == [None, *range(1, 4 - drawn_again)]
    assert "No point finished" in said


def test_a_mistake_of_the_whole_sweep_is_one_message_and_no_folder(working_folder: Path) -> None:
    with pytest.raises(ConfigError, match="Did you mean regime=lora"):
        multirun(["recipe=demo", "regime=loar", "optim.lr=1,2"], [])
    with pytest.raises(ConfigError, match="`~key` are not supported"):
        multirun(["recipe=demo", "+optim.lrr=1,2"], [])
    with pytest.raises(ConfigError, match="hydra/sweeper=nope is not a choice"):
        multirun(["recipe=demo", "hydra/sweeper=nope"], [])
    assert list(working_folder.iterdir()) == []


def test_what_the_sweeper_refuses_leaves_no_folder_of_a_sweep(working_folder: Path) -> None:
    with pytest.raises(ConfigError, match="hydra/sweeper=optuna"):
        multirun([*TOO_SMALL, "optim.lr=interval(0.1,0.2)"], [])
    assert list(working_folder.glob("outputs/sweeps/*")) == []


def test_a_secret_is_refused_before_anything_is_written(working_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "not-a-real-token")
    with pytest.raises(Unsafe, match="HF_TOKEN"):
        multirun([*TOO_SMALL, "model.path=not-a-real-token,x"], [])
    assert list(working_folder.iterdir()) == []


def test_a_config_folder_of_the_user_is_searched_for_the_points_too(working_folder: Path) -> None:
    own = working_folder / "own" / "optim"
    own.mkdir(parents=True)
    text = (Path(__file__).parents[3] / "conf" / "optim" / "sgd.yaml").read_text(encoding="utf-8")
    (own / "mine.yaml").write_text(text, encoding="utf-8")
    assert multirun([*TOO_SMALL, "optim=mine,adamw"], [working_folder / "own"]) == 3
    assert all("HOST_RAM" in str(event["cause"]) or "FLOOR" in str(event["cause"]) for event in ledger_of(working_folder)[1:])


def test_more_gpus_than_there_are_is_said_at_once(working_folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"hydra\.launcher\.gpus=99"):
        multirun([*TOO_SMALL, "hydra.launcher.gpus=99", "optim.lr=1,2"], [])


def test_a_sweep_over_a_key_that_is_none_ends_as_a_mistake_of_the_configuration(working_folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"regime\.rnk is not a key\. Did you mean regime\.rank=8"):
        multirun([*TOO_SMALL, "regime.rnk=8,16"], [])
    assert list(working_folder.iterdir()) == []


def test_a_key_that_is_swept_and_fixed_too_is_one_message_and_no_folder(working_folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"optim\.lr is swept and given again: optim\.lr=1e-4 and optim\.lr=1e-3,2e-3\. Give optim\.lr once\."):
        multirun([*TOO_SMALL, "optim.lr=1e-4", "optim.lr=1e-3,2e-3"], [])
    with pytest.raises(ConfigError, match="node is swept and given again"):
        multirun([*TOO_SMALL, "node=cpu,t4_16"], [])
    assert list(working_folder.iterdir()) == []


def test_a_swept_key_that_is_fixed_too_is_said_once_on_the_command_line(working_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "-m", *TOO_SMALL, "optim.lr=1e-4", "optim.lr=1e-3,2e-3"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "regimen: optim.lr is swept and given again: optim.lr=1e-4 and optim.lr=1e-3,2e-3. Give optim.lr once."
    ]


def test_a_file_of_a_run_may_hold_what_is_swept(working_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (working_folder / "mine.yaml").write_text("recipe: demo\noptim.lr: 1e-4\n", encoding="utf-8")
    assert main(["plan", "-m", "--json", "mine.yaml", "node=cpu", "node.host_memory=8GB", "optim.lr=1e-3,2e-3"]) == 0
    said = capsys.readouterr()
    assert [row["varied"] for row in json.loads(said.out)] == [["optim.lr=0.001"], ["optim.lr=0.002"]]
    assert "note: optim.lr=1e-4 is replaced by optim.lr=1e-3,2e-3" in said.err


def test_what_no_sweep_can_do_is_one_message_where_every_point_wants_it(working_folder: Path) -> None:
    with pytest.raises(ConfigError, match="cluster=slurm with 1 node is not possible: the points share this machine"):
        multirun([*TOO_SMALL, "cluster=slurm", "regime.rank=8,16"], [])
    assert list(working_folder.iterdir()) == []


def test_a_limit_below_one_is_said_at_once(working_folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"hydra\.launcher\.max_failures=0"):
        multirun([*TOO_SMALL, "hydra.launcher.max_failures=0", "regime.rank=8,16"], [])
    assert list(working_folder.iterdir()) == []


def test_points_of_one_configuration_are_one_run(working_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert multirun([*TOO_SMALL, "regime.rank=8,8,16", "optim.lr=1e-3,0.001"], []) == 3
    assert [event.get("point") for event in ledger_of(working_folder)] == [None, 1, 2]
    said = capsys.readouterr().out
    assert "regime.rank=8 optim.lr=0.001 describes the same run as point 1 (regime.rank=8 optim.lr=0.001), so it is trained once" in said
    assert "2 points: 2 refused" in said


@pytest.mark.parametrize("setting", ["hydra.sweep.dir=x", "hydra.sweep.subdir=x", "hydra.job.chdir=true", "hydra.run.dir=x", "hydra.verbose=true"])
def test_a_setting_of_hydra_without_effect_is_refused_and_leaves_nothing(working_folder: Path, setting: str) -> None:
    with pytest.raises(ConfigError, match=f"{re.escape(setting)} has no effect on a sweep"):
        multirun([*TOO_SMALL, setting, "regime.rank=8,16"], [])
    assert list(working_folder.iterdir()) == []


def test_a_later_start_with_a_key_that_does_not_exist_says_so(working_folder: Path) -> None:
    assert multirun([*TOO_SMALL, "regime.rank=8,16"], []) == 3
    with pytest.raises(ConfigError, match=r"nosuch is not a key"):
        multirun(["resume=last", "nosuch=3"], [])


def test_last_is_also_a_sweep_elsewhere_of_which_no_point_ran(working_folder: Path) -> None:
    assert multirun([*TOO_SMALL, "regime.rank=8,16", f"output={working_folder / 'elsewhere'}"], []) == 3
    assert multirun(["resume=last"], []) == 3


def test_a_full_disk_is_one_message_and_a_sweep_that_came_to_nothing_leaves_no_folder(working_folder: Path) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("launcher.sweep.ledger.record", full)  # where the kernel says so
        with pytest.raises(DiskError, match=r"cannot be written: Disk quota exceeded\. Free space, .* Nothing was started\."):
            multirun([*TOO_SMALL, "regime.rank=8,16"], [])
    assert list(working_folder.iterdir()) == []


def test_a_quota_that_is_full_later_says_how_the_sweep_goes_on(working_folder: Path) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("launcher.sweep.ledger.record_result", full)
        with pytest.raises(DiskError, match=r"Disk quota exceeded\. Free space, then go on with: regimen train -m resume="):
            multirun([*TOO_SMALL, "regime.rank=8,16"], [])
    assert multirun(["resume=last"], []) == 3
