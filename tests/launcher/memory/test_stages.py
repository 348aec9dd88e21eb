from dataclasses import replace

import pytest

from launcher.memory.estimate import estimate
from launcher.memory.job import worst_batch
from launcher.memory.stages import Copies, copies_of, facts_of_stage, forwards_of, sample_tokens
from launcher.memory.step.activations import Batch
from launcher.memory.step.stage_loss import loss_bytes_of
from launcher.memory.weights.dtypes import storage_of

ONE_GPU = ("model=llama3.1_8b", "node.gpus=1", "data.cutoff=1000")
PPO = ("stage=ppo", "stage.reward_model=judge", "stage.response_length=200")
GRPO = ("stage=grpo", "stage.generations=2", "stage.response_length=200", "training.micro_batch=2")


def terms_of(predicted, phase):
    return {term.name: term.bytes for term in next(found for found in predicted.phases if found.name == phase).terms}


@pytest.mark.parametrize(
    ("overrides", "copies"),
    [
        (("stage=sft", "regime=full"), Copies(reference=0, reward=0)),
        (("stage=rm", "regime=full"), Copies(reference=0, reward=0)),
        (("stage=dpo", "regime=full"), Copies(reference=1, reward=0)),
        (("stage=dpo", "regime=freeze"), Copies(reference=1, reward=0)),
        (("stage=dpo", "regime=lora"), Copies(reference=0, reward=0)),
        (("stage=dpo", "regime=full", "stage.precompute_reference=true"), Copies(reference=0, reward=0)),
        (("stage=kto", "regime=full"), Copies(reference=1, reward=0)),
        (("stage=kto", "regime=qlora"), Copies(reference=0, reward=0)),
        (("stage=orpo", "regime=full"), Copies(reference=0, reward=0)),
        ((*PPO, "regime=full"), Copies(reference=1, reward=1)),
        ((*PPO, "regime=lora"), Copies(reference=0, reward=1)),
        ((*GRPO, "regime=full"), Copies(reference=0, reward=0)),
        ((*GRPO, "regime=full", "stage.kl_coef=0.1"), Copies(reference=1, reward=0)),
        ((*GRPO, "regime=lora", "stage.kl_coef=0.1", "stage.reward_model=judge"), Copies(reference=0, reward=1)),
    ],
)
def test_a_reference_is_a_copy_only_where_no_adapter_can_be_switched_off(described, overrides, copies):
    run, _ = described(*ONE_GPU, *overrides)

    assert copies_of(run) == copies


def test_a_reference_takes_two_bytes_a_weight_and_is_split_by_zero3_alone(described):
    run, facts = described(*ONE_GPU, "stage=dpo", "regime=full")
    whole, _ = described(*ONE_GPU, "stage=dpo", "regime=full", "node.gpus=4", "sharding=zero2")
    split, _ = described(*ONE_GPU, "stage=dpo", "regime=full", "node.gpus=4", "sharding=zero3")

    assert terms_of(estimate(run, facts), "optimizer step")["reference model"] == 2 * facts.parameters
    assert terms_of(estimate(whole, facts), "optimizer step")["reference model"] == 2 * facts.parameters
    assert terms_of(estimate(split, facts), "optimizer step")["reference model"] == 2 * facts.parameters // 4


def test_a_reward_model_is_whole_on_every_rank_and_has_no_output_head(described):
    run, facts = described(*ONE_GPU, *PPO, "regime=lora", "node.gpus=4", "sharding=zero3")

    # 128256 x 4096 elements of the head are left out: its own has one row
    assert terms_of(estimate(run, facts), "optimizer step")["reward model"] == 2 * (facts.parameters - 128256 * 4096)


def test_a_reward_model_in_training_has_a_head_of_one_row(described):
    run, facts = described(*ONE_GPU, "stage=rm", "regime=full")

    assert facts_of_stage(run, facts).parameters == facts.parameters - 128256 * 4096 + 4096
    assert facts_of_stage(replace(run, stage=replace(run.stage, name="sft")), facts) == facts


@pytest.mark.parametrize(
    ("overrides", "batch", "tokens"),
    [
        (("stage=sft",), Batch(3, 1000, masked=True), 1000),
        (("stage=dpo",), Batch(6, 1000, masked=True), 2000),
        (("stage=kto",), Batch(3, 1000, masked=True), 1000),
        (PPO, Batch(3, 1200, masked=True), 1200),
    ],
)
def test_the_worst_batch_holds_both_sides_of_a_pair_and_the_answers_that_are_written(described, overrides, batch, tokens):
    run, facts = described(*ONE_GPU, *overrides, "training.micro_batch=3")

    assert worst_batch(run, facts) == batch
    assert sample_tokens(run) == tokens


def test_logits_are_fp32_once_and_a_log_probability_takes_three_times_them_backward(described):
    run, facts = described(*ONE_GPU, "stage=simpo")
    batch = Batch(4, 1000, masked=True)
    logits = 4 * 4 * 1000 * 128256

    found = loss_bytes_of(run, facts, storage_of(run), batch, 0)

    assert found.model == logits + logits // 2  # bf16 beside fp32
    assert found.outside == logits + logits // 4  # and the exponentials of one row of four
    assert found.backward == 3 * logits


def test_one_row_alone_needs_two_more_copies_of_itself_backward(described):
    run, facts = described(*ONE_GPU, *PPO)
    logits = 4 * 200 * 128256

    assert loss_bytes_of(run, facts, storage_of(run), Batch(1, 1200, masked=False), 0).backward == 4 * logits


