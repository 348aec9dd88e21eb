"""What ppo and grpo ask of a run before anything starts."""

import json
from pathlib import Path

import pytest

from conf.run_dir import RunDir, save_run
from conf.schema import Run
from launcher.composition.compose import compose
from launcher.errors import ConfigError, DataError
from launcher.rules.ranges import check_values
from launcher.rules.rewards import nearest_common_multiples, refuse_too_few_prompts, steps_of_an_epoch
from tests.described import described

COMMON = ("model=demo", "data=demo", "node=cpu")


def check(*overrides: str) -> None:
    check_values(compose([*COMMON, *overrides]))


def run_of(*overrides: str) -> Run:
    return described(*COMMON, "cluster.ranks_per_node=2", *overrides)


def settled_batch(*overrides: str) -> int | None:
    return run_of("stage=grpo", *overrides).training.effective_batch


def reward_run(path: Path, stage: str, finished: bool) -> Path:
    run_dir = RunDir(path)
    run_dir.path.mkdir()
    save_run(compose([*COMMON, f"stage={stage}"]), run_dir)
    if finished:
        run_dir.model.mkdir()
    return path


def test_ppo_needs_a_reward_model() -> None:
    with pytest.raises(ConfigError, match=r"stage=ppo needs a reward model. Set stage.reward_model .*, or use stage=dpo"):
        check("stage=ppo")


def test_a_reward_model_is_a_finished_run_of_stage_rm(tmp_path: Path) -> None:
    check("stage=ppo", f"stage.reward_model={reward_run(tmp_path / 'good', 'rm', finished=True)}")
    with pytest.raises(ConfigError, match=r"other is a run of stage=sft. Give the folder of a run of stage=rm"):
        check("stage=ppo", f"stage.reward_model={reward_run(tmp_path / 'other', 'sft', finished=True)}")
    with pytest.raises(ConfigError, match=r"early is not finished: it has no model/"):
        check("stage=ppo", f"stage.reward_model={reward_run(tmp_path / 'early', 'rm', finished=False)}")


@pytest.mark.parametrize(
    ("file", "holds", "message"),
    [
        ("config.json", {"architectures": ["LlamaForCausalLM"]}, "holds LlamaForCausalLM, which is not a sequence classifier"),
        ("config.json", {}, "holds no known architecture, which is not a sequence classifier"),
        ("adapter_config.json", {"task_type": "CAUSAL_LM"}, "holds an adapter of kind CAUSAL_LM"),
        ("config.json", {"architectures": ["LlamaForSequenceClassification"]}, None),
        ("adapter_config.json", {"task_type": "SEQ_CLS"}, None),
    ],
)
def test_a_folder_must_hold_a_sequence_classifier(file: str, holds: dict[str, object], message: str | None, tmp_path: Path) -> None:
    (tmp_path / file).write_text(json.dumps(holds))
    if message is None:
        check("stage=grpo", f"stage.reward_model={tmp_path}")
        return
    with pytest.raises(ConfigError, match=message):
        check("stage=grpo", f"stage.reward_model={tmp_path}")


def test_an_unreadable_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"holds no config\.json\. Give the folder of a run of stage=rm\."):
        check("stage=ppo", f"stage.reward_model={tmp_path}")
    RunDir(tmp_path).run_yaml.write_text("stage: [")
    with pytest.raises(ConfigError, match=r"its run.yaml cannot be read"):
        check("stage=ppo", f"stage.reward_model={tmp_path}")


def test_a_hub_id_is_believed_and_a_folder_that_is_not_there_is_refused() -> None:
    check("stage=ppo", "stage.reward_model=org/name")
    with pytest.raises(ConfigError, match=r"stage.reward_model=no/such/folder is neither a folder nor a hub id"):
        check("stage=ppo", "stage.reward_model=no/such/folder")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["stage.rewards=[]"], "no reward to learn from. Set stage.rewards"),
        (["stage.rewards=[exact]"], r"stage.rewards: exact is not known. Use exact_answer, contains_answer, format, brevity"),
        (["stage.rewards=[format]"], r"`format` needs stage.format, which is null"),
        (["stage.rewards=[format]", "stage.format='('"], r"stage.format=\( is not a regular expression"),
        (["stage.rewards=['mine:score']"], r"would run code of mine. If you trust it, allow it with stage.reward_packages=\[mine\]"),
        (["stage.rewards=['mine.a:b.c']", "stage.reward_packages=[mine]"], "is not an import path. Write package.module:function"),
        (["stage.generations=1"], "stage.generations=1 is out of range"),
        (["stage.loss_type=ppo"], "stage.loss_type=ppo is out of range. It must be one of dapo, grpo"),
        (["stage.kl_coef=-1"], "stage.kl_coef=-1.0 is out of range"),
    ],
)
def test_rewards_and_numbers_of_grpo_are_checked(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check("stage=grpo", *overrides)


def test_rewards_of_an_allowed_package_pass() -> None:
    check("stage=grpo", "stage.rewards=['mine.scores:praise',brevity]", "stage.reward_packages=[mine]")


def test_a_step_must_hold_whole_groups_and_the_nearest_sizes_are_told() -> None:
    assert settled_batch("training.micro_batch=4") == 8
    assert settled_batch("training.micro_batch=2", "training.effective_batch=16") == 16
    with pytest.raises(ConfigError) as caught:
        settled_batch("training.micro_batch=5")
    assert "training.effective_batch=10 is not a multiple of stage.generations=8" in str(caught.value)
    assert "Set training.effective_batch=40" in str(caught.value)
    assert "stage.generations=5 or 10" in str(caught.value)


def test_what_is_told_instead_passes() -> None:
    assert settled_batch("training.micro_batch=5", "training.effective_batch=40") == 40
    assert settled_batch("training.micro_batch=5", "stage.generations=5") == 10


def test_nearest_common_multiples_lie_around_the_wanted_number() -> None:
    assert nearest_common_multiples(30, 8, 6) == [24, 48]
    assert nearest_common_multiples(10, 8, 6) == [24]


def test_steps_are_counted_from_rollouts() -> None:
    """Two ranks of 4 make steps of 8; 100 prompts are 6 rollouts of 16, each read in 3 epochs of 2 steps; or 25 steps of 4 prompts with 2 answers."""
    ppo = run_of("stage=ppo", "training.micro_batch=4", "stage.mini_batches=2", "stage.epochs=3")
    grpo = run_of("stage=grpo", "training.micro_batch=4", "stage.generations=2")
    sft = run_of("stage=sft", "training.micro_batch=4")
    assert [steps_of_an_epoch(run, 100) for run in (ppo, grpo, sft)] == [36, 25, 13]
    assert [steps_of_an_epoch(run, 103) for run in (ppo, grpo, sft)] == [36, 25, 13]


def test_fewer_prompts_than_a_rollout_are_refused() -> None:
    ppo = run_of("stage=ppo", "training.micro_batch=4", "stage.mini_batches=2")
    refuse_too_few_prompts(ppo, 16)
    with pytest.raises(DataError, match=r"^15 prompts are fewer than the 16 that stage=ppo answers at once. Lower .* or stage.mini_batches,"):
        refuse_too_few_prompts(ppo, 15)
    refuse_too_few_prompts(run_of("stage=grpo", "training.micro_batch=4"), 1)
    refuse_too_few_prompts(run_of("stage=sft", "training.micro_batch=4"), 1)
