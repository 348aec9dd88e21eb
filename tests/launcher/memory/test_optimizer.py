from launcher.memory.optimizer import state_bytes, step_bytes
from launcher.memory.parameters import census_of
from launcher.memory.storage import storage_of

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
    assert step_bytes(run, census, storage) == 16 * 128256 * 4096
