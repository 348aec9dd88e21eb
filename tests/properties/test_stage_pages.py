"""Every stage has a page, and the commands on it run as they stand."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from conf.run_dir import RunDir
from conf.schema import Run
from conf.stages import STAGES as ROWS
from launcher.composition.compose import compose
from launcher.facts.node import settle_node
from launcher.gate.settle import settled
from launcher.rules.pairs import incompatibilities
from launcher.rules.ranges import check_values
from tests.waiting import PATIENCE

PAGES = Path(__file__).resolve().parents[2] / "docs" / "guides" / "stages"
SCRIPT = re.compile(r"^```(?:sh|bash)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SPELL = "regimen() { printf '%s\\0' \"$@\"; printf '\\n'; }\n"  # a shell function that tells its arguments
STAGES = sorted(path.stem for path in PAGES.glob("*.md"))
TRAINED_HERE = ("dpo", "kto", "orpo", "pt", "rm", "sft", "simpo")  # ppo and grpo generate first: their own tests train them


def page(stage: str) -> str:
    return (PAGES / f"{stage}.md").read_text(encoding="utf-8")


def script_on(stage: str) -> str:
    """The first block of shell on the page."""
    found = SCRIPT.search(page(stage))
    assert found is not None, f"docs/guides/stages/{stage}.md shows no command"
    return found[1]


def commands_on(stage: str, folder: Path) -> list[list[str]]:
    """The arguments of every call of regimen in the script, as a shell spells them."""
    spelt = subprocess.run(["bash", "-c", SPELL + script_on(stage)], cwd=folder, capture_output=True, text=True, check=True).stdout
    return [line.removesuffix("\0").split("\0") for line in spelt.splitlines()]


def described(overrides: list[str]) -> Run:
    run = compose(overrides)
    check_values(run)
    return settled(run, settle_node(run.node, 1).node)


@pytest.fixture
def fresh_state() -> Iterator[None]:
    """Accelerate keeps one state a process, and a rank that ends leaves its signal handlers behind."""
    from accelerate.state import AcceleratorState, GradientState

    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)
    AcceleratorState._reset_state()
    GradientState._reset_state()


def test_there_is_a_page_for_every_stage_and_no_other() -> None:
    assert sorted(ROWS) == STAGES


@pytest.mark.parametrize("stage", STAGES)
def test_every_key_of_a_stage_stands_on_its_page(stage: str) -> None:
    keys = {field.name for field in fields(ROWS[stage].settings)} - {"name"}
    assert {key for key in keys if f"`stage.{key}`" not in page(stage)} == set()


@pytest.mark.parametrize("stage", STAGES)
def test_the_commands_on_a_page_hold_no_other_keys_than_those_there_are(stage: str, tmp_path: Path) -> None:
    runs = [compose(overrides) for verb, *overrides in commands_on(stage, tmp_path) if verb == "train"]
    assert runs[-1].stage.name == stage


@pytest.mark.parametrize("stage", TRAINED_HERE)
def test_the_command_on_a_page_trains(stage: str, tmp_path: Path, fresh_state: None) -> None:
    from trainers.ranks.place import Place
    from trainers.run import train

    [[_, *overrides]] = commands_on(stage, tmp_path)
    small = ("node=cpu", "cluster.ranks_per_node=1", f"output={tmp_path}", "training.max_steps=2", "data.max_samples=64", "data.workers=1")
    run, run_dir = described([*overrides, *small]), RunDir(tmp_path / "run")
    run_dir.path.mkdir()
    assert incompatibilities(run) == []
    assert train(run, run_dir, Place(rank=0, local_rank=0, world=1)) == (0, "finished")
    assert run_dir.loss_plot.is_file()
    assert any(run_dir.model.glob("*.safetensors"))


@pytest.mark.long
@pytest.mark.parametrize("stage", STAGES)
def test_the_script_on_a_page_runs_as_it_stands(stage: str, tmp_path: Path, site_environment: dict[str, str]) -> None:
    command = tmp_path / "bin" / "regimen"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m launcher "$@"\n', encoding="utf-8")
    command.chmod(0o755)
    environment = {**site_environment, "PATH": f"{command.parent}{os.pathsep}{site_environment['PATH']}"}
    done = subprocess.run(
        ["bash", "-e", "-c", script_on(stage)], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert list(tmp_path.glob("outputs/*/*/plots/loss.png"))
