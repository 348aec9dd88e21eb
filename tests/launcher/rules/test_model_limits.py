from dataclasses import replace

import pytest

from conf.schema import Run
from launcher.errors import ConfigError
from launcher.facts.model import ModelFacts, model_facts
from launcher.rules.model_limits import passed_over, refuse_beyond_model
from tests.described import with_facts

DEMO = ("model=demo", "data=demo", "node=cpu")


@pytest.mark.parametrize(
    ("more", "found"),
    [
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "already scales them as llama3"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "already scales them as dynamic"),
        ({"rope_parameters": {"full_attention": {"rope_type": "default"}}}, "has no rotary positions of one kind"),
        ({"rope_local_base_freq": 1e4}, "has no rotary positions of one kind"),
    ],
)
def test_positions_that_cannot_be_stretched_are_refused(more: dict[str, object], found: str) -> None:
    run, facts = with_facts(*DEMO, "model.rope_scaling=yarn", "data.cutoff=1024")
    refuse_beyond_model(run, facts)
    changed = replace(run, model=replace(run.model, architecture={**run.model.architecture, **more}))
    with pytest.raises(ConfigError, match=rf"^model\.rope_scaling=yarn cannot be applied: .* {found}\. Set model\.rope_scaling=null\.$"):
        refuse_beyond_model(changed, facts)


def test_positions_that_are_not_rotary_are_refused() -> None:
    run, facts = with_facts(*DEMO, "model.rope_scaling=yarn")
    with pytest.raises(ConfigError, match="has no rotary positions of one kind"):
        refuse_beyond_model(run, replace(facts, traits=replace(facts.traits, unrotated=True)))


def test_two_bits_need_whole_groups() -> None:
    run, facts = with_facts(*DEMO, "regime=qlora", "regime.bits=2")
    refuse_beyond_model(run, facts)
    first = facts.linears[0]
    odd = tuple(replace(module, inputs=33, outputs=31) if module == first else module for module in facts.modules)
    with pytest.raises(ConfigError, match=rf"^regime\.bits=2: {first.name.replace('*', '.')} has 1023 weights, which is not a multiple of 64"):
        refuse_beyond_model(run, replace(facts, modules=odd))


@pytest.mark.parametrize("optimizer", ["muon", "galore", "apollo"])
def test_an_optimizer_of_matrices_needs_one_that_learns(optimizer: str) -> None:
    frozen = (*DEMO, f"optim={optimizer}", "regime=freeze", "regime.layers=0")
    with pytest.raises(ConfigError, match=rf"^optim={optimizer} .* only matrices between embedding and head, .* Use optim=adamw"):
        refuse_beyond_model(*with_facts(*frozen, "regime.modules=[norm,embed_tokens]"))
    refuse_beyond_model(*with_facts(*frozen, "regime.modules=[q_proj]"))
    refuse_beyond_model(*with_facts(*frozen, "regime.layers=1"))


ROUTED = {"model_type": "deepseek_v3", "vocab_size": 264, "hidden_size": 64, "intermediate_size": 128, "moe_intermediate_size": 32}
ROUTED |= {"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2, "n_routed_experts": 4, "first_k_dense_replace": 1}
ROUTED |= {"q_lora_rank": 16, "kv_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 8}


def mixture(*overrides: str, **widths: int) -> tuple[Run, ModelFacts]:
    run, _ = with_facts(*DEMO, *overrides)
    architecture = {**ROUTED, **widths}
    return replace(run, model=replace(run.model, architecture=architecture)), model_facts(architecture, "test")


def test_packed_experts_cannot_have_adapters() -> None:
    with pytest.raises(
        ConfigError, match=r"^regime\.targets names up_proj, which PEFT takes for the routed experts of deepseek_v3\. .* regime=lora\.$"
    ):
        refuse_beyond_model(*mixture("regime=qlora", "regime.targets=[q_proj,up_proj]"))
    refuse_beyond_model(*mixture("regime=lora", "regime.targets=[q_proj,up_proj]"))
    refuse_beyond_model(*mixture("regime=qlora", "regime.targets=[q_proj]"))


def test_a_note_says_which_layers_all_linear_leaves_out_beside_packed_experts() -> None:
    (note,) = passed_over(*mixture("regime=qlora"))
    assert (
        "the routed experts of deepseek_v3 are quantised and get no adapters, nor do gate_proj, up_proj and down_proj of mlp and shared_experts"
        in note
    )
    assert passed_over(*mixture("regime=lora")) == ()
    assert passed_over(*with_facts(*DEMO, "regime=qlora")) == ()


@pytest.mark.parametrize("bits", [4, 2])
def test_an_expert_has_whole_groups_in_each_of_its_matrices(bits: int) -> None:
    refuse_beyond_model(*mixture("regime=qlora", f"regime.bits={bits}"))
    odd = mixture("regime=qlora", f"regime.bits={bits}", hidden_size=66, moe_intermediate_size=33)
    with pytest.raises(ConfigError, match=rf"^regime\.bits={bits}: .* weights, which is not a multiple of 64\. Set regime\.bits="):
        refuse_beyond_model(*odd)


def test_matrices_of_experts_are_as_wide_as_grouped_products_need() -> None:
    """A run was permitted and ended with `strides should be multiple of 16 bytes`."""
    refuse_beyond_model(*mixture("regime=qlora", "regime.bits=8", hidden_size=72))
    with pytest.raises(ConfigError, match=r"torch's grouped products need multiples of 8\. Choose another model, or regime=lora\."):
        refuse_beyond_model(*mixture("regime=qlora", "regime.bits=8", hidden_size=66))
