import pytest

from launcher.memory.estimate import estimate
from launcher.memory.host import pinned

P8 = 8_030_261_248  # Llama-3.1-8B
PRETRAINED = ("model=llama3.1_8b", "model.init=pretrained", "model.path=somewhere")


@pytest.mark.parametrize(("size", "block"), [(0, 0), (1, 1), (17_000_000_000, 2**34), (18_000_000_000, 2**35), (2**20, 2**20)])
def test_pinned_blocks_are_rounded_up_to_a_power_of_two(size, block):
    assert pinned(size) == block


def host(described, *overrides):
    return {term.name: term.bytes for term in estimate(*described(*PRETRAINED, *overrides)).host_terms}


def test_every_rank_reads_the_weights_into_host_memory_first(described):
    assert host(described, "regime=full", "node.gpus=4")["loading"] == 4 * 4 * P8
    assert host(described, "regime=lora", "node.gpus=4")["loading"] == 4 * 2 * P8


def test_bitsandbytes_and_zero3_load_without_a_whole_copy(described):
    assert host(described, "regime=qlora")["loading"] == 0
    assert host(described, "regime=qlora", "regime.bits=2")["loading"] == 2 * P8
    assert host(described, "regime=full", "sharding=zero3", "node.gpus=2")["loading"] == 0


def test_offload_pins_masters_gradients_and_staging_of_every_rank(described):
    offload = host(described, "regime=full", "sharding=zero2_offload", "node.gpus=2")["offload"]

    # half of the elements a rank: 16.1 GB of masters and as many of gradients pin 16 GiB each, 8.03 GB of staging 8 GiB; 32.1 GB of states
    assert offload == 2 * (2 * 2**34 + 2**33 + 8 * (P8 // 2))


def test_disk_holds_the_kept_checkpoints_one_in_the_making_and_the_model(described):
    predicted = estimate(*described("model=llama3.1_8b", "regime=full", "checkpoint.keep=3"))

    assert predicted.disk == (3 + 1) * (4 + 8) * P8 + 4 * P8


def test_an_adapter_run_saves_adapters_only(described):
    predicted = estimate(*described("model=llama3.1_8b", "regime=lora", "checkpoint.keep=1"))

    adapters = 32 * 16 * ((4096 + 4096) * 2 + (4096 + 1024) * 2 + (4096 + 14336) * 3)
    assert predicted.disk == 2 * 12 * adapters + 4 * adapters
