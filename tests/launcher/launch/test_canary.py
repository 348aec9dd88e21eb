"""When two real steps decide, what they train, and what their end means. The canary itself runs in tests/distributed."""

import json

import pytest

from launcher.composition.compose import compose
from launcher.errors import DataError
from launcher.gate.judge import Judged, judge_run
from launcher.launch.canary import after_canary, canary_run, is_needed, made_up_samples, steps_of, with_outcome
from launcher.launch.outcome import Outcome

JOB = ("model=llama3.1_8b", "data=demo", "regime=lora", "gate.floor=advisory", "training.precision=bf16", "training.fit=off", "gate.canary=true")


def decided(required_share: float, *overrides: str) -> Judged:
    """On one GPU whose memory is that share of what the job is predicted to need."""
    node = ("node=h200_141", "node.gpus=1", "node.host_memory=400000000000")
    predicted = judge_run(compose([*JOB, *node, *overrides])).estimate.required
    return judge_run(compose([*JOB, *node, f"node.gpu_memory={int(predicted * required_share)}", *overrides]))


@pytest.mark.parametrize(("share", "close"), [(0.98, False), (0.998, True), (1.0, True), (1.005, True), (1.011, False)])
def test_the_limit_is_close_within_the_uncertainty_below_and_the_margin_above(share, close):
    """llama with adapters on one GPU: uncertainty 0.35 %; gate.margin is 1 %."""
    verdict = decided(share).verdict

    assert bool(verdict.close) is close
    assert verdict.permitted is (share > 1.01)


def test_a_close_verdict_says_how_close():
    said = decided(1.0).verdict.close
    assert said.startswith("may or may not fit: ")
    assert "The limit lies within the margin of 1.0% or the estimate's uncertainty (one GPU: 98 % of the runs" in said
    # on another card as much memory may be too little: 2 % of some 17 GiB, and 0.29 GiB of context and sums, may be needed too
    elsewhere = decided(1.03, "node.gpu_name=A100-80GB").verdict
    assert elsewhere.permitted
    assert "no run was measured on this GPU" in elsewhere.close


@pytest.mark.parametrize("override", ["gate.canary=false", "gate.mode=advise", "cluster=slurm"])
def test_no_canary_runs_where_it_was_not_asked_for_or_nothing_is_enforced_or_the_node_is_elsewhere(override):
    assert is_needed(decided(1.0))
    assert not is_needed(decided(1.0, override))


def test_no_canary_runs_for_what_is_clear_or_fails_elsewhere():
    assert not is_needed(decided(1.2))
    assert not is_needed(decided(0.9))
    assert not is_needed(decided(1.0, "node.host_memory=100000000"))


def test_what_needs_no_canary_is_left_as_it_is():
    clear = decided(1.2)

    assert after_canary(clear) is clear


def test_a_canary_is_the_same_job_on_the_longest_samples_in_a_folder_of_its_own(tmp_path):
    run = decided(1.0).run
    canary = canary_run(run, tmp_path, tmp_path / "samples.json")

    assert (canary.model, canary.regime, canary.optim, canary.sharding, canary.node) == (run.model, run.regime, run.optim, run.sharding, run.node)
    assert (canary.training.micro_batch, canary.training.accumulation) == (run.training.micro_batch, run.training.accumulation)
    assert (canary.training.max_steps, canary.checkpoint.interval, canary.data.validation_share) == (2, 0, 0.0)
    assert canary.data.sets == [str(tmp_path / "samples.json")]
    assert canary.output == str(tmp_path)
    assert not canary.gate.canary


def test_every_made_up_sample_is_longer_than_the_cutoff_and_there_are_enough_for_both_steps():
    run = decided(1.0, "data.cutoff=100", "training.effective_batch=6", "training.micro_batch=3").run
    samples = json.loads(made_up_samples(run, steps_of(run) * run.training.effective_batch))

    assert len(samples) == 12
    assert all(len(sample["output"].split()) == 100 for sample in samples)


@pytest.mark.parametrize(("stage", "answers"), [("rm", ("chosen", "rejected")), ("dpo", ("chosen", "rejected")), ("kto", ("completion",))])
def test_made_up_answers_to_compare_are_longer_than_the_cutoff_and_differ(stage, answers):
    run = decided(1.0, f"stage={stage}", "data.cutoff=100", "training.micro_batch=2").run
    samples = json.loads(made_up_samples(run, 4))

    texts = [sample[name] for sample in samples for name in answers]
    assert all(len(text.split()) == 100 for text in texts)
    assert len(set(texts)) == 2  # pairs that are equal would be dropped, and labels that are all alike warned of
    assert stage != "kto" or {sample["label"] for sample in samples} == {True, False}


def test_the_canary_of_ppo_lasts_until_answers_are_written_beside_the_states_of_its_optimizer():
    assert steps_of(decided(1.0).run) == 2
    assert steps_of(decided(1.0, "stage=ppo", "stage.reward_model=org/judge", "stage.epochs=3", "stage.mini_batches=2").run) == 7


def test_a_canary_that_ran_permits_and_one_that_ran_out_of_memory_refuses():
    close = decided(1.0)

    permitted = with_outcome(close, Outcome(0, "finished")).verdict
    refused = with_outcome(close, Outcome(80, "CUDA out of memory")).verdict

    assert (close.verdict.permitted, permitted.permitted, refused.permitted) == (False, True, False)
    assert "a canary of 2 steps ran" in permitted.checks[-1].sentence
    assert "failed: CUDA out of memory" in refused.checks[-1].sentence
    assert [check.rule for check in refused.checks if check.binding and not check.passed] == ["CANARY"]


def test_a_canary_that_failed_for_another_reason_is_that_error():
    with pytest.raises(DataError, match="The canary failed: broken"):
        with_outcome(decided(1.0), Outcome(4, "broken"))
