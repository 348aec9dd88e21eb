from launcher.memory.loss import fused_chunk, loss_bytes
from launcher.memory.storage import storage_of


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
    assert loss_bytes(run, facts, storage_of(run), 2048, head=0)[1] == 2 * 64 * 128256 + 2 * 2048 * 4096


def test_a_head_that_learns_costs_its_gradient_and_one_product_in_the_fused_loss(described):
    run, facts = described("model=llama3.1_8b", "regime=full", "training.loss=fused")
    head = 128256 * 4096

    assert loss_bytes(run, facts, storage_of(run), 2048, head)[0] - loss_bytes(run, facts, storage_of(run), 2048, 0)[0] == (4 + 2) * head
