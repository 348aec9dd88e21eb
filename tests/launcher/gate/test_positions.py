import pytest

from launcher.composition.compose import compose
from launcher.errors import ConfigError
from launcher.gate.judge import judge_run

MODEL = ("model=qwen2.5_0.5b", "data=demo", "node=h100_80", "node.host_memory=400000000000", "model.init=random", "model.tokenizer=bytes")


def test_a_cutoff_beyond_the_models_positions_is_refused_with_the_largest_that_works():
    message = r"data.cutoff=40000 is longer than the 32768 positions of qwen2.5_0.5b. Set data.cutoff=32768 or less, or stretch"

    with pytest.raises(ConfigError, match=message):
        judge_run(compose([*MODEL, "data.cutoff=40000"]))


@pytest.mark.parametrize("overrides", [("data.cutoff=32768",), ("data.cutoff=40000", "model.rope_scaling=yarn")])
def test_the_last_position_and_stretched_ones_are_planned(overrides):
    assert judge_run(compose([*MODEL, *overrides])).facts.max_positions == 32768


@pytest.mark.parametrize("override", ["training.micro_batch=0", "training.micro_batch=-1", "data.cutoff=0"])
def test_no_batch_and_no_length_are_refused(override):
    with pytest.raises(ConfigError, match="is out of range"):
        judge_run(compose([*MODEL, override]))


def test_an_absurd_batch_is_refused_by_the_gate_and_not_by_an_overflow():
    verdict = judge_run(compose([*MODEL, "training.micro_batch=1000000000", "data.sets=[org/name]"])).verdict

    assert not verdict.permitted
    assert verdict.headroom < -(10**15)
