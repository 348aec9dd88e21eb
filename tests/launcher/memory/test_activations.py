from launcher.memory.activations import Batch, arithmetic_of, layer_bytes, mlp_width
from launcher.memory.storage import storage_of

PLAIN = Batch(1, 2048, masked=False)


def per_token(described, *overrides, learns=True, batch=PLAIN):
    run, facts = described("model=llama3.1_8b", *overrides)
    return layer_bytes(run, facts, arithmetic_of(run, storage_of(run)), batch, learns)


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
    assert layer_bytes(run, facts, arithmetic_of(run, storage_of(run)), PLAIN, True) == 16 * H + 4 * QUERIES + 4 * KEYS + 4 * HEADS + 8 + experts
