"""Choices of the user's own: what a file leaves out, the line that says so, and the page that shows such files."""

import re
import shlex
from pathlib import Path

import pytest

from conf.groups import built_in_choices
from conf.schema import GROUPS, Lora
from launcher.cli import main
from launcher.composition import own_groups
from launcher.composition.compose import compose
from launcher.errors import ConfigError
from tests.launcher.composition.test_compose import DEMO, message, own_file

PAGE = Path(__file__).resolve().parents[3] / "docs" / "reference" / "own_groups.md"
FILE = re.compile(r"^`(?P<path>[\w./]+)`: .*?\n\n```(?:yaml|json)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
COMMANDS = re.compile(r"^```bash\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(autouse=True)
def nothing_told() -> None:
    own_groups.tell.cache_clear()


def test_a_choice_that_would_hide_behind_a_built_in_one_is_refused(tmp_path: Path) -> None:
    own_file(tmp_path, "regime/lora.yaml", "rank: 99\n")
    assert f"{tmp_path}/regime/lora.yaml has the name of a built-in choice" in message(config_dir=tmp_path)


def test_a_file_that_hydra_would_not_read_is_refused(tmp_path: Path) -> None:
    own_file(tmp_path, "regime/mine.yml", "rank: 99\n")
    assert f"{tmp_path}/regime/mine.yml would not be read, because choices are files that end in .yaml" in message(config_dir=tmp_path)


def test_a_config_dir_that_is_none_is_refused(tmp_path: Path) -> None:
    assert f"--config-dir {tmp_path / 'none'} is not a folder" in message(config_dir=tmp_path / "none")


def test_a_file_of_one_key_gets_the_others_from_the_default_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = own_file(tmp_path, "regime/mine.yaml", "rank: 3\n")
    for _ in range(2):
        assert compose([*DEMO, "regime=mine"], [folder]).regime == Lora("lora", 3, 32.0, 0.0, ["all-linear"], False, False, "default", None, None)
    shown = capsys.readouterr()
    left_out = "alpha, dropout, targets, rslora, dora, init, lora_plus_ratio, adapter"
    assert shown.err == f"note: {folder}/regime/mine.yaml has no defaults list. It leaves out {left_out}, which are as in regime=lora.\n"
    assert shown.out == ""


def test_a_file_that_leaves_nothing_out_needs_no_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = own_file(tmp_path, "checkpoint/mine.yaml", "interval: 7\nkeep: 2\nresume: newest\nbackground: false\n")
    assert compose([*DEMO, "checkpoint=mine"], [folder]).checkpoint.interval == 7
    assert capsys.readouterr().err == ""


def test_a_file_with_a_defaults_list_needs_no_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compose([*DEMO, "regime=mine"], [own_file(tmp_path, "regime/mine.yaml", "defaults: [lora, _self_]\nrank: 3\n")])
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("group", [group for group in GROUPS if group not in ("model", "data")])
def test_an_empty_file_of_any_group_is_its_base(group: str, tmp_path: Path) -> None:
    mine, base = compose([*DEMO, "node=cpu", f"{group}=mine"], [own_file(tmp_path, f"{group}/mine.yaml", "{}\n")]), compose([*DEMO, "node=cpu"])
    left, right = vars(getattr(mine, group)), vars(getattr(base, group))
    if left.get("name") == "mine":
        left = {**left, "name": right["name"]}
    assert left == right


def test_a_model_a_data_set_and_a_node_are_called_like_their_files(tmp_path: Path) -> None:
    own_file(tmp_path, "model/law.yaml", "path: me/law\n")
    own_file(tmp_path, "data/cases.yaml", "sets: [a.jsonl]\n")
    own_file(tmp_path, "node/ours.yaml", "gpus: 4\ngpu_memory: 51539607552\n")
    run = compose(["model=law", "data=cases", "node=ours"], [tmp_path])
    assert (run.model.name, run.data.name, run.node.name) == ("law", "cases", "ours")
    assert (run.model.init, run.data.cutoff, run.node.auto, run.node.gpus, run.node.gpu_name) == ("pretrained", 2048, False, 4, None)
    assert run.name == "sft-lora-law"


def test_a_node_of_gpus_without_their_number_is_refused(tmp_path: Path) -> None:
    own_file(tmp_path, "node/ours.yaml", "gpu_memory: 51539607552\n")
    assert "node/ours.yaml describes GPUs and does not say how many. Add the line `gpus: 8`" in message("node=ours", config_dir=tmp_path)
    own_file(tmp_path, "node/here.yaml", "auto: true\ngpu_memory: 51539607552\n")
    assert compose([*DEMO, "node=here"], [tmp_path]).node.gpus is None


def test_a_recipe_that_chooses_without_override_is_told_how(tmp_path: Path) -> None:
    own_file(tmp_path, "recipe/mine.yaml", "defaults:\n  - /data: demo\n")
    with pytest.raises(
        ConfigError, match=r"recipe/mine\.yaml: the choice data: demo is made in the defaults list\. Write there: - override /data: demo$"
    ):
        compose(["recipe=mine"], [tmp_path])


def test_a_recipe_needs_no_package_line(tmp_path: Path) -> None:
    own_file(tmp_path, "recipe/mine.yaml", "regime:\n  rank: 7\n")
    run = compose([*DEMO, "recipe=mine"], [tmp_path])
    assert vars(run.regime)["rank"] == 7


@pytest.mark.parametrize(
    ("files", "given", "said"),
    [
        ([], ".", "--config-dir . holds no choice of a group. A choice is a file such as ./model/NAME.yaml"),
        (["mine/regime/wide.yaml"], "mine/regime", "It is a group itself. Give the folder above it: --config-dir mine"),
        (["mine/models/law.yaml"], "mine", "mine/models/law.yaml would not be read, because models is not a group. Rename the folder to model."),
        (["mine/Regime/wide.yaml"], "mine", "mine/Regime/wide.yaml would not be read, because Regime is not a group. Rename the folder to regime."),
        (["law.yaml"], ".", "--config-dir . holds no choice of a group."),
    ],
)
def test_a_folder_of_which_nothing_would_be_read_is_refused(
    files: list[str], given: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in files:
        own_file(tmp_path, name, "rank: 3\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as refused:
        compose(DEMO, [Path(given)])
    assert said in str(refused.value).replace(". A choice is a file such as model", ". A choice is a file such as ./model")


def test_the_bases_are_choices() -> None:
    assert {group for group, base in own_groups.BASES.items() if base not in built_in_choices(group)} == set()


@pytest.fixture
def page_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    files = FILE.findall(PAGE.read_text(encoding="utf-8"))
    assert {path.split("/")[1] for path, _ in files if path.startswith("mine/")} == {"model", "data", "node", "regime", "recipe"}
    for path, text in files:
        own_file(tmp_path, path, text * 200 if path.endswith(".jsonl") else text)  # the page shows one record of many
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("command", [line for block in COMMANDS.findall(PAGE.read_text(encoding="utf-8")) for line in block.splitlines()])
def test_the_files_and_commands_of_the_page_work_as_they_stand(command: str, page_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name, *argv = shlex.split(command)
    assert name == "regimen"
    assert main(argv) == 0
    out = capsys.readouterr().out
    assert "of law" in out or "name: law" in out
    assert "law.jsonl" in out


def test_the_recipe_of_the_page_makes_the_run_that_it_describes(page_folder: Path) -> None:
    run = compose(["recipe=law"], [page_folder / "mine"])
    assert (run.model.path, run.model.architecture is not None, run.data.sets, run.data.cutoff) == (
        "Qwen/Qwen2.5-0.5B-Instruct", True, ["law.jsonl"], 1024,
    )  # fmt: skip
    assert (run.node.gpus, vars(run.regime)["rank"], run.optim.lr, run.training.micro_batch, run.output) == (8, 64, 2e-4, 4, "law_runs")
