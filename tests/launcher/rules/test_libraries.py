import pytest

from launcher.composition.compose import choices, compose
from launcher.errors import ConfigError
from launcher.gate.judge import judge_run
from launcher.rules import libraries
from launcher.rules.libraries import refuse_absent

GALORE = ("model=demo", "data=demo", "regime=full", "optim=galore", "sharding=ddp", "node=cpu", "node.host_memory=8000000000")


def test_an_optimizer_whose_library_is_absent_is_refused_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libraries, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"optim=galore needs galore-torch, .* `pip install galore-torch`"):
        judge_run(compose(GALORE))


def test_every_optimizer_of_a_development_environment_finds_its_library() -> None:
    for name in choices("optim"):
        refuse_absent(compose(["model=demo", "data=demo", f"optim={name}"]))
