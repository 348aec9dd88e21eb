from dataclasses import replace

import pytest

from launcher.errors import ConfigError
from launcher.rules.model_limits import refuse_beyond_model
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
