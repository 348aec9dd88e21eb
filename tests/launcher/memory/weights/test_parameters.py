from dataclasses import replace

import pytest

from launcher.facts.model import model_facts
from launcher.facts.model.grown import grown
from launcher.memory.estimate import estimate
from launcher.memory.weights.dtypes import FULL_MEANING
from launcher.memory.weights.parameters import adapter_targets, census_of, expert_targets, packed_bytes, quantised_bytes, weight_bytes

# The demo model: width 128, MLP 352, 4 heads and 2 key-value heads of 32, 2 layers, 264 tokens, tied.
Q_OR_O, K_OR_V, MLP = 128 * 128, 128 * 64, 128 * 352
LAYER = 2 * Q_OR_O + 2 * K_OR_V + 3 * MLP + 2 * 128
EMBEDDING = 264 * 128
TOTAL = EMBEDDING + 2 * LAYER + 128
AMP = FULL_MEANING["torch", "bf16_amp"]


def test_every_weight_learns_under_full_and_a_tied_head_counts_once(described):
    census = census_of(*described("regime=full"))

    assert (census.base, census.trained, census.frozen, census.adapters) == (TOTAL, TOTAL, 0, 0)
    assert (census.embedding, census.head, census.layer) == (EMBEDDING, EMBEDDING, LAYER)


def test_freeze_counts_the_last_layers_and_named_modules(described):
    last = census_of(*described("regime=freeze", "regime.layers=1"))
    first = census_of(*described("regime=freeze", "regime.layers=-1"))
    norm = census_of(*described("regime=freeze", "regime.layers=0", "regime.modules=[norm]"))

    assert (last.trained, last.depth, last.trained_layers) == (LAYER, 1, 1)
    assert (first.trained, first.depth, first.trained_layers) == (LAYER, 2, 1)
    assert (norm.trained, norm.depth) == (128, 0)


def test_naming_a_tied_head_lets_the_embedding_learn(described):
    census = census_of(*described("regime=freeze", "regime.layers=0", "regime.modules=[lm_head]"))

    assert (census.trained, census.depth) == (EMBEDDING, 2)


def test_freeze_reads_module_names_of_a_single_layer(described):
    census = census_of(*described("regime=freeze", "regime.layers=0", "regime.modules=[layers.1.mlp]"))

    assert census.trained == 3 * MLP


def test_adapters_have_rank_times_inputs_plus_outputs_of_every_linear_layer(described):
    census = census_of(*described("regime=lora", "regime.rank=4"))

    sides = (128 + 128) * 2 + (128 + 64) * 2 + (128 + 352) * 3
    assert census.trained == census.adapters == 4 * sides * 2
    assert census.trained_base == 0


def test_rows_of_added_tokens_learn_beside_an_adapter(described):
    plain = census_of(*described("regime=lora"))
    tokens = census_of(*described("regime=lora", 'model.added_tokens=["<a>","<b>","<c>"]'))
    untied = census_of(*described("regime=lora", 'model.added_tokens=["<a>","<b>","<c>"]', "model.architecture.tie_word_embeddings=false"))

    assert tokens.trained - plain.trained == 3 * 128
    assert untied.trained - plain.trained == 2 * 3 * 128


def test_inserted_blocks_learn_and_nothing_below_the_first_is_entered(described):
    run, facts = described("regime=freeze", "regime.layers=0", "regime.new_blocks=1")
    census = census_of(run, grown(facts, run))

    assert (census.base, census.trained, census.trained_layers) == (TOTAL + LAYER, LAYER, 1)
    assert census.depth == 1  # the new block is the third of three
    run, facts = described("regime=freeze", "regime.layers=0", "regime.new_blocks=2")
    assert census_of(run, grown(facts, run)).depth == 3  # the first new block is the second of four


def test_dora_adds_one_magnitude_per_output(described):
    plain = census_of(*described("regime=lora", "regime.targets=[q_proj]"))
    dora = census_of(*described("regime=lora", "regime.targets=[q_proj]", "regime.dora=true"))

    assert dora.trained - plain.trained == 2 * 128


