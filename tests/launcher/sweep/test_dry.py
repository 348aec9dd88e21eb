"""`plan -m`: the verdict of every point on any node, what would fit instead, and nothing written."""

import json
import shlex
from pathlib import Path

import pytest

from launcher.cli import main
from launcher.gate.judge import judge_run
from launcher.gate.pasting import pasted
from launcher.sweep import ledger
from launcher.sweep.fingerprint import fingerprint_of
from launcher.sweep.judging import WITHOUT_BYTES, Judging
from launcher.sweep.ledger import Start
from launcher.sweep.points import Permitted, Point, Result, composed_or_refusal, judge_point
from launcher.sweep.schedule import Resources
from tests.described import composed

ON_EIGHT = "model=llama3.1_8b data=demo node=h100_80 node.gpus=8 training.effective_batch=64"


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def planned(words: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, list[dict[str, object]]]:
    code = main(["plan", "-m", "--json", *shlex.split(words)])
    return code, json.loads(capsys.readouterr().out)


def test_every_point_is_judged_on_a_node_that_is_not_here(working_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, rows = planned(f"{ON_EIGHT} regime=lora,full sharding=ddp,zero3", capsys)
    assert code == 3
    assert [row["verdict"] for row in rows] == ["permitted", "permitted", "refused", "permitted"]
    assert [row.get("gpus") for row in rows] == [8, 8, None, 8]
    assert main(["plan", *ON_EIGHT.split(), "regime=full", "sharding=zero3", "--json"]) == 0
    alone = json.loads(capsys.readouterr().out)
    assert (rows[3]["need"], rows[3]["headroom"]) == (alone["memory"]["required"], alone["verdict"]["headroom"])
    assert list(working_folder.iterdir()) == []


def test_the_change_that_would_fit_is_permitted_in_the_same_place() -> None:
    words = (*ON_EIGHT.split(), "regime=full", "sharding=ddp", "cluster.ranks_per_node=8")
    eight = Resources(tuple(map(str, range(8))), 1)
    refused = judge_point(Point(1, words, ()), [], eight)
    assert isinstance(refused, Result)
    assert refused.fits == ("sharding=zero2",)
    assert isinstance(judge_point(Point(1, tuple(pasted(words, refused.fits)), ()), [], eight), Permitted)


def test_points_that_differ_in_what_no_byte_depends_on_are_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    judging, seen = Judging([]), []
    monkeypatch.setattr("launcher.sweep.judging.alternatives", lambda run, *_, **__: seen.append(run.optim.lr) or ())
    for words in ("optim.lr=1e-3", "optim.lr=2e-3", "optim.lr=1e-3 optim.weight_decay=0.5"):
        judging.what_fits(judge_run(composed("recipe=demo", "node=cpu", *words.split())))
    assert seen == [1e-3, 1e-3]
    assert "optim.weight_decay" not in WITHOUT_BYTES  # some optimizers hold a copy of the gradients for it


def test_each_point_is_fitted_by_itself(capsys: pytest.CaptureFixture[str]) -> None:
    words = "model=llama3.1_8b data=demo node=h100_80 node.gpus=1 training.effective_batch=64 training.fit=auto regime=lora data.cutoff=1024,8192"
    code, rows = planned(words, capsys)
    assert code == 0
    first, second = (str(row["fit"]) for row in rows)
    assert "training.micro_batch=4" in first
    assert "training.micro_batch=1" in second


def test_the_table_says_what_would_fit_and_counts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "-m", "--dry-run", *ON_EIGHT.split(), "regime=full", "sharding=ddp,zero3"]) == 3
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].endswith("Would fit: sharding=zero2")
    assert "2 points: 1 refused, 1 permitted" in lines


