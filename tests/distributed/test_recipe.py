"""docs/guides/recipes/rlhf.md on a small model, through the command line: fine-tune, learn a reward, learn from it."""

from pathlib import Path

import pytest
from command_line import MODULE, Ended, call, entries, the_run
from transformers import AutoModelForCausalLM

pytestmark = [pytest.mark.distributed, pytest.mark.long]

TINY = (
    *("node=cpu", "cluster.ranks_per_node=1", "training.precision=fp32", "training.micro_batch=8", "training.gradient_checkpointing=false"),
    *("evaluation.interval=0", "data=demo", "data.max_samples=64", "data.validation_share=0", "regime=full", "optim.lr=1e-3"),
)
SMALL = ("model=demo", "model.architecture.hidden_size=32", "model.architecture.intermediate_size=64")


def train(stage: str, cwd: Path, *overrides: str) -> Ended:
    return call((*MODULE, "train", *TINY, f"stage={stage}", f"output={stage}", *overrides), cwd)


def test_a_model_is_tuned_then_judged_then_rewarded(tmp_path: Path) -> None:
    tuned = train("sft", tmp_path, *SMALL, "training.max_steps=3")
    assert tuned.code == 0, tuned.text[-2000:]
    start = ("model=local", f"model.path={the_run(tmp_path / 'sft').model}")

    judging = train("rm", tmp_path, *start, "training.max_steps=2")
    assert judging.code == 0, judging.text[-2000:]
    judge = the_run(tmp_path / "rm").path

    refused = train("ppo", tmp_path, *start, f"stage.reward_model={the_run(tmp_path / 'sft').path}")
    assert (refused.code, (tmp_path / "ppo").exists()) == (2, False)
    assert "is a run of stage=sft. Give the folder of a run of stage=rm" in refused.err

    rewarded = train("ppo", tmp_path, *start, f"stage.reward_model={judge}", "training.max_steps=3", "stage.epochs=2", "stage.response_length=6")
    assert rewarded.code == 0, rewarded.text[-2000:]
    run = the_run(tmp_path / "ppo")
    first, second, third = entries(run)
    assert first["kl"] == pytest.approx(0, abs=1e-4)  # the reference is where training starts
    assert "reward" not in second  # a rollout lasts for two steps
    assert third["kl"] != 0
    assert {"reward", "entropy", "answer_length", "value_loss", "eta_seconds"} <= third.keys()
    assert run.memory.is_file()
    assert run.loss_plot.is_file()
    _, told = AutoModelForCausalLM.from_pretrained(run.model, output_loading_info=True)
    assert not told["missing_keys"]
    assert not told["unexpected_keys"]
