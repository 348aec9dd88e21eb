"""What a user may get wrong in an override or in a file of their own, and the one message that each mistake gives."""

from pathlib import Path

import pytest

from conf.schema import Lora, Qlora
from launcher.composition.compose import choices, compose
from launcher.errors import ConfigError, Unsafe
from launcher.rules.ranges import check_values

DEMO = ["model=demo", "data=demo"]
TOKEN = "hf_abcdefghijklmnopqrstuvwxyz"


def message(*overrides: str, config_dir: Path | None = None) -> str:
    with pytest.raises(ConfigError) as refused:
        compose([*DEMO, *overrides], [config_dir] if config_dir else [])
    return str(refused.value)


def own_file(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return folder


def test_nothing_said_means_the_demo() -> None:
    run = compose([])
    assert (run.name, run.model.name, run.data.sets) == ("demo", "demo", ["generated"])


def test_an_architecture_belongs_in_a_file() -> None:
    with pytest.raises(ConfigError, match=r"model.architecture .*Write it to a file FOLDER/model/NAME.yaml"):
        compose(["model=local", "model.path=null", "model.architecture={model_type: llama}"])


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("model=demo", "data has no choice. Add data=files 'data.sets=[FILE]' for data of your own, or data=demo"),
        ("model.path=/models/a", "data has no choice."),
        ("data=demo", "model has no choice. Add a preset such as model=qwen2.5_0.5b, or model=local model.path=FOLDER_OR_HUB_ID"),
        ("data.sets=[a.jsonl]", "data has no choice. For the given data.sets, add: data=files"),
    ],
)
def test_a_stated_model_or_data_is_not_filled_up_by_the_demo(override: str, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        compose([override])
    assert str(refused.value).startswith(said)


def test_a_given_path_without_its_choice_is_told_with_the_choice() -> None:
    with pytest.raises(ConfigError, match=r"^model has no choice\. For the given model\.path, add: model=local$"):
        compose(["model.path=a/b", "data=demo"])


@pytest.mark.parametrize("override", ["data.packing=true", "model.vocab_multiple=64"])
def test_a_key_that_names_neither_model_nor_data_leaves_the_demo(override: str) -> None:
    assert compose([override]).model.name == "demo"


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("Qwen/Qwen2.5-0.5B-Instruct", "Qwen2.5-0.5B-Instruct"),
        ("/models/法律-7b/", "法律-7b"),
        ("../my model (new)", "my_model__new_"),
        ("outputs/law/2026-11-29_10-00-00/model", "law"),
        ("outputs/law/2026-11-29_10-00-00-1/exports/final-merged", "law"),
        ("/cache/hub/models--Qwen--Qwen3-8B/snapshots/" + 40 * "a", "Qwen3-8B"),
        ("/models/.hidden", "hidden"),
        ("/model", "model"),
    ],
)
def test_a_local_model_names_its_run_by_its_folder(path: str, name: str) -> None:
    run = compose(["model=local", f"model.path='{path}'", "data=demo"])
    assert (run.model.name, run.name) == (name, f"sft-lora-{name}")
    check_values(run)


def test_a_name_that_is_given_to_a_local_model_stays() -> None:
    assert compose(["model=local", "model.path=a/b", "model.name=mine", "data=demo"]).name == "sft-lora-mine"


def test_keys_of_other_groups_leave_the_demo_in_place() -> None:
    assert compose(["optim.lr=0.5", "name=modelled"]).data.sets == ["generated"]


