from dataclasses import replace

import pytest

from launcher.memory.constants import DEEPSPEED, EXPERT_KERNELS, GIB, RANK_HOST_CPU, RANK_HOST_LOADING, RANK_HOST_TRAINING
from launcher.memory.estimate import estimate
from launcher.memory.host import loading_bytes, saving_bytes
from launcher.memory.job import job_of, worst_batch
from launcher.memory.weights.offload import pinned, pinned_in_groups

P8 = 8_030_261_248  # Llama-3.1-8B
PRETRAINED = ("model=llama3.1_8b", "model.init=pretrained", "model.path=somewhere")


@pytest.mark.parametrize(("size", "block"), [(0, 0), (1, 1), (17_000_000_000, 2**34), (18_000_000_000, 2**35), (2**20, 2**20)])
def test_pinned_blocks_are_rounded_up_to_a_power_of_two(size, block):
    assert pinned(size) == block


def test_every_sub_group_has_a_pinned_block_of_its_own():
    # 2.5e9 elements of 4 bytes: two groups of 4e9 bytes, which 4 GiB hold, and one of 2e9, which 2 GiB hold
    assert pinned_in_groups(4, 2_500_000_000) == 2 * 2**32 + 2**31


def host(described, *overrides):
    return {term.name: term.bytes for term in estimate(*described(*PRETRAINED, *overrides)).host_terms}


def test_weights_that_become_fp32_are_in_the_host_memory_of_every_rank(described):
    found = host(described, "regime=full", "node.gpus=4")

    # the first rank holds the model once more when it is saved, beside a process that is larger by then
    assert (found["loading"], found["saving"]) == (3 * 4 * P8, 4 * P8)
    assert found["processes"] == 3 * RANK_HOST_LOADING + RANK_HOST_TRAINING


def test_a_checkpoint_in_flight_is_in_the_host_memory_of_the_first_rank_alone(described):
    """fp32 weights, frozen ones too, and two fp32 moments of what learns; of an adapter in fp32 the same three numbers an element."""
    background = ("node.gpus=4", "checkpoint.background=true")
    adapters = 32 * 16 * ((4096 + 4096) * 2 + (4096 + 1024) * 2 + (4096 + 14336) * 3)

    assert host(described, "regime=full", *background)["checkpoint in flight"] == 12 * P8
    assert host(described, "regime=lora", *background)["checkpoint in flight"] == 12 * adapters
    assert "checkpoint in flight" not in host(described, "regime=full", "node.gpus=4")


@pytest.mark.parametrize("overrides", [("regime=lora",), ("regime=qlora",), ("regime=qlora", "regime.bits=2")])
def test_weights_in_the_dtype_of_their_files_are_mapped_and_take_nothing(described, overrides):
    found = host(described, *overrides, "node.gpus=4")

    adapters = 32 * 16 * ((4096 + 4096) * 2 + (4096 + 1024) * 2 + (4096 + 14336) * 3)
    assert "loading" not in found
    assert found["saving"] == 4 * adapters


