from importlib.util import find_spec
from pathlib import Path

import pytest

from launcher.composition.compose import choices, compose
from launcher.errors import ConfigError
from launcher.gate.judge import judge_run
from launcher.rules import libraries
from launcher.rules.libraries import refuse_absent
from tests.described import described

GALORE = ("model=demo", "data=demo", "regime=full", "optim=galore", "sharding=ddp", "node=cpu", "node.host_memory=8000000000")


def test_an_optimizer_whose_library_is_absent_is_refused_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libraries, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"optim=galore needs galore-torch, .* `pip install galore-torch`"):
        judge_run(compose(GALORE))


def test_a_tracker_whose_package_is_absent_is_refused_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libraries, "find_spec", lambda name: None if name == "comet_ml" else find_spec(name))
    run = compose(["model=demo", "data=demo", "node=cpu", "tracking=tensorboard", "tracking.also=[comet]"])
    with pytest.raises(
        ConfigError, match=r"^tracking=comet needs the package comet-ml, .* `.*python.* -m pip install comet-ml`, or use tracking=none"
    ):
        judge_run(run)


def test_every_optimizer_of_a_development_environment_finds_its_library() -> None:
    for name in choices("optim"):
        refuse_absent(compose(["model=demo", "data=demo", f"optim={name}"]))


def test_a_package_of_rewards_that_is_not_there_is_refused_and_one_in_this_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = described("model=demo", "data=demo", "node=cpu", "stage=grpo", "stage.rewards=[my_judges.short:score]", "stage.reward_packages=[my_judges]",
                    "stage.generations=2")  # fmt: skip
    with pytest.raises(ConfigError, match=r"^stage\.rewards: my_judges\.short:score needs the package my_judges, which is not installed here"):
        refuse_absent(run)
    (tmp_path / "my_judges").mkdir()
    (tmp_path / "my_judges/__init__.py").write_text("raise SystemExit('executed')\n")
    refuse_absent(run)
