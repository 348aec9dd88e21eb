"""A stage and a regime from outside: with their rows, types and modules they are planned and trained; what is missing is named with its file."""

import re
import sys
import tokenize
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from types import ModuleType

import pytest
from omegaconf import MISSING

from conf.regimes import REGIMES, RegimeRow
from conf.run_dir import RunDir
from conf.schema import ROW_TYPES, Composed, Regime, Run, Stage, register
from conf.stages import STAGES, Loss, StageRow
from launcher.cli import main
from launcher.composition.compose import compose
from launcher.errors import ConfigError
from launcher.gate.judge import judge_run

SMALL = (
    "model=demo",
    "data=demo",
    "node=cpu",
    "cluster.ranks_per_node=1",
    "training.max_steps=1",
    "data.max_samples=64",
    "data.workers=1",
    "training.precision=fp32",
)


@dataclass
class Recital(Stage):
    weight: float = MISSING  # of the loss


@dataclass
class Norms(Regime):
    pass


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The groups of a user who adds both."""
    files = {
        "stage/recital.yaml": "defaults: [/schema/stage/recital@_here_, _self_]\n\nname: recital\nweight: 0.5\n",
        "regime/norms.yaml": "defaults: [/schema/regime/norms@_here_, _self_]\n\nname: norms\n",
    }
    for name, text in files.items():
        path = tmp_path / "groups" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return tmp_path / "groups"


@pytest.fixture(autouse=True)
def types(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The dataclasses, which conf/schema.py lists so that YAML files can start from them."""
    monkeypatch.setitem(ROW_TYPES, "stage", (*ROW_TYPES["stage"], Recital))
    monkeypatch.setitem(ROW_TYPES, "regime", (*ROW_TYPES["regime"], Norms))
    register.cache_clear()
    yield
    register.cache_clear()


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(STAGES, "recital", StageRow(Recital, "answers", "next token", Loss.NEXT_TOKEN))
    monkeypatch.setitem(REGIMES, "norms", RegimeRow(Norms, "every weight", published="full", phrase="norms alone"))


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Both train as sft and full do; the list tells which was asked."""
    from trainers.regimes import full
    from trainers.stages import sft

    asked: list[str] = []
    stage, regime = ModuleType("trainers.stages.recital"), ModuleType("trainers.regimes.norms")

    def build_trainer(run: Run, *others: object) -> object:
        assert isinstance(run.stage, Recital)
        asked.append(f"recital of weight {run.stage.weight}")
        return sft.build_trainer(run, *others)

    def prepare_model(run: Run, model_class: object) -> object:
        asked.append("norms")
        prepared = full.prepare_model(run, model_class)
        for name, parameter in prepared.model.named_parameters():
            parameter.requires_grad_("norm" in name)
        return prepared

    vars(stage).update(MODEL_CLASS=sft.MODEL_CLASS, build_arguments=sft.build_arguments, build_trainer=build_trainer)
    vars(regime).update(prepare_model=prepare_model)
    monkeypatch.setitem(sys.modules, stage.__name__, stage)
    monkeypatch.setitem(sys.modules, regime.__name__, regime)
    return asked


@pytest.fixture
def fresh_state() -> Iterator[None]:
    """Accelerate keeps one state a process."""
    from accelerate.state import AcceleratorState, GradientState

    yield
    AcceleratorState._reset_state()
    GradientState._reset_state()


def described(folder: Path, *overrides: str) -> Composed:
    return compose([*SMALL, *overrides], [folder])


def trained(run: Run, folder: Path) -> tuple[int, str]:
    from trainers.ranks.place import Place
    from trainers.run import train

    run_dir = RunDir(folder / "run")
    run_dir.path.mkdir()
    return train(run, run_dir, Place(rank=0, local_rank=0, world=1))


@pytest.mark.usefixtures("rows", "fresh_state")
def test_a_stage_and_a_regime_with_all_their_parts_are_planned_and_trained(folder: Path, tmp_path: Path, modules: list[str]) -> None:
    given = ("stage=recital", "regime=norms", f"output={tmp_path}", f"data.cache={tmp_path}/cache")
    with redirect_stdout(StringIO()) as said:
        assert main(["plan", "--config-dir", str(folder), *SMALL, *given]) == 0
    assert "recital of demo (0.4 M parameters), norms alone in fp32" in said.getvalue()
    judged = judge_run(described(folder, *given))
    assert judged.verdict.permitted
    assert trained(judged.run, tmp_path) == (0, "finished")
    assert modules == ["norms", "recital of weight 0.5"]


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        (("stage=recital", "regime=full"), r"^stage=recital has no row in STAGES in conf/stages\.py\. Add its row there"),
        (("regime=norms",), r"^regime=norms has no row in REGIMES in conf/regimes\.py\. Add its row there"),
    ],
)
def test_without_a_row_the_message_names_it_and_where_it_belongs(folder: Path, chosen: tuple[str, ...], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        described(folder, *chosen)


@pytest.mark.usefixtures("rows", "fresh_state")
@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        (("stage=recital", "regime=full"), r"^stage=recital has no module: add trainers/stages/recital\.py"),
        (("regime=norms",), r"^regime=norms has no module: add trainers/regimes/norms\.py"),
    ],
)
def test_without_a_module_the_rank_names_it_and_where_it_belongs(folder: Path, tmp_path: Path, chosen: tuple[str, ...], said: str) -> None:
    run = judge_run(described(folder, *chosen, f"output={tmp_path}", f"data.cache={tmp_path}/cache")).run
    with pytest.raises(ValueError, match=said):
        trained(run, tmp_path)


REPOSITORY = Path(__file__).resolve().parents[2]


def section(title: str) -> str:
    """Of CONTRIBUTING.md."""
    return (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8").split(f"## {title}\n")[1].split("\n## ")[0]


def code_with(word: re.Pattern[str]) -> set[str]:
    """Modules in which a name or a whole string matches."""
    found = set()
    for path in (path for folder in ("conf", "launcher", "trainers") for path in (REPOSITORY / folder).rglob("*.py")):
        with tokenize.open(path) as file:
            tokens = [token.string for token in tokenize.generate_tokens(file.readline) if token.type in (tokenize.NAME, tokenize.STRING)]
        if any(word.fullmatch(token) for token in tokens):
            found.add(str(path.relative_to(REPOSITORY)))
    return found


@pytest.mark.parametrize(
    ("title", "name", "spelt"),
    [("A new stage", "orpo", r'Orpo|\w+\.ORPO|ORPO|orpo_\w+|"orpo"'), ("A new regime", "freeze", '"freeze"')],
)
def test_contributing_names_every_file_that_a_choice_has(title: str, name: str, spelt: str) -> None:
    """Counted for one that is there. The type of a regime's keys is asked for wherever they are read: those formulas are not a list to fill."""
    listed = {path.replace("NAME", name) for path in re.findall(r"`([\w./]+\.(?:py|yaml|md))`", section(title))}
    assert {path for path in listed if not (REPOSITORY / path).is_file()} == set()
    assert code_with(re.compile(spelt)) <= listed
    assert f"conf/{title.split()[-1]}/{name}.yaml" in listed
