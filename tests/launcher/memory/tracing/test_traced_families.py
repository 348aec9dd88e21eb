"""Families without a table: what the launcher makes of a trace of their first layers, against a traced step of the whole model.

This is no independent proof: both see the same operations. What it shows is that bytes found at two small batches hold for another batch and for
models of more layers, and that the head, the loss, gradients and states are added rightly.
"""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from launcher.facts.model import ModelFacts
from launcher.facts.model.census import default_cache, parsed
from launcher.facts.model.tracing import trace_file
from launcher.memory.step.activations import Batch
from launcher.memory.traces import settings_of
from launcher.memory.weights.dtypes import storage_of
from trainers.census import census
from trainers.tracing.__main__ import answer

# As published models have them: gates or none, one or two norms or four, biases, learned positions, ALiBi, shared heads, norms of queries and keys,
# attention beside the MLP, soft caps, windows in some layers, experts.
SIZES = {"vocab_size": 2048, "hidden_size": 1024, "num_hidden_layers": 5, "num_attention_heads": 16, "max_position_embeddings": 4096}
SIZES |= {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "tie_word_embeddings": False}
WIDE = {**SIZES, "intermediate_size": 2816}
DENSE = {**WIDE, "num_key_value_heads": 4}
ROUTED = {**DENSE, "num_experts_per_tok": 2, "moe_intermediate_size": 704}
FAMILIES = {
    "apertus": DENSE,
    "arcee": DENSE,
    "biogpt": WIDE,
    "bloom": SIZES,
    "codegen": SIZES,
    "cohere": DENSE,
    "cohere2": DENSE,
    "deepseek_v2": {**ROUTED, "num_key_value_heads": 16, "n_routed_experts": 8, "first_k_dense_replace": 1, "topk_method": "greedy"},
    "diffllama": DENSE,
    "ernie4_5": DENSE,
    "exaone4": DENSE,
    "falcon": SIZES,
    "gemma": {**DENSE, "head_dim": 64},
    "glm": {**DENSE, "head_dim": 64},
    "glm4": {**DENSE, "head_dim": 64},
    "glm4_moe": {**ROUTED, "head_dim": 64, "n_routed_experts": 8, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1},
    "gpt_bigcode": SIZES,
    "gpt_neo": {**SIZES, "attention_types": [[["global", "local"], 2], [["global"], 1]], "window_size": 4096},
    "gpt_oss": {**ROUTED, "head_dim": 64, "num_local_experts": 8},
    "gptj": SIZES,
    "granite": DENSE,
    "granitemoe": {**ROUTED, "num_local_experts": 8},
    "helium": {**DENSE, "head_dim": 64},
    "hunyuan_v1_dense": {**DENSE, "head_dim": 64},
    "mpt": SIZES,
    "nemotron": DENSE,
    "olmo": DENSE,
    "olmo2": DENSE,
    "olmo3": DENSE,
    "olmoe": {**ROUTED, "num_experts": 8},
    "opt": {**SIZES, "ffn_dim": 4096, "word_embed_proj_dim": 1024},
    "persimmon": WIDE,
    "phi": WIDE,
    "phimoe": {**ROUTED, "num_local_experts": 8},
    "seed_oss": {**DENSE, "head_dim": 64},
    "smollm3": DENSE,
    "stablelm": DENSE,
    "starcoder2": DENSE,
    "vaultgemma": {**DENSE, "head_dim": 64},
    "xglm": {**SIZES, "ffn_dim": 4096},
}
EAGER = ("bloom", "codegen", "gpt_neo", "gpt_oss", "gptj", "mpt")  # transformers has no sdpa for them
REGIMES = ("bf16", "amp", "lora", "qlora")
BATCHES = {True: Batch(1, 1536, masked=False), False: Batch(2, 768, masked=True)}

CHEAP = [("opt", "bf16", False), ("starcoder2", "amp", True), ("phi", "lora", False), ("olmoe", "qlora", True)]
CELLS = [(family, regime, checkpointing) for family in FAMILIES for regime in REGIMES for checkpointing in (True, False)]


@pytest.mark.parametrize(
    ("family", "regime", "checkpointing"),
    [cell if cell in CHEAP else pytest.param(*cell, marks=pytest.mark.long) for cell in CELLS],
)
def test_every_phase_of_a_family_without_a_table_is_within_half_a_percent(
    described, tracer, oracle, monkeypatch, tmp_path, family, regime, checkpointing
):
    monkeypatch.setenv("HOME", str(tmp_path))
    architecture, batch = {**FAMILIES[family], "model_type": family}, BATCHES[checkpointing]
    attention = "eager" if family in EAGER else "sdpa"
    run, _ = described(*oracle.LLAMA, *oracle.REGIMES[regime], f"training.gradient_checkpointing={checkpointing}", f"training.attention={attention}")
    run = replace(run, model=replace(run.model, init="random", architecture=architecture))
    facts = counted_here(architecture, tmp_path)
    trace_here(facts.architecture, settings_of(run, storage_of(run), batch))

    oracle.assert_agrees(tracer.trace(run, batch), oracle.predicted(run, facts, batch))


def counted_here(architecture: dict, folder: Path) -> ModelFacts:
    """As the launcher counts, in this process."""
    (folder / "census.json").write_text(json.dumps(census(architecture)), encoding="utf-8")
    facts = parsed(folder / "census.json")
    assert facts is not None
    return replace(facts, architecture=json.dumps(architecture, sort_keys=True))


def trace_here(architecture: str, settings) -> None:
    """Into the cache, as the launcher's process would."""
    found = answer(json.loads(architecture), settings)
    assert "refused" not in found, (found, asdict(settings))
    kept = trace_file(architecture, settings, default_cache())
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps(found), encoding="utf-8")