def test_overrides_beside_the_demo_win_over_its_values() -> None:
    assert compose(["regime.rank=4"]).regime == Lora("lora", 4, 64.0, 0.0, ["all-linear"], False, False, "default", None, None)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("regime.rnk=4", "Did you mean regime.rank=4?"),
        ("regim.rank=4", "Did you mean regime.rank=4?"),
        ("rank=4", "Did you mean regime.rank=4?"),
        ("gate.canary_steps=3", "Did you mean gate.canary, which is true or false?"),
        ("gate.canery=true", "Did you mean gate.canary=true?"),
        ("optim.learning_rate=1", "optim.learning_rate is not a key. It is LLaMA-Factory's name for optim.lr. Write: optim.lr=1"),
        ("Regime=lora", "Did you mean regime=lora?"),
        ("regime=loar", "regime=loar is not a choice. Did you mean regime=lora? regime is one of: freeze, full, lora, qlora."),
        ("model=demoo", "Did you mean model=demo?"),
        ("model=/etc/passwd", "model=/etc/passwd is not a choice. Write: model=local model.path=/etc/passwd"),
        ("recipe=dmo", "recipe=dmo is not a choice. Did you mean recipe=demo?"),
        ("cluster.time=1:00:00", "cluster.time is not a key of the chosen cluster, but of cluster=slurm."),
        ("model.architecture.hidden_sze=3", "'model.architecture={hidden_sze: VALUE}'"),
    ],
)
def test_a_wrong_name_is_told_with_the_right_one(override: str, said: str) -> None:
    assert said in message(override)


def test_a_key_of_another_choice_is_told_as_such() -> None:
    assert "regime.rank is not a key of the chosen regime, but of regime=lora or qlora." in message("regime=full", "regime.rank=4")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("regime.rank=abc", "regime.rank=abc is not possible. It must be a whole number."),
        ("regime.rank=1.5", "regime.rank=1.5 is not possible. It must be a whole number."),
        ("regime.rank=", "regime.rank= is not possible. It must be a whole number."),
        ("regime.rank=null", "regime.rank=null is not possible. Give regime.rank a value."),
        ("regime.rank=???", "Set regime.rank="),
        ("data=files", "data.sets has no value. Set 'data.sets=[FILE]', with a file"),
        ("data.packing=maybe", "data.packing=maybe is not possible. It must be true or false."),
        ("data.sets=one", "data.sets must be a list. Write: 'data.sets=[one]'"),
        ("optim.lr=fast", "optim.lr=fast is not possible. It must be a number."),
        ("data.sets=[null]", "data.sets[0]=null is not possible. Each entry must be one text: write it, or leave it out."),
        ("model.architecture=abc", "model.architecture"),
        ("name=null", "name=null"),
    ],
)
def test_a_value_of_the_wrong_type_is_told_with_its_key(override: str, said: str) -> None:
    assert said in message(override)


@pytest.mark.parametrize("override", ["+regime.rank=4", "++regime.rank=4", "~regime.rank", "~regime.rank=16"])
def test_keys_are_neither_added_nor_removed(override: str) -> None:
    said = message(override)
    assert override in said
    assert "Did you mean regime.rank?" in said


@pytest.mark.parametrize("group", ["model", "regime", "gate", "recipe"])
def test_null_is_a_choice_of_no_group(group: str) -> None:
    assert f"{group}=null: {group} needs exactly one choice. Use one of: " in message(f"{group}=null")


@pytest.mark.parametrize("override", ["regime=[lora,qlora]", "regime=[lora]", "regime=4", "regime=true"])
def test_a_group_takes_one_choice(override: str) -> None:
    assert f"{override}: regime needs exactly one choice. Use one of: freeze, full, lora, qlora." in message(override)


@pytest.mark.parametrize("override", ["regime.name=full", "sharding.name=zero3", "cluster.name=slurm", "stage.name=dpo"])
def test_a_choice_cannot_be_renamed(override: str) -> None:
    assert "the name of a choice cannot be set" in message(override)


@pytest.mark.parametrize("override", ["name=a\nb", "name=${", "regime:lora=full"])
def test_what_is_no_override_is_told_as_it_stands(override: str) -> None:
    assert f"{override!r} cannot be read as key=value" in message(override)


@pytest.mark.parametrize("override", ["", "regime.rank", "@x", "-x"])
def test_what_has_no_equals_sign_is_told_as_it_stands(override: str) -> None:
    assert f"{override!r} is not key=value. Write" in message(override)


def test_a_value_without_a_key_is_told() -> None:
    assert "'=4' names no key" in message("=4")


@pytest.mark.parametrize("override", ["regime=lora,qlora", "regime.rank=4,8", "regime.rank=range(1,3)", "optim.lr=choice(1,2)"])
def test_several_values_are_a_sweep(override: str) -> None:
    said = message(override)
    assert override in said
    assert "-m" in said or "--multirun" in said