def test_dpo_with_a_next_token_loss_holds_one_more_gradient_of_the_logits(described):
    plain, facts = described(*ONE_GPU, "stage=dpo")
    both, _ = described(*ONE_GPU, "stage=dpo", "stage.sft_weight=0.5")
    batch, logits = Batch(2, 1000, masked=True), 4 * 2 * 1000 * 128256

    without, beside = (loss_bytes_of(run, facts, storage_of(run), batch, 0) for run in (plain, both))

    assert beside.backward - without.backward == logits
    assert without.outside == 2 * logits + 3 * 4 * 128 * 128256  # a copy for the entropy, and the distribution of 128 tokens
    assert beside.outside - without.outside == logits // 2


def test_answers_are_written_with_keys_and_values_of_every_prompt_of_a_step(described):
    run, facts = described(*ONE_GPU, *PPO, "regime=lora", "training.micro_batch=2", "training.accumulation=4")

    # 32 layers of 8 heads of 128, keys and values in 2 bytes: 8 answers to 1000 tokens, 200 long
    assert terms_of(estimate(run, facts), "generation: answers")["keys and values"] == 2 * 32 * 8 * 128 * 2 * 8 * 1200
    assert terms_of(estimate(run, facts), "generation: prompts")["keys and values"] == 2 * 32 * 8 * 128 * 2 * 8 * 1000


@pytest.mark.parametrize(
    ("overrides", "forwards"),
    [
        (("stage=sft",), 0),
        (("stage=orpo",), 0),
        (("stage=dpo",), 1),
        (("stage=dpo", "stage.precompute_reference=true"), 0),
        (("stage=kto",), 3),
        ((*PPO, "stage.epochs=4"), 1),  # four, for four passes over the same answers
        (GRPO, 1),
        ((*GRPO, "stage.kl_coef=0.1"), 2),
    ],
)
def test_passes_without_gradients_are_counted_for_each_pass_that_learns(described, overrides, forwards):
    run, _ = described(*ONE_GPU, *overrides)

    assert forwards_of(run) == forwards


def test_a_reward_model_of_unknown_size_is_a_doubt(described):
    run, facts = described(*ONE_GPU, *PPO)

    assert any("stage.reward_model counts as large" in doubt for doubt in estimate(run, facts).doubts)


TWO_ZERO3 = ("model=qwen2.5_0.5b", "node.gpus=2", "sharding=zero3", "sharding.whole_layers=false", "data.cutoff=1000", "training.micro_batch=2")
WHOLE = 2 * 494_032_768  # Qwen2.5-0.5B: bytes of all weights
AROUND = WHOLE - 2 * 896  # all but the last norm
HEAD, UP = 2 * 151_936 * 896, 2 * 896 * 4864  # its tied head; one matrix of its MLP


@pytest.mark.parametrize(
    ("overrides", "gathered"),
    [
        (("stage=sft", "regime=full"), AROUND),
        (("stage=dpo", "regime=full"), AROUND),
        (("stage=dpo", "regime=lora"), 0),
        (("stage=kto", "regime=full"), 0),
        (("stage=kto", "regime=lora"), 0),
        ((*GRPO, "regime=full", "stage.kl_coef=0.1"), 0),
        ((*GRPO, "regime=full", "stage.kl_coef=0.1", "training.accumulation=2"), AROUND),
        ((*GRPO, "regime=lora", "stage.kl_coef=0.1", "training.accumulation=2"), 0),
        ((*PPO, "regime=full", "stage.epochs=2"), 0),
        ((*PPO, "regime=lora", "stage.epochs=2"), AROUND),
        ((*PPO, "regime=lora", "stage.epochs=1"), 0),
    ],
)
def test_zero3_keeps_weights_whole_around_the_loss_only_where_a_pass_is_like_the_one_before(described, overrides, gathered):
    found = terms_of(estimate(*described(*TWO_ZERO3, *overrides)), "backward: loss").get("gathered weights", 0)

    assert found == gathered


def test_where_zero3_foresees_nothing_the_module_that_runs_is_whole(described):
    predicted = estimate(*described(*TWO_ZERO3, "stage=kto", "regime=full"))

    assert terms_of(predicted, "backward: head")["gathered weights"] == HEAD
    assert terms_of(predicted, "backward: last layer")["gathered weights"] == UP
    assert terms_of(predicted, "backward: end")["gathered weights"] == HEAD


def test_answers_are_written_with_whole_weights_and_read_without_them(described):
    predicted = estimate(*described(*TWO_ZERO3, *PPO, "regime=full"))

    assert terms_of(predicted, "generation: answers")["gathered weights"] == WHOLE
    assert "gathered weights" not in terms_of(predicted, "generation: log-probabilities")


def test_a_copy_under_fsdp2_is_gathered_at_once(described):
    """Whole, and in one piece before it is cut into weights; with an adapter there is no copy, and groups are gathered one by one."""
    two = ("model=qwen2.5_0.5b", "node.gpus=2", "sharding=fsdp2", "stage=dpo")

    assert terms_of(estimate(*described(*two, "regime=full")), "forward: reference")["gathered reference"] == 2 * WHOLE
    assert "gathered reference" not in terms_of(estimate(*described(*two, "regime=lora")), "forward: reference")
