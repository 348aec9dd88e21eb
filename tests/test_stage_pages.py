"""Every stage has a page, and the command on it runs as it stands."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from conf.run_dir import RunDir
from conf.schema import SUBTYPES, Run
from launcher.compatibility import incompatibilities
from launcher.compose import compose
from launcher.node_facts import settle_node
from launcher.settle import check_values, settle

PAGES = Path(__file__).resolve().parent.parent / "docs" / "stages"
COMMAND = re.compile(r"^```sh\n(regimen train [^\n]+)\n```$", re.MULTILINE)
STAGES = sorted(path.stem for path in PAGES.glob("*.md"))


def page(stage: str) -> str:
    return (PAGES / f"{stage}.md").read_text(encoding="utf-8")


def overrides_on(stage: str) -> list[str]:
    """Of the first command on the page."""
    found = COMMAND.search(page(stage))
    assert found is not None, f"docs/stages/{stage}.md shows no command"
    return shlex.split(found[1])[2:]


def settled(overrides: list[str]) -> Run:
    run = compose(overrides)
    check_values(run)
    return settle(run, settle_node(run.node, 1).node)


@pytest.fixture
def fresh_state() -> Iterator[None]:
    """Accelerate keeps one state a process, and a rank that stops restores no signal handler."""
    import signal

    from accelerate.state import AcceleratorState, GradientState

    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)
    AcceleratorState._reset_state()
    GradientState._reset_state()


def test_there_is_a_page_for_every_stage_and_no_other() -> None:
    assert sorted(SUBTYPES["stage"]) == STAGES


@pytest.mark.parametrize("stage", STAGES)
def test_every_key_of_a_stage_stands_on_its_page(stage: str) -> None:
    keys = {field.name for field in fields(SUBTYPES["stage"][stage])} - {"name"}
    assert {key for key in keys if f"`stage.{key}`" not in page(stage)} == set()


@pytest.mark.parametrize("stage", STAGES)
def test_the_command_on_the_page_is_permitted_and_trains(stage: str, tmp_path: Path, fresh_state: None) -> None:
    from trainers.place import Place
    from trainers.run import train

    small = ("node=cpu", "cluster.ranks_per_node=1", f"output={tmp_path}", "training.max_steps=2", "data.max_samples=64", "data.workers=1")
    run = settled([*overrides_on(stage), *small])
    assert run.stage.name == stage
    assert incompatibilities(run) == []
    run_dir = RunDir(tmp_path / "run")
    run_dir.path.mkdir()
    assert train(run, run_dir, Place(rank=0, local_rank=0, world=1)) == (0, "finished")
    assert run_dir.loss_plot.is_file()
    assert any(run_dir.model.glob("*.safetensors"))


@pytest.mark.long
@pytest.mark.parametrize("stage", STAGES)
def test_the_command_runs_as_it_stands(stage: str, tmp_path: Path, site_environment: dict[str, str]) -> None:
    argv = [sys.executable, "-m", "launcher", "train", *overrides_on(stage)]
    done = subprocess.run(argv, cwd=tmp_path, env=site_environment, capture_output=True, text=True, timeout=580, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert list(tmp_path.glob("outputs/*/*/plots/loss.png"))