@pytest.mark.parametrize("override", ["hydra.run.dir=/tmp/x", "hydra/launcher=gpu_pool"])
def test_settings_of_sweeps_are_refused_for_one_run(override: str) -> None:
    assert f"{override} is a setting of sweeps" in message(override)


@pytest.mark.parametrize(
    "override", ["schema=run", "schema/regime=qlora", "regime@other=lora", "model@data=demo", "defaults=[]", "_self_=1", "regime/lora=4"]
)
def test_hydras_own_words_are_no_keys(override: str) -> None:
    assert override.split("=")[0] + " is not a key" in message(override)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (
            "${oc.env:REGIMEN_UNSET}",
            "name refers to the environment variable REGIMEN_UNSET, which is not set. Set it, or write the value itself.",
        ),
        ("${stage.nmae}", "name refers to ${stage.nmae}, which is not a key. Write the value itself, or a whole key such as ${training.seed}."),
        ("${name}", "name cannot be resolved"),
        ("${nowhere:x}", "name cannot be resolved: Unsupported interpolation type nowhere"),
    ],
)
def test_an_interpolation_to_nowhere_is_told(value: str, said: str) -> None:
    assert said in message(f"name={value}")


@pytest.mark.parametrize("override", [f"name={TOKEN}", "name=correct-horse-battery", "regime.rank=${oc.env:MY_API_KEY}", "name=${oc.env:MY_API_KEY}"])
def test_a_secret_is_refused_and_never_shown(override: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_API_KEY", "correct-horse-battery")
    with pytest.raises(Unsafe) as refused:
        compose([*DEMO, override])
    assert TOKEN not in str(refused.value)
    assert "correct-horse-battery" not in str(refused.value)


@pytest.mark.parametrize("field", ["targets: [SECRET]", "rank: SECRET", "SECRET: 4"])
def test_a_secret_in_a_file_is_refused_and_never_shown(field: str, tmp_path: Path) -> None:
    own_file(tmp_path, "regime/mine.yaml", f"defaults: [lora, _self_]\n{field.replace('SECRET', TOKEN)}\n")
    with pytest.raises(Unsafe) as refused:
        compose([*DEMO, "regime=mine"], [tmp_path])
    assert TOKEN not in str(refused.value)


def test_a_choice_of_ones_own_starts_from_a_built_in_one(tmp_path: Path) -> None:
    own_file(tmp_path, "regime/wide.yaml", "defaults: [qlora, _self_]\nrank: 64\n")
    run = compose([*DEMO, "regime=wide", "name=${regime.name}-r${regime.rank}"], [tmp_path])
    assert run.name == "qlora-r64"
    assert run.regime == Qlora("qlora", 64, 32.0, 0.0, ["all-linear"], False, False, "default", None, None, 4, True, False)


def test_a_recipe_of_ones_own_names_choices_and_values(tmp_path: Path) -> None:
    own_file(
        tmp_path, "recipe/mine.yaml", "# @package _global_\ndefaults:\n  - override /model: demo\n  - override /data: demo\nregime:\n  rank: 7\n"
    )
    run = compose(["recipe=mine"], [tmp_path])
    assert (run.model.name, vars(run.regime)["rank"]) == ("demo", 7)


def test_groups_may_lie_in_several_folders(tmp_path: Path) -> None:
    first = own_file(tmp_path / "a", "regime/mine.yaml", "defaults: [lora, _self_]\nrank: 3\n")
    second = own_file(tmp_path / "b", "optim/mine.yaml", "defaults: [adamw, _self_]\nlr: 0.5\n")
    run = compose([*DEMO, "regime=mine", "optim=mine"], [first, second])
    assert (vars(run.regime)["rank"], run.optim.lr) == (3, 0.5)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("defaults: [lora, _self_]\nrnk: 64\n", "In regime/mine.yaml: regime.rnk is not a key. Did you mean regime.rank?"),
        ("defaults: [lora, _self_]\nrank: abc\n", "In regime/mine.yaml: regime.rank=abc is not possible. It must be a whole number"),
        ("defaults: [lora, _self_]\nrank: null\n", "In regime/mine.yaml: regime.rank: Incompatible value"),
        ("rank: [3\nalpha: 4\n", 'regime/mine.yaml", line 2'),
        ("defaults: [lora, _self_]\n\trank: 3\n", 'regime/mine.yaml", line 2, column 1'),
        ("rank: 3\nrank: 4\n", "duplicate key rank"),
        ("rank: !!python/object/apply:os.system ['true']\n", "could not determine a constructor"),
        ("- a\n", "In regime/mine.yaml: the file is not a table of keys. Write lines of the form `key: value`."),
        ("hello\n", "In regime/mine.yaml"),
        ("defaults: lora\n", "In regime/mine.yaml: defaults must be a list. Write: defaults: [CHOICE, _self_]"),
        ("defaults: [loar, _self_]\n", "regime/mine.yaml starts from loar, which is not a choice. Did you mean lora?"),
        ("defaults:\n  - lora: x\n", "holds the names of choices alone. Write: defaults: [lora, _self_]"),
        ("rank 3\n", "In regime/mine.yaml: `rank 3` has no colon. Write: rank: 3"),
        ("regime:\n  rank: 3\n", "In regime/mine.yaml: a file of the group regime holds its keys without `regime:` around them."),
        ("targets: q_proj\n", "In regime/mine.yaml: regime.targets must be a list. Write: targets: [FIRST, SECOND]"),
        ("bits: 4\n", "of the choice that the file starts from, but of regime=qlora. Begin the file with: defaults: [qlora, _self_]"),
        ("defaults: [mine, _self_]\n", "leads back to its own file"),
        ("defaults: [lora, _self_]\nname: mine\n", "keep the `name` of the choice that it starts from"),
    ],
)
def test_a_file_with_a_mistake_is_named(text: str, said: str, tmp_path: Path) -> None:
    assert said in message("regime=mine", config_dir=own_file(tmp_path, "regime/mine.yaml", text))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("# @package _global_\nregime:\n  rnk: 7\n", "In recipe/mine.yaml: regime.rnk is not a key. Did you mean regime.rank?"),
        ("regime:\n  rnk: 7\n", "In recipe/mine.yaml: regime.rnk is not a key. Did you mean regime.rank?"),
        ("learning_rate: 1\n", "In recipe/mine.yaml: learning_rate is not a key. It is LLaMA-Factory's name for optim.lr. Write optim.lr=VALUE"),
        ("optim.lr: 1\n", "In recipe/mine.yaml: optim.lr has a dot. In a file, write optim: on one line, and lr: below it"),
        ("optim:\n  lr: fast\n", "In recipe/mine.yaml: optim.lr=fast is not possible. It must be a number."),
        ("defaults: x\n", "In recipe/mine.yaml: defaults must be a list. Write: defaults: - override /model: CHOICE"),
        ("defaults:\n  - override model: demo\n", "Write there: - override /model: demo"),
        ("defaults:\n  - data: demo\n", "Write there: - override /data: demo"),
        ("regime: qlora\n", "recipe/mine.yaml: the choice regime: qlora is made in the defaults list. Write there: - override /regime: qlora"),
        ("# @package _global_\ndefaults:\n  - override /modle: demo\n", "modle is not a key. Did you mean model?"),
    ],
)
def test_a_recipe_with_a_mistake_is_named(text: str, said: str, tmp_path: Path) -> None:
    assert said in message("recipe=mine", config_dir=own_file(tmp_path, "recipe/mine.yaml", text))


NEEDED = {"cluster=hosts": ["cluster.hosts=[node1]"]}  # by choice: keys without a default


@pytest.mark.parametrize("group", ["regime", "optim", "sharding", "backend", "cluster", "tracking"])
def test_every_built_in_choice_composes_and_keeps_its_limits(group: str) -> None:
    for choice in choices(group):
        run = compose([*DEMO, f"{group}={choice}", *NEEDED.get(f"{group}={choice}", [])])
        check_values(run)
        assert vars(getattr(run, group)).get("name", choice) == choice
