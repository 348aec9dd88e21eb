"""Counts of a model with inserted blocks and added rows, against the model that trainers make."""

from copy import deepcopy
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, LlamaConfig, MixtralConfig, Qwen2MoeConfig

from conf.schema import Run
from launcher.composition.compose import compose
from launcher.errors import ConfigError
from launcher.facts.model import ModelFacts, model_facts
from launcher.facts.model.grown import grown, new_places, spread
from launcher.facts.node import settled_node
from launcher.gate.judge import judge_run
from launcher.gate.settle import settled
from trainers.regimes.new_blocks import insert_blocks

WIDTHS = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 100}


def described(*overrides: str) -> Run:
    run = compose(["model=demo", "data=demo", "node=cpu", *overrides])
    return settled(run, settled_node(run.node, run.node.gpus or 0))


def demo_facts(run: Run) -> ModelFacts:
    return model_facts(run.model.architecture, "test")


def test_blocks_come_after_every_so_many_layers() -> None:
    assert spread((0, 1, 2, 3), 2) == (0, 1, 2, 3, 4, 5)
    assert new_places(6, 2) == {2, 5}
    assert spread((0,), 2) == (0,)  # a leading dense layer is not copied
    assert spread((1, 2, 3), 2) == (1, 2, 3, 4, 5)


@pytest.mark.parametrize(
    "config",
    [
        LlamaConfig(num_hidden_layers=4, **WIDTHS),
        MixtralConfig(num_hidden_layers=4, num_local_experts=2, **WIDTHS),
        Qwen2MoeConfig(num_hidden_layers=4, num_experts=4, moe_intermediate_size=16, mlp_only_layers=[0, 1], **WIDTHS),
    ],
    ids=lambda config: config.model_type,
)
def test_counts_are_those_of_the_model_with_its_blocks_and_rows(config: LlamaConfig) -> None:
    facts = model_facts(config.to_dict(), "test")
    run = described("regime=freeze", "regime.layers=0", "regime.new_blocks=2", "model.vocab_multiple=64")
    model = AutoModelForCausalLM.from_config(deepcopy(config))
    insert_blocks(model, 2)
    model.resize_token_embeddings(128, mean_resizing=False)
    assert grown(facts, run).parameters == model.num_parameters()
    assert grown(facts, run).layers == len(model.model.layers) == 6


def test_every_added_token_gets_a_row_and_padding_comes_after_it() -> None:
    run = described('model.added_tokens=["<a>","<b>"]')
    assert grown(demo_facts(run), run).vocab == 266
    run = described('model.added_tokens=["<a>","<b>"]', "model.vocab_multiple=64")
    grown_facts = grown(demo_facts(run), run)
    assert (grown_facts.vocab, grown_facts.parameters - demo_facts(run).parameters) == (320, 56 * 128)


def test_blocks_that_do_not_spread_evenly_are_refused_before_anything_starts(tmp_path: Path) -> None:
    run = compose(["model=demo", "data=demo", "node=cpu", f"output={tmp_path}", "regime=freeze", "regime.layers=0", "regime.new_blocks=3"])
    with pytest.raises(ConfigError, match=r"regime\.new_blocks=3 cannot be spread evenly over 2 layers\. Choose one of 1, 2\."):
        judge_run(run)
