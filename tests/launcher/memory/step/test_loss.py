from launcher.memory.step.loss import evaluation_loss_bytes, fused_chunk, loss_bytes
from launcher.memory.weights.dtypes import storage_of


def test_plain_loss_takes_ten_bytes_per_logit_forward_and_twelve_backward(described):
    run, facts = described("model=llama3.1_8b")

    assert loss_bytes(run, facts, storage_of(run), 2048, head=0) == (10 * 2048 * 128256, 12 * 2048 * 128256)


def test_fp32_logits_need_no_fp32_copy(described):
    run, facts = described("training.precision=fp32")

    assert loss_bytes(run, facts, storage_of(run), 64, head=0) == (8 * 64 * 264, 12 * 64 * 264)


def test_fused_loss_holds_the_logits_of_one_chunk_at_a_time(described):
    run, facts = described("model=llama3.1_8b", "training.loss=fused")

    # 128256 / 4096 is 31.3: 32 chunks; 2048 / 32 is 64 tokens, a power of two already
    assert fused_chunk(facts, 2048) == 64
    assert loss_bytes(run, facts, storage_of(run), 2048, head=0) == (2 * 64 * 128256 + 2 * 2048 * 4096, 2 * 2048 * 4096)


def test_a_head_that_learns_costs_its_gradient_and_one_product_in_the_fused_loss(described):
    run, facts = described("model=llama3.1_8b", "regime=full", "training.loss=fused")
    head = 128256 * 4096

    assert loss_bytes(run, facts, storage_of(run), 2048, head)[0] - loss_bytes(run, facts, storage_of(run), 2048, 0)[0] == (4 + 2) * head


def test_chunked_loss_holds_the_logits_of_512_tokens_and_the_inputs_of_all(described):
    run, facts = described("model=llama3.1_8b", "training.loss=chunked")
    inputs = 2 * 2048 * 4096

    assert loss_bytes(run, facts, storage_of(run), 2048, head=0) == (8 * 512 * 128256 + inputs, 12 * 512 * 128256 + inputs + inputs * 3 // 4)


def test_chunked_loss_of_few_tokens_is_the_plain_loss_and_its_inputs(described):
    run, facts = described("training.precision=fp32", "training.loss=chunked")
    inputs = 4 * 64 * 128

    assert loss_bytes(run, facts, storage_of(run), 64, head=0) == (8 * 64 * 264 + inputs, 12 * 64 * 264 + inputs)


def test_a_head_that_learns_sums_its_gradient_over_chunks_of_fp32_inputs(described):
    run, facts = described("model=llama3.1_8b", "regime=full", "training.loss=chunked")
    head, inputs = 128256 * 4096, 4 * 2048 * 4096

    backward = inputs + inputs * 3 // 4 + 2 * 512 * 128256 + 2 * 2 * head  # of four chunks three have a gradient of their inputs
    assert loss_bytes(run, facts, storage_of(run), 2048, head) == (8 * 512 * 128256 + inputs, backward)

    assert 2 * 512 * 128256 + 2 * 2 * head > 12 * 512 * 128256 + 2 * head  # a wide head weighs more than the logits of one chunk


def test_only_the_chunked_loss_spares_logits_in_evaluation(described):
    for loss, tokens in (("plain", 2048), ("fused", 2048), ("chunked", 512)):
        run, facts = described("model=llama3.1_8b", f"training.loss={loss}")

        assert evaluation_loss_bytes(run, facts, storage_of(run), 2048) == 10 * tokens * 128256
