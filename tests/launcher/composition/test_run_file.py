"""A file of a run composes the same run as its lines on the command line, and a mistake in it is named with its file and line."""

from pathlib import Path

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st

from conf.run_values import run_as_dict
from conf.schema import Composed
from launcher.cli import main
from launcher.composition.compose import compose
from launcher.composition.described import as_file, described
from launcher.composition.run_file import read_run_file
from launcher.errors import ConfigError
from tests.described import composed

RUNS: dict[str, tuple[str, ...]] = {
    "demo": ("recipe=demo",),
    "lists, quotes and sizes": (
        *("model=qwen2.5_0.5b", "data=files", "data.sets=[a.jsonl,'b c.jsonl']", "regime=qlora", "regime.bits=8", "node=h100_80"),
        *("optim.lr=3e-5", "evaluation.generate='It\\'s \"a\", \\\\ b'", "cluster=slurm", "cluster.memory=64GB", "name='1.10'"),
    ),
    "a model of one's own": (
        *("model=local", "model.path=/models/own", "data=files", "data.sets=[x]", "stage=dpo", "optim=galore", "optim.rank=7"),
        "model.added_tokens=['<a>','<b>']",
    ),
    "another shape of a preset": ("model=qwen2.5_0.5b", "model.architecture.hidden_size=64", "model.init=random", "data=demo", "sharding=fsdp2"),
}


def of_file(path: Path) -> Composed:
    return compose([line.text for line in read_run_file(path)])


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_what_is_written_composes_the_same_run(run: tuple[str, ...], tmp_path: Path) -> None:
    wanted = composed(*run)
    short, whole = tmp_path / "mine.yaml", tmp_path / "run.yaml"
    short.write_text(as_file(described(wanted), "A run."))
    assert of_file(short) == wanted
    whole.write_text(yaml.safe_dump(run_as_dict(wanted), sort_keys=False, allow_unicode=True))  # as every run folder has it
    assert of_file(whole) == wanted


def test_a_table_of_a_group_is_the_same_as_dotted_keys(tmp_path: Path) -> None:
    tables, dotted = tmp_path / "tables.yaml", tmp_path / "dotted.yaml"
    tables.write_text("recipe: demo\nregime: {name: lora, rank: 4}\noptim:\n  lr: 1e-4\n  scheduler: linear\nname: yes\n")
    dotted.write_text("recipe: demo\nregime: lora\nregime.rank: 4\noptim.lr: 0.0001\noptim.scheduler: 'linear'\nname: 'yes'\n")
    assert of_file(tables) == of_file(dotted)
    assert of_file(tables).name == "yes"


@given(st.text(min_size=1).filter(lambda text: text.isprintable()))
def test_every_text_arrives_as_it_stands(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "text.yaml"
    path.write_text(yaml.safe_dump({"evaluation.generate": text}, allow_unicode=True), encoding="utf-8")
    [line] = read_run_file(path)
    assert OverridesParser.create().parse_override(line.text).value() == text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("stage: sft\noptim.learning: 1\n", "mine.yaml, line 2: optim.learning is not a key. Did you mean optim.lr=1?"),
        ("optim:\n  lr: 1e-4\n  eppsilon: 1\n", "mine.yaml, line 3: optim.eppsilon is not a key. Did you mean optim.eps=1?"),
        ("optim.lr: 1\nstage: sft\noptim.lr: 2\n", "mine.yaml, line 3: optim.lr stands there a second time; first in"),
        ("defaults: [x]\n", "mine.yaml, line 1: a file of a run has no defaults list"),
        ("regime: [lora, full]\n", "mine.yaml, line 1: regime needs exactly one choice"),
        ("stage: [\n", "is not YAML"),
        ("{" * 20_000, "is nested too deeply to be read"),
        ("- a\n", "holds no keys. Write one a line"),
        ("", "holds no keys. Write one a line"),
        ("lora_rank: 8\nlearning_rate: 1e-4\n", "is a file of LLaMA-Factory (lora_rank, learning_rate, ...). Translate it: regimen import"),
        ("base_model: a/b\nlearning_rate: 1e-4\n", "is a file of axolotl (base_model, ...). Translate it: regimen import"),
    ],
)
def test_a_mistake_is_named_with_its_file_and_line(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_run_file(path)
    assert said in str(caught.value)


def test_a_value_that_the_key_cannot_have_is_named_with_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("recipe: demo\nregime.rank: 3x\n")
    assert main(["plan", str(path)]) == 2
    assert f"regime.rank='3x' is not possible. It must be a whole number. (regime.rank: {path}, line 2)" in capsys.readouterr().err


def test_overrides_after_a_file_win_and_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("recipe: demo\nregime: lora\nregime.rank: 8\n")
    assert main(["plan", "--cfg", str(path), "regime.rank=4", "regime=qlora"]) == 0
    printed = capsys.readouterr()
    assert yaml.safe_load(printed.out)["regime"] | {"rank": 4, "name": "qlora"} == yaml.safe_load(printed.out)["regime"]
    assert "note: regime.rank=8 is replaced by regime.rank=4, which is given after it." in printed.err


def test_plan_saves_a_file_that_plans_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, run = tmp_path / "mine.yaml", ["recipe=demo", "node=h100_80", "regime.rank=4", f"output={tmp_path / 'outputs'}"]
    assert main(["plan", *run, "--save", str(path)]) == 0
    capsys.readouterr()
    assert (main(["plan", *run]), main(["plan", str(path)])) == (0, 0)
    first, second = capsys.readouterr().out.split("\nrun folder:")[0], None
    assert main(["plan", str(path)]) == 0
    second = capsys.readouterr().out.split("\nrun folder:")[0]
    assert first == second
    assert main(["plan", *run, "--save", str(path)]) == 2
    assert f"{path} exists. Give the file another name" in capsys.readouterr().err


def test_a_file_that_is_not_there_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", str(tmp_path / "none.yaml")]) == 2
    assert "none.yaml does not exist. Name a file of a run" in capsys.readouterr().err
