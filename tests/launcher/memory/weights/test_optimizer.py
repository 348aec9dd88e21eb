from launcher.memory.estimate import estimate
from launcher.memory.weights.dtypes import storage_of
from launcher.memory.weights.optimizer import state_bytes, step_bytes
from launcher.memory.weights.parameters import census_of

EMBEDDING, NORMS = 264 * 128, 5 * 128
TOTAL = EMBEDDING + 2 * (2 * 128 * 128 + 2 * 128 * 64 + 3 * 128 * 352) + NORMS


def states(described, *overrides):
    run, facts = described("regime=full", *overrides)
    return state_bytes(run, census_of(run, facts), storage_of(run))


def test_adamw_keeps_two_states_in_the_dtype_of_the_weights(described):
    assert states(described) == 8 * TOTAL
    assert states(described, "training.precision=bf16") == 4 * TOTAL


def test_eight_bit_states_leave_embeddings_and_small_tensors_in_fp32(described):
    exempt = EMBEDDING + NORMS  # a norm has 128 elements, below 4096
    blocks = TOTAL - exempt

    assert states(described, "optim=adamw_8bit") == 2 * (blocks + 4 * blocks // 256) + 8 * exempt


def test_deepspeed_hands_over_one_flat_tensor_all_in_eight_bits(described):
    assert states(described, "optim=adamw_8bit", "sharding=zero2") == 2 * (TOTAL + 4 * TOTAL // 256)


def test_sgd_keeps_no_states(described):
    assert states(described, "optim=sgd") == 0


def test_adafactor_keeps_less_than_a_tenth_of_a_byte_per_weight_but_copies_the_largest_tensor(described):
    run, facts = described("model=llama3.1_8b", "regime=full", "training.precision=bf16", "optim=adafactor")
    census, storage = census_of(run, facts), storage_of(run)

    assert state_bytes(run, census, storage) < 0.1 * census.trained
    down_proj = 14336 * 4096  # the head, the largest, comes after it
    assert step_bytes(run, census, storage) == 16 * 128256 * 4096 + 4 * down_proj


def test_fp32_states_are_fp32_whatever_the_weights_are(described):
    for precision in ("bf16", "bf16_amp"):
        assert states(described, "optim=lion", f"training.precision={precision}") == 4 * TOTAL
        assert states(described, "optim=paged_adamw", f"training.precision={precision}") == 8 * TOTAL


def test_lion_in_eight_bits_keeps_half_of_what_adamw_does(described):
    for lion, adamw in (("lion_8bit", "adamw_8bit"), ("paged_lion_8bit", "paged_adamw_8bit")):
        assert 2 * states(described, f"optim={lion}") == states(described, f"optim={adamw}")


def test_muon_keeps_one_momentum_for_matrices_and_two_states_for_the_rest(described):
    rest = EMBEDDING + NORMS

    assert states(described, "optim=muon", "training.precision=bf16") == 2 * (TOTAL - rest) + 4 * rest


def test_muon_leaves_stacked_experts_to_adamw(described):
    run, facts = described("model=mixtral_8x7b", "regime=full", "optim=muon", "training.precision=bf16")
    census = census_of(run, facts)
    matrices = 32 * (2 * 4096 * 4096 + 2 * 4096 * 1024 + 8 * 4096)  # attention and router of every layer

    assert census.experts == 32 * 8 * 3 * 4096 * 14336
    assert state_bytes(run, census, storage_of(run)) == 4 * census.trained - 2 * matrices


def test_a_foreach_step_takes_the_roots_of_all_second_moments(described):
    for optim, temporaries in (("adamw", 0), ("adamw_foreach", 4 * TOTAL)):
        run, facts = described("regime=full", f"optim={optim}")
        assert step_bytes(run, census_of(run, facts), storage_of(run)) == temporaries


def test_a_muon_step_works_on_one_matrix_at_a_time(described):
    run, facts = described("model=llama3.1_8b", "regime=full", "optim=muon", "training.precision=bf16")

    assert step_bytes(run, census_of(run, facts), storage_of(run)) == (2 + 8) * 4096 * 14336


def test_galore_keeps_a_projector_of_the_smaller_side_and_two_moments_of_the_larger(described):
    projected = 2 * 32 * (2 * (128 + 2 * 128) + 2 * (64 + 2 * 128) + 3 * (128 + 2 * 352))  # q and o, k and v, gate, up and down; rank 32

    assert states(described, "optim=galore", "optim.rank=32", "sharding=ddp") == 4 * projected + 8 * (EMBEDDING + NORMS)
    assert states(described, "optim=galore", "optim.rank=32", "training.precision=bf16") == 2 * projected + 4 * (EMBEDDING + NORMS)


def test_a_decomposition_has_no_more_directions_than_the_smaller_side_but_a_random_projection_has(described):
    q_and_o, k_and_v, mlp = 2 * (128 + 2 * 128), 2 * (64 + 2 * 128), 3 * (128 + 2 * 352)
    rest = 8 * (EMBEDDING + NORMS)

    galore = 2 * 128 * (q_and_o + mlp) + 2 * 64 * k_and_v
    assert states(described, "optim=galore", "optim.rank=200") == 4 * galore + rest
    apollo = 2 * 200 * (q_and_o + k_and_v + mlp) + 14  # and the norm of the last update of each of 14 matrices
    assert states(described, "optim=apollo", "optim.rank=200") == 4 * apollo + rest


def test_galore_in_eight_bits_keeps_its_projectors_in_the_dtype_of_the_gradients(described):
    projectors, moments = 2 * 64 * (2 * 128 + 2 * 64 + 3 * 128), 2 * 64 * (4 * 128 + 3 * 352)  # rank 64; every moment has 4096 elements or more
    blocks = moments + EMBEDDING

    expected = 4 * projectors + 2 * (blocks + 4 * blocks // 256) + 8 * NORMS
    assert states(described, "optim=galore_8bit", "optim.rank=64") == expected


def test_a_projector_is_made_from_a_decomposition_of_the_whole_gradient(described):
    run, facts = described("regime=full", "optim=galore", "sharding=ddp")
    census, storage = census_of(run, facts), storage_of(run)

    assert step_bytes(run, census, storage) == 4 * (128 * 352 + 128 * (128 + 352))
    run, facts = described("regime=full", "optim=apollo", "sharding=ddp")
    assert step_bytes(run, census, storage) == 2 * 4 * 128 * 352


BLOCK = (TOTAL - EMBEDDING - 128) // 2


def test_badam_has_gradients_and_states_of_one_layer_and_a_master_of_16_bit_weights(described):
    assert states(described, "optim=badam", "training.precision=fp32") == 8 * BLOCK
    assert states(described, "optim=badam", "training.precision=bf16") == (8 + 4) * BLOCK

    run, facts = described("regime=full", "optim=badam", "training.precision=bf16", "sharding=ddp", "node.gpus=1")
    step = next(phase for phase in estimate(run, facts).phases if phase.name == "optimizer step")
    found = {term.name: term.bytes for term in step.terms}
    assert (found["weights"], found["gradients"], found["optimizer states"]) == (2 * TOTAL, 2 * BLOCK, 12 * BLOCK)
    assert found["temporaries of the step"] == 4 * 128 * 352


def test_a_badam_checkpoint_holds_every_weight(described):
    run, facts = described("regime=full", "optim=badam", "training.precision=bf16", "sharding=ddp", "node.gpus=1")
    found = {term.name: term.bytes for term in estimate(run, facts).disk_terms}

    assert found["checkpoint in the making"] == 2 * TOTAL + 12 * BLOCK


def test_states_of_small_tensors_are_not_paged_and_paged_optimizers_say_what_they_cost(described):
    run, facts = described("regime=full", "optim=paged_lion_8bit")
    found = estimate(run, facts)

    (step,) = (phase for phase in found.phases if phase.name == "optimizer step")
    exempt = EMBEDDING + NORMS
    blocks = TOTAL - exempt  # the largest has 128 x 352 elements, below 100,000: all stay
    assert next(term.bytes for term in step.terms if term.name == "optimizer states") == blocks + 4 * blocks // 256 + 4 * exempt
    assert any("a step that pages is slow" in doubt for doubt in found.doubts)
