"""Families without a table, and how far a trace of their first layers is from a traced step of the whole model.

    python tests/launcher/memory/tracing/traced_matrix.py [FAMILY:REGIME...] > benchmarks/results/tests/traced_families.txt

One line a cell, in one process: those that are named, or every family under every regime, with gradient checkpointing in every second cell. Peaks of
the phases of a step.
"""

import importlib.util
import json
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from types import ModuleType

from conf.schema import Run
from conf.traces import TraceSettings
from launcher.facts.model import ModelFacts
from launcher.facts.model.census import default_cache, parsed
from launcher.facts.model.tracing import trace_file
from launcher.memory.step.activations import Batch
from launcher.memory.traces import settings_of
from launcher.memory.weights.dtypes import storage_of
from tests.described import described

NODE = ("model=demo", "data=demo", "node=h200_141", "node.host_memory=400000000000")
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
EAGER = ("bloom", "codegen", "gpt_neo", "gpt_oss", "gptj", "mpt", "vaultgemma", "xglm")  # transformers has no sdpa for them
REGIMES = ("bf16", "amp", "lora", "qlora")
BATCHES = {True: Batch(1, 1536, masked=False), False: Batch(2, 768, masked=True)}

CELLS = [(family, regime, (place + number) % 2 == 0) for place, family in enumerate(FAMILIES) for number, regime in enumerate(REGIMES)]


def run_of(oracle: ModuleType, family: str, regime: str, checkpointing: bool) -> Run:
    attention = "eager" if family in EAGER else "sdpa"
    choices = (f"training.gradient_checkpointing={checkpointing}", f"training.attention={attention}")
    run = described(*NODE, *oracle.LLAMA, *oracle.REGIMES[regime], *choices)
    return replace(run, model=replace(run.model, init="random", architecture={**FAMILIES[family], "model_type": family}))


def counted_here(run: Run, folder: Path) -> ModelFacts:
    """As the launcher counts, in this process."""
    from trainers.census import census  # with torch, which a collection of tests need not import

    (folder / "census.json").write_text(json.dumps(census(run.model.architecture)), encoding="utf-8")
    facts = parsed(folder / "census.json")
    assert facts is not None
    return replace(facts, architecture=json.dumps(run.model.architecture, sort_keys=True))


def trace_here(run: Run, facts: ModelFacts, batch: Batch) -> TraceSettings:
    """Into the cache under HOME, as the launcher's process would."""
    from trainers.tracing.__main__ import answer

    settings = settings_of(run, storage_of(run), batch)
    found = answer(json.loads(facts.architecture), settings)
    assert "refused" not in found, found
    kept = trace_file(facts.architecture, settings, default_cache())
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps(found), encoding="utf-8")
    return settings


def traced_and_predicted(
    oracle: ModuleType, tracer: ModuleType, folder: Path, family: str, regime: str, checkpointing: bool
) -> tuple[dict[str, int], dict[str, int]]:
    """Bytes of each phase."""
    run, batch = run_of(oracle, family, regime, checkpointing), BATCHES[checkpointing]
    facts = counted_here(run, folder)
    trace_here(run, facts, batch)
    return tracer.trace(run, batch), oracle.predicted(run, facts, batch)


def main() -> int:
    spec = importlib.util.spec_from_file_location("beside", Path(__file__).with_name("conftest.py"))
    assert spec is not None
    assert spec.loader is not None
    beside = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(beside)
    beside.load_beside("gpu_kernels")
    beside.load_beside("fused_layers")
    tracer, oracle, worst = beside.load_beside("tracer"), beside.load_beside("test_oracle"), 0.0
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HOME"] = folder
        wanted = [cell for cell in CELLS if not sys.argv[1:] or f"{cell[0]}:{cell[1]}" in sys.argv[1:]]
        for family, regime, checkpointing in wanted:
            name = f"{family:<18} {regime:<6} {'checkpointing' if checkpointing else 'kept':<14}"
            try:
                traced, predicted = traced_and_predicted(oracle, tracer, Path(folder), family, regime, checkpointing)
            except Exception as error:  # noqa: BLE001  # a line says what failed, and the next cell follows
                print(f"{name} {type(error).__name__}: {next(iter(str(error).splitlines()), '')[:200]}", flush=True)
                continue
            errors = {phase: predicted[phase] / traced[phase] - 1 for phase in oracle.PHASES if phase in traced}
            worst = max(worst, *map(abs, errors.values()))
            print(name, f"{max(traced.values()) / 2**20:7.0f} MiB ", " ".join(f"{phase} {error:+.2%}" for phase, error in errors.items()), flush=True)
    print(f"{len(wanted)} cells of {len({cell[0] for cell in wanted})} families, worst {worst:.2%}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