def test_of_a_later_start_the_points_that_are_known_are_not_judged(working_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ("recipe=demo", "node=cpu", "node.host_memory=8GB", "cluster.ranks_per_node=1")
    assert main(["plan", "-m", "--json", *small, "optim.lr=1e-3,2e-3"]) == 0
    sweep_dir = ledger.make_sweep_dir(Path("outputs"))
    ledger.record_sweep(sweep_dir, Start((*small, "optim.lr=1e-3,2e-3"), (), str(working_folder)))
    words = (*small, "optim.lr=0.001")
    fingerprint = fingerprint_of(composed_or_refusal(words, []), words)
    ledger.record_result(sweep_dir, Result(Point(1, words, (), fingerprint), "finished", 0.5, "loss"))
    capsys.readouterr()
    code, rows = planned("resume=last optim.lr=4e-3,1e-3", capsys)
    assert (code, [(row["point"], row["verdict"]) for row in rows]) == (0, [(2, "permitted"), (1, "finished")])


def test_a_halving_sweep_shows_its_first_round_and_on_resume_what_later_rounds_have_chosen(
    working_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ("recipe=demo", "node=cpu", "hydra/sweeper=halving", "training.max_steps=90")
    assert main(["plan", "-m", "--json", *small, "optim.lr=1e-3,2e-3,3e-3"]) == 0
    fresh = json.loads(capsys.readouterr().out)
    assert [row["varied"] for row in fresh] == [["training.max_steps=10", f"optim.lr={rate}"] for rate in ("0.001", "0.002", "0.003")]
    sweep_dir = ledger.make_sweep_dir(working_folder / "outputs")
    ledger.record_sweep(sweep_dir, Start((*small, "optim.lr=1e-3,2e-3,3e-3"), (), str(working_folder)))
    chosen = {1: (10, "0.001"), 2: (10, "0.002"), 3: (10, "0.003"), 4: (30, "0.002")}
    for number, (steps, rate) in chosen.items():
        words = tuple(f"training.max_steps={steps}" if text.startswith("training.max_steps") else text for text in (*small[:2], small[3]))
        words = (*words, f"optim.lr={rate}")
        point = Point(number, words, words[2:], fingerprint_of(composed_or_refusal(words, []), words))
        ledger.record_result(sweep_dir, Result(point, "finished", 0.5, "loss"))
    capsys.readouterr()
    code, rows = planned("resume=last", capsys)
    assert (code, [(row["point"], row["verdict"]) for row in rows]) == (0, [(number, "finished") for number in chosen])


@pytest.mark.parametrize("gpus", ["-1", "9"])
def test_gpus_that_the_stated_node_does_not_have_are_named(gpus: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "-m", *ON_EIGHT.split(), "regime=lora", "optim.lr=1e-3,2e-3", f"hydra.launcher.gpus={gpus}"]) == 2
    assert f"hydra.launcher.gpus={gpus}, but node=h100_80 has 8 GPUs." in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--matrix", "--explain", "--cfg", "--save=x.yaml"])
def test_what_shows_one_run_is_refused_for_a_sweep(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "-m", option, "recipe=demo", "optim.lr=1,2"]) == 2
    assert f"{option.split('=')[0]} is not possible with -m. It shows one run." in capsys.readouterr().err


def test_a_sweeper_that_chooses_as_it_goes_has_no_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "-m", "recipe=demo", "hydra/sweeper=basic", "optim.lr=1,2"]) == 2
    assert "chooses its points as it goes" in capsys.readouterr().err


def test_points_of_one_configuration_are_shown_as_one_run(capsys: pytest.CaptureFixture[str]) -> None:
    code, rows = planned(f"{ON_EIGHT} regime=lora optim.lr=1e-4,0.0001,2e-4", capsys)
    assert code == 0
    assert [(row["point"], row["verdict"]) for row in rows] == [(1, "permitted"), (1, "the same run"), (2, "permitted")]


def test_a_setting_of_hydra_without_effect_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "-m", *ON_EIGHT.split(), "optim.lr=1e-4,2e-4", "hydra.sweep.dir=x"]) == 2
    assert "hydra.sweep.dir=x has no effect on a sweep. A sweep is kept in OUTPUT/sweeps/TIME" in capsys.readouterr().err


@pytest.mark.parametrize("setting", ["per_gpu=0", "per_gpu=null", "slots=0", "slots=null"])
@pytest.mark.parametrize("verb", ["plan", "train"])
@pytest.mark.parametrize("node", ["node=h100_80", "node=auto"])
def test_a_setting_of_the_pool_is_refused_by_the_plan_as_by_the_sweep(
    verb: str, node: str, setting: str, working_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([verb, "-m", "recipe=demo", node, "optim.lr=1e-4,2e-4", f"hydra.launcher.{setting}"]) == 2
    key = setting.partition("=")[0]
    assert f"hydra.launcher.{key}=" in (told := capsys.readouterr().err)
    assert "is out of range. It must be a whole number of at least 1." in told
    assert list(working_folder.iterdir()) == []
