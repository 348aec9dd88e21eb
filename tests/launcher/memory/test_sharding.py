from launcher.memory.estimate import estimate

P8 = 8_030_261_248  # Llama-3.1-8B


def terms(described, phase, *overrides):
    predicted = estimate(*described("model=llama3.1_8b", "regime=full", *overrides))
    found = next(each for each in predicted.phases if each.name == phase)
    return {term.name: term.bytes for term in found.terms}


def test_zero2_splits_masters_states_and_gradients_but_not_weights(described):
    step = terms(described, "optimizer step", "sharding=zero2", "node.gpus=4")

    assert step["weights"] == 2 * P8
    assert step["master weights"] == 4 * P8 // 4
    assert step["optimizer states"] == 8 * P8 // 4
    assert step["gradients"] == 2 * P8 // 4
    assert step["flattened gradients"] == P8 // 4 * (2 + 4)


def test_zero1_keeps_whole_gradients(described):
    assert terms(described, "optimizer step", "sharding=zero1", "node.gpus=4")["gradients"] == 2 * P8


def test_zero3_splits_weights_too_and_holds_a_billion_of_them_and_the_head_around_the_loss(described):
    loss = terms(described, "backward: loss", "sharding=zero3", "node.gpus=4")

    assert loss["weights"] == 2 * P8 // 4
    assert loss["gradient partition"] == 2 * P8 // 4
    assert loss["gathered weights"] == 2 * 10**9 + 2 * 128256 * 4096


def test_ddp_doubles_gradients_by_its_buckets(described):
    assert terms(described, "optimizer step", "node.gpus=2")["gradient buckets"] == 4 * P8
    assert "gradient buckets" not in terms(described, "optimizer step", "node.gpus=1")


def test_offload_takes_masters_states_and_gradients_from_the_gpu(described):
    step = terms(described, "optimizer step", "sharding=zero2_offload", "node.gpus=2")

    assert step["weights"] == 2 * P8
    assert step["gradients"] == 0
    assert "optimizer states" not in step
    assert "master weights" not in step


def test_fsdp2_splits_all_and_gathers_two_blocks_and_the_root(described):
    loss = terms(described, "backward: loss", "sharding=fsdp2", "node.gpus=8")

    layer = 2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 14336 + 2 * 4096
    assert loss["weights"] == 4 * P8 // 8
    assert loss["gathered weights"] == 4 * 2 * layer + 2 * 2 * 128256 * 4096


def test_reduction_buffers_of_zero2_do_not_depend_on_what_learns(described):
    predicted = estimate(*described("model=llama3.1_8b", "regime=lora", "sharding=zero2", "node.gpus=2"))
    backward = next(phase for phase in predicted.phases if phase.name == "backward: last layer")

    assert {term.name: term.bytes for term in backward.terms}["reduction buffers"] == 2 * 2 * 500_000_000
