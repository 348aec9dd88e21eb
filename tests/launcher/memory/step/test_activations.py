from dataclasses import replace

import pytest

from launcher.facts.model import model_facts
from launcher.memory.job import job_of
from launcher.memory.step.activations import Batch, arithmetic_of, layer_bytes, mlp_bytes, mlp_width
from launcher.memory.weights.dtypes import storage_of

PLAIN = Batch(1, 2048, masked=False)


def per_token(described, *overrides, learns=True, batch=PLAIN):
    run, facts = described("model=llama3.1_8b", *overrides)
    return layer_bytes(run, facts, arithmetic_of(run, facts, storage_of(run)), batch, learns)


# Llama-3.1-8B: width h 4096, queries 4096, keys and values 1024 each, 32 heads a, MLP f 14336.
H, QUERIES, KEYS, HEADS, F = 4096, 4096, 1024, 32, 14336


def test_a_bf16_layer_saves_what_the_operation_trace_found(described):
    expected = 16 * H + 4 * QUERIES + 4 * KEYS + 4 * HEADS + 8 * F + 8

    assert per_token(described, "regime=full", "training.precision=bf16") == expected == 200_840


def test_autocast_keeps_five_casts_of_the_input_and_fp32_norms(described):
    assert per_token(described, "regime=full") == 26 * H + 4 * QUERIES + 4 * KEYS + 4 * HEADS + 8 * F + 8


def test_adapters_keep_their_own_casts_and_the_frozen_base_no_product(described):
    adapters = 2 * (5 * H + QUERIES + F) + 7 * 2 * 16
    assert per_token(described, "regime=lora", learns=False) == 8 * H + 8 + 4 * QUERIES + 4 * KEYS + 4 * HEADS + 6 * F + adapters


def test_eager_attention_keeps_scores_for_every_position(described):
    difference = per_token(described, "regime=full", "training.attention=eager") - per_token(described, "regime=full")

    assert difference == 6 * HEADS * 2048 + 8 * QUERIES - (4 * QUERIES + 4 * KEYS + 4 * HEADS)


def test_dropout_adds_a_mask_of_one_byte(described):
    wet = per_token(described, "regime=lora", "regime.dropout=0.1", learns=False)

    assert wet - per_token(described, "regime=lora", learns=False) == 5 * H + QUERIES + F


def test_hqq_layers_keep_what_the_adapters_beside_other_quantised_layers_keep(described):
    four, eight, two = (per_token(described, "regime=qlora", f"regime.bits={bits}", learns=False) for bits in (4, 8, 2))

    assert four == eight == two
    # beside bf16 layers PEFT casts the inputs of q, k, v, gate and up, o and down; quantised, q, k, v share one, gate and up another, and o's is kept
    assert per_token(described, "regime=lora", learns=False) - four == 2 * (3 * H + 2 * H + QUERIES) - 2 * 2 * H


def test_a_layer_of_experts_saves_per_routed_copy(described):
    run, facts = described("model=mixtral_8x7b", "regime=full", "training.precision=bf16")

    experts = 2 * 2 * (2 * H + 4 * F) + 4 * 8  # two experts a token; router scores of eight
    assert mlp_width(facts) == 0
    assert (
        layer_bytes(run, facts, arithmetic_of(run, facts, storage_of(run)), PLAIN, True) == 16 * H + 4 * QUERIES + 4 * KEYS + 4 * HEADS + 8 + experts
    )


GPT2 = {"model_type": "gpt2", "vocab_size": 50257, "n_embd": 768, "n_layer": 12, "n_head": 12, "n_positions": 1024}
NEOX = {"model_type": "gpt_neox", "vocab_size": 50304, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 24}
NEOX |= {"num_attention_heads": 16, "max_position_embeddings": 2048}


@pytest.mark.parametrize(("precision", "expected"), [("bf16", 5 * 2), ("bf16_amp", 3 * 4 + 2 * 2)])
def test_autocast_on_a_gpu_takes_the_powers_of_gelu_new_in_fp32(described, precision, expected):
    run, _ = described("regime=full", f"training.precision={precision}")
    facts = model_facts(GPT2, "test")

    assert mlp_bytes(facts, arithmetic_of(run, facts, storage_of(run)), learns=True) == expected * 4 * 768


@pytest.mark.parametrize(
    ("overrides", "architecture", "expected"),
    [
        (("regime=qlora",), NEOX, 4),  # fp32 of torch's LayerNorm
        (("regime=qlora", "regime.bits=8"), NEOX, 4),
        (("regime=qlora", "regime.bits=2"), NEOX, 2),
        (("regime=lora",), NEOX, 2),
        (("regime=qlora",), None, 2),
        (("regime=qlora", "regime.dora=true"), None, 4),
        (("regime=lora", "regime.dora=true"), None, 2),
    ],
)
def test_quantised_layers_answer_in_the_dtype_of_their_input_and_so_widen_the_residual_stream(described, overrides, architecture, expected):
    run, facts = described(*overrides)

    assert arithmetic_of(run, model_facts(architecture, "test") if architecture else facts, storage_of(run)).residual == expected


def test_adapted_experts_wait_whole_for_the_backward_pass_of_their_layer(described):
    """64 experts of 2,048 x 1,408: gate and up in one matrix with a rank of 16 each, and down; sums and factors in 16 bits."""
    latent = {"kv_lora_rank": 512, "q_lora_rank": 1536, "qk_rope_head_dim": 64, "v_head_dim": 128, "qk_nope_head_dim": 128}
    routed = {"n_routed_experts": 64, "n_shared_experts": 2, "num_experts_per_tok": 6, "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1}
    shape = {"model_type": "deepseek_v3", "vocab_size": 102400, "hidden_size": 2048, "intermediate_size": 10944, "moe_intermediate_size": 1408}
    heads = {"num_attention_heads": 16, "num_key_value_heads": 16, "max_position_embeddings": 4096, "num_hidden_layers": 4}
    run, _ = described("regime=lora", "regime.rank=16")
    facts = model_facts({**shape, **latent, **routed, **heads}, "test")

    sums = 64 * 3 * 2048 * 1408
    factors = 64 * (32 * (2048 + 2 * 1408) + 16 * (1408 + 2048))
    job = job_of(run, facts, PLAIN)
    assert job.merged_experts == 2 * (sums + factors)
    assert job_of(replace(run, regime=described("regime=full")[0].regime), facts, PLAIN).merged_experts == 0