@pytest.mark.parametrize(
    ("overrides", "per_matrix"),
    [
        (["regime.bits=4"], 0.5 + 1 / 64 + 4 / (64 * 256)),  # double quantisation
        (["regime.bits=4", "regime.double_quant=false"], 0.5 + 4 / 64),
        (["regime.bits=2"], 0.25 + 4 / 64),
    ],
)
def test_bytes_of_a_quantised_weight(described, overrides, per_matrix):
    run, facts = described("model=llama3.1_8b", "regime=qlora", *overrides)

    census = census_of(run, facts)

    assert census.quantised == 32 * (2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 14336)  # without embedding and head
    assert quantised_bytes(run.regime, census) == pytest.approx(per_matrix * census.quantised)


def test_int8_adds_one_fp32_scale_per_row(described):
    run, facts = described("regime=qlora", "regime.bits=8")

    matrices, rows = 2 * (LAYER - 2 * 128), 2 * (128 + 64 + 64 + 128 + 352 + 352 + 128)
    assert quantised_bytes(run.regime, census_of(run, facts)) == matrices + 4 * rows


def test_experts_are_quantised_as_linear_layers_are(described):
    run, facts = described("model=mixtral_8x7b", "regime=qlora")

    census = census_of(run, facts)

    attention, experts = 32 * (2 * 4096 * 4096 + 2 * 4096 * 1024), 32 * 8 * 3 * 4096 * 14336
    assert census.quantised == attention + experts
    assert quantised_bytes(run.regime, census) == pytest.approx((0.5 + 1 / 64 + 4 / (64 * 256)) * (attention + experts))
    assert packed_bytes(run, facts) == pytest.approx((0.5 + 1 / 64 + 4 / (64 * 256)) * experts)


def test_int8_scales_of_experts_are_one_a_row_of_each(described):
    run, facts = described("model=mixtral_8x7b", "regime=qlora", "regime.bits=8")

    rows = 32 * (4096 + 1024 + 1024 + 4096 + 8 * (2 * 14336 + 4096))
    assert census_of(run, facts).quantised_rows == rows


def test_experts_of_a_class_of_their_own_count_in_16_bits_and_the_plan_says_so(described):
    run, facts = described("model=mixtral_8x7b", "regime=qlora")
    own = replace(facts, modules=tuple(replace(module, plain=module.kind != "experts") for module in facts.modules))

    attention, experts = 32 * (2 * 4096 * 4096 + 2 * 4096 * 1024), 32 * 8 * 3 * 4096 * 14336
    assert census_of(run, own).quantised == attention
    assert weight_bytes(run, census_of(run, own), AMP) > 2 * experts
    assert any("experts of mixtral are of a class of their own" in doubt for doubt in estimate(run, own).doubts)
    assert not any("experts" in doubt for doubt in estimate(run, facts).doubts)


def test_packed_experts_have_no_adapters_and_nor_has_what_peft_takes_for_them(described):
    shape = {"model_type": "deepseek_v3", "vocab_size": 1024, "hidden_size": 64, "intermediate_size": 128, "moe_intermediate_size": 32}
    shape |= {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 4, "n_routed_experts": 4, "first_k_dense_replace": 1}
    facts = model_facts({**shape, "q_lora_rank": 16, "kv_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 8}, "test")
    (lora, _), (qlora, _) = described("regime=lora"), described("regime=qlora")

    assert len(expert_targets(lora.regime, facts)) == 2
    assert expert_targets(qlora.regime, facts) == []
    assert not any(".mlp." in module.name for module in adapter_targets(qlora.regime, facts))


def test_frozen_weights_are_16_bits_beside_fp32_weights_that_learn(described):
    run, facts = described("regime=freeze", "regime.layers=1")

    assert weight_bytes(run, census_of(run, facts), AMP) == 2 * (TOTAL - LAYER) + 4 * LAYER


def test_counting_is_of_the_model_alone_and_not_of_the_ranks(described):
    run, facts = described("regime=full", "node.gpus=2")

    assert census_of(run, facts) == census_of(replace(run, node=replace(run.node, gpus=1)), facts)