def test_experts_are_stacked_in_host_memory_even_so(described):
    found = host(described, "model=mixtral_8x7b", "model.init=pretrained", "model.path=somewhere", "regime=lora", "node.gpus=1")

    experts = 8 * 3 * 4096 * 14336  # of one layer; two thirds of the last one's are there twice
    assert found["loading"] == 2 * (32 * experts + 2 * experts // 3)


@pytest.mark.parametrize("source", [("model.init=pretrained", "model.path=somewhere"), ("model.init=random", "model.path=null")])
@pytest.mark.parametrize("bits", [8, 4, 2])
def test_packed_experts_pass_through_the_host_one_by_one_and_a_random_base_is_not_written(described, source, bits):
    run, facts = described("model=mixtral_8x7b", *source, "regime=qlora", f"regime.bits={bits}", "node.gpus=1")
    predicted = estimate(run, facts)

    adapters = 32 * 16 * ((4096 + 4096) * 2 + (4096 + 1024) * 2)
    found = {term.name: term.bytes for term in predicted.host_terms if term.name != "data workers"}
    assert found == {"processes": RANK_HOST_TRAINING + EXPERT_KERNELS, "saving": 4 * adapters}
    assert not any(term.name == "base" for term in predicted.disk_terms)


@pytest.mark.parametrize("sharding", ["zero3", "fsdp2"])
def test_no_rank_ever_holds_8x22b_to_save_it_where_ranks_split_it(described, sharding):
    """The first rank writes file by file, of at most 5 GB or one layer; under ddp gate and up of all experts are copied on the GPU, since files want
    them apart.
    """
    job = ("model=mixtral_8x22b", "regime=full", "training.precision=bf16", "optim=sgd", "node.gpus=16")
    run, facts = described(*PRETRAINED, *job, f"sharding={sharding}")
    predicted = estimate(run, facts)
    saved = {term.name: term.bytes for term in next(phase for phase in predicted.phases if phase.name == "save").terms}
    experts, gate_and_up = 8 * 3 * 6144 * 16384, 8 * 2 * 6144 * 16384  # of one of 56 layers
    attention = 2 * 6144 * 6144 + 2 * 6144 * 1024
    router_and_norms = 8 * 6144 + 2 * 6144

    assert "experts, one by one" not in saved
    one_file = 2 * (experts + attention + router_and_norms)
    assert 5e9 < one_file < 5.1e9
    assert saving_bytes(job_of(run, facts, worst_batch(run, facts)), leads=True) == one_file + 2 * gate_and_up
    plain = estimate(*described(*PRETRAINED, *job, "sharding=ddp"))
    copies = {term.name: term.bytes for term in next(phase for phase in plain.phases if phase.name == "save").terms}
    assert copies["experts, one by one"] == 2 * 56 * gate_and_up


def test_grouped_matrix_products_of_experts_are_kernels_of_their_own(described):
    found = host(described, "model=mixtral_8x7b", "model.init=random", "model.path=null", "regime=full", "training.precision=bf16", "node.gpus=1")

    assert found["processes"] == RANK_HOST_TRAINING + EXPERT_KERNELS


def test_zero2_casts_tensor_by_tensor_on_the_host(described):
    found = host(described, "regime=full", "sharding=zero2", "node.gpus=2")

    # fp32 weights, and embedding or head of 128,256 x 4,096 in 16 bits beside them
    assert (found["loading"], found["one tensor, cast"]) == (2 * 4 * P8, 2 * 2 * 128_256 * 4096)
    assert found["processes"] == 2 * (RANK_HOST_LOADING + DEEPSPEED)


def test_ranks_of_fsdp2_read_their_shares_of_70b_and_no_rank_holds_a_copy(described):
    """Four slices at once of an embedding of 128,256 x 8,192 in fp32, over 16 ranks; a regime of another kind, or experts, are loaded whole."""
    job = ("model=llama3.1_70b", "sharding=fsdp2", "node.gpus=16")
    run, facts = described(*PRETRAINED, *job, "regime=full")

    slices = 4 * 4 * 128_256 * 8192 // 16
    assert loading_bytes(job_of(run, facts, worst_batch(run, facts))) == slices
    assert host(described, *job, "regime=full")["loading"] == 15 * slices  # the first rank holds most when it saves, by one file


@pytest.mark.parametrize("what", [("stage=dpo",), ("stage=rm",), ("model.added_tokens=[new]",), ("model.init=random", "model.path=null")])
def test_what_is_made_of_whole_weights_is_loaded_whole_by_every_rank(described, what):
    run, facts = described(*PRETRAINED, "model=llama3.2_1b", "sharding=fsdp2", "node.gpus=2", "regime=full", *what)

    assert loading_bytes(job_of(run, facts, worst_batch(run, facts))) >= 4 * 1_100_000_000


def test_paged_states_take_host_memory_only_where_the_gpu_has_no_room(described):
    job = ("model=llama3.2_1b", "regime=full", "optim=paged_lion_8bit", "node.gpus=1")

    assert "paged states" not in host(described, *job)
    # nothing fits 1 GB: 4 bytes for the embedding, one for the layers' matrices, whose scales are not paged, nor are states of norms
    embedding, norms = 128_256 * 2048, 33 * 2048
    matrices = 1_235_814_400 - embedding - norms
    assert host(described, *job, "node.gpu_memory=1000000000")["paged states"] == 4 * embedding + matrices


def test_zero3_puts_what_learns_into_one_piece_on_the_host(described):
    found = host(described, "regime=full", "sharding=zero3", "node.gpus=2")

    # half of the model in 16 bits; the first rank writes it in files of 5 GB
    assert found["weights in one piece"] == 2 * P8
    assert "saving" not in found
    assert "loading" not in found


def test_zero2_writes_an_adapter_alone(described):
    found = host(described, "regime=lora", "sharding=zero2", "node.gpus=2")

    adapters = 32 * 16 * ((4096 + 4096) * 2 + (4096 + 1024) * 2 + (4096 + 14336) * 3)
    assert found["saving"] == 2 * adapters


@pytest.mark.parametrize(("precision", "element"), [("bf16", 2), ("bf16_amp", 4)])
def test_fsdp2_saves_file_by_file_and_each_rank_its_shares(described, precision, element):
    job = (*PRETRAINED, "regime=full", f"training.precision={precision}", "sharding=fsdp2", "node.gpus=2")
    first, other = (saving_bytes(job_of(*described(*job), worst_batch(*described(*job))), leads=leads) for leads in (True, False))

    assert first == 5 * 10**9
    assert other == element * 128_256 * 4096 // 2  # half of the embedding or the head


def test_a_model_of_less_than_a_file_is_held_once(described):
    job = (*PRETRAINED, "model=llama3.2_1b", "regime=full", "training.precision=bf16", "sharding=zero3", "node.gpus=2")
    assert saving_bytes(job_of(*described(*job), worst_batch(*described(*job))), leads=True) == 2 * 1_235_814_400


def test_the_first_rank_draws_and_saves_the_random_base_of_an_adapter(described):
    found = {
        term.name: term.bytes for term in estimate(*described("model=llama3.2_1b", "model.init=random", "regime=lora", "node.gpus=2")).host_terms
    }

    # 1,235,814,400 weights of 2 bytes, and a head of 128,256 x 2,048 before it is tied to the embedding
    assert found["random base"] == 2 * (1_235_814_400 + 128_256 * 2048)
    assert found["processes"] == RANK_HOST_LOADING + RANK_HOST_TRAINING


def test_on_a_cpu_frozen_weights_stay_pages_of_their_files(described):
    predicted = estimate(*described(*PRETRAINED, "regime=lora", "node=cpu", "node.host_memory=64000000000", "cluster.ranks_per_node=2"))
    found = {term.name: term.bytes for term in predicted.host_terms}

    assert found["training"] == 2 * (predicted.allocated - 2 * P8)
    assert found["processes"] == 2 * RANK_HOST_CPU


def test_zero2_offload_pins_masters_gradients_and_staging_of_every_rank(described):
    found = host(described, "regime=full", "sharding=zero2_offload", "node.gpus=2")

    # half of the elements a rank: 16.1 GB of fp32 pin 16 GiB, 8.03 GB of 16 bits 8 GiB, one gradient of 1.05 GB 1 GiB
    assert found["offloaded masters"] == found["offloaded gradients"] == 2 * 2**34
    assert found["processes"] == 2 * (RANK_HOST_TRAINING + DEEPSPEED)
    assert found["staging"] == 2 * (2**33 + 2**30)
    assert found["offloaded states"] == 2 * 8 * (P8 // 2)
    assert found["saving"] == 5 * 10**9  # the first rank, one file


def test_zero3_offload_pins_what_it_was_measured_to_pin(described):
    """full_amp-zero3_offload/llama3.2_1b on two H200s held 39.1 GiB resident, 4.1 of them the processes' own."""
    predicted = estimate(
        *described("model=llama3.2_1b", "model.init=random", "regime=full", "sharding=zero3_offload", "sharding.offload_params=true", "node.gpus=2")
    )
    found = {term.name: term.bytes for term in predicted.host_terms}

    # a rank's 617,907,200 elements: fp32 masters as they are, their gradients pinned to 4 GiB, 16-bit ones to 2 GiB, weights to 2 GiB
    assert found["offloaded masters"] == 2 * 4 * 617_907_200
    assert found["offloaded gradients"] == 2 * 6 * GIB
    assert found["offloaded weights"] > 2 * (2 * GIB + 2 * 617_907_200)  # and each once more by itself
    assert (predicted.host - found["processes"]) / GIB == pytest.approx(39.14 - 4.1, rel=0.02)


def test_a_random_mixture_whose_shape_names_no_experts_is_drawn_on_the_host(described):
    """Its experts are packed all the same, but the rank cannot know of them before (conf/mixtures.py): the base is drawn in 16 bits, and saved.

    Flint and ERNIE under QLoRA held 7.3 and 8.8 GiB on an H200's host, where 1.7 were predicted.
    """
    run, facts = described("model=mixtral_8x7b", "model.init=random", "model.path=null", "regime=qlora", "node=h200_141")
    unsaid = {name: value for name, value in run.model.architecture.items() if "experts" not in name}

    def drawn(architecture):
        terms = estimate(replace(run, model=replace(run.model, architecture=architecture)), facts).host_terms
        return sum(term.bytes for term in terms if term.name == "random base")

    experts = 8 * 3 * 4096 * 14336  # of one of 32 layers; gate and up are written from copies
    assert drawn(run.model.architecture) == 0
    assert drawn(unsaid) == pytest.approx(2 * 32 * (experts + 2 * experts // 3), rel=0.05)


def test_disk_holds_the_kept_checkpoints_one_in_the_making_and_the_model(described):
    predicted = estimate(*described("model=llama3.1_8b", "regime=full", "checkpoint.keep=3"))

    assert predicted.disk == (3 + 1) * (4 + 8) * P8 + 4 * P8


def test_an_adapter_run_saves_adapters_only(described):
    predicted = estimate(*described("model=llama3.1_8b", "regime=lora", "checkpoint.keep=1"))

    adapters = 32 * 16 * ((4096 + 4096) * 2 + (4096 + 1024) * 2 + (4096 + 14336) * 3)
    assert predicted.disk == 3 * 12 * adapters + 4 * adapters  # two are kept until the run is finished, and one is in the making


@pytest.mark.parametrize(("keep", "held"), [(1, 2), (2, 2), (3, 3)])
def test_two_checkpoints_are_there_at_least_and_the_best_is_among_them(described, keep, held):
    predicted = estimate(*described("model=llama3.1_8b", "regime=full", f"checkpoint.keep={keep}", "evaluation.best_at_end=true"))

    assert predicted.disk == (held + 1) * (4 + 8) * P8 + 4 * P8
