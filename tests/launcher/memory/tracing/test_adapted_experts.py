"""Adapters of packed experts are counted by a trace, also in families with tables: against a traced step of the whole model."""

import json
from dataclasses import replace

import pytest
import regimen_tests_traced_matrix as matrix

from conf.schema import Qlora
from launcher.facts.model import model_facts
from launcher.memory.estimate import estimate_batch
from launcher.memory.step.activations import Batch
from tests.described import described

ROUTED = {**matrix.ROUTED, "num_hidden_layers": 4}
FAMILIES = {
    "mixtral": {**ROUTED, "num_local_experts": 8},
    "qwen3_moe": {**ROUTED, "head_dim": 64, "num_experts": 16},
    "deepseek_v3": {
        **{**ROUTED, "num_key_value_heads": 16, "n_routed_experts": 8, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1},
        **{"q_lora_rank": 256, "kv_lora_rank": 128, "qk_rope_head_dim": 32, "qk_nope_head_dim": 32, "v_head_dim": 32},
    },
}


def run_of(family, *choices):
    adapted = ("regime=qlora", "regime.targets=[all-linear,experts]", "model.init=random", "training.attention=sdpa", *choices)
    run = described(*matrix.NODE, *adapted)
    return replace(run, model=replace(run.model, architecture={**FAMILIES[family], "model_type": family}))


def traced_facts(run, batch):
    facts = model_facts(run.model.architecture, "a test")
    text = json.dumps(dict(run.model.architecture), sort_keys=True)
    matrix.trace_here(run, replace(facts, architecture=text), batch)
    return facts


@pytest.mark.parametrize(
    ("family", "bits", "checkpointing"),
    [
        ("mixtral", 4, True),
        ("qwen3_moe", 4, False),
        *(pytest.param(*cell, marks=pytest.mark.long) for cell in (("mixtral", 2, False), ("qwen3_moe", 8, True), ("deepseek_v3", 4, True))),
    ],
)
def test_every_phase_is_within_half_a_percent(tracer, oracle, monkeypatch, tmp_path, family, bits, checkpointing):
    monkeypatch.setenv("HOME", str(tmp_path))
    run, batch = run_of(family, f"regime.bits={bits}", f"training.gradient_checkpointing={checkpointing}"), Batch(1, 1024, masked=False)

    oracle.assert_agrees(tracer.trace(run, batch), oracle.predicted(run, traced_facts(run, batch), batch))


def test_what_learns_is_counted_by_hand_and_the_plan_says_how(monkeypatch, tmp_path):
    """Of each of 8 experts gate and up [1408, 1024] and down [1024, 704], rank 16, in 4 layers."""
    monkeypatch.setenv("HOME", str(tmp_path))
    run, batch = run_of("mixtral"), Batch(1, 1024, masked=False)
    assert isinstance(run.regime, Qlora)
    hidden, inner = 1024, FAMILIES["mixtral"]["intermediate_size"]
    experts = 4 * 8 * 16 * (2 * inner + hidden + hidden + inner)
    facts = traced_facts(run, batch)

    found = estimate_batch(run, facts, batch)
    without = estimate_batch(replace(run, regime=replace(run.regime, targets=["all-linear"])), facts, batch)

    states = [term.bytes for estimate in (found, without) for phase in estimate.phases for term in phase.terms if term.name == "optimizer states"]
    assert max(states) - min(states) == 2 * 4 * experts
    assert "layers whose experts have adapters were traced without a GPU; no such run was measured on one" in found.doubts
