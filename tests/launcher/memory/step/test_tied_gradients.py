"""How many gradients of a tied embedding are there at once at the end of a backward pass."""

import pytest

from launcher.memory.estimate import estimate
from tests.described import with_facts

ONE = 2 * 151_936 * 896  # bytes of the embedding's gradient of Qwen 2.5 0.5B in bf16
RUN = (
    *("model=qwen2.5_0.5b", "data=demo", "regime=full", "training.precision=bf16", "training.fit=off", "training.loss=fused"),
    *("training.gradient_checkpointing=true", "node=h200_141", "node.gpus=1", "sharding=ddp", "training.accumulation=1"),
)


@pytest.mark.parametrize(("kernels", "tokens", "beside"), [("plain", 2048, 2), ("fused", 2048, 1), ("plain", 4096, 1), ("fused", 4096, 1)])
def test_the_head_and_the_embedding_are_added_into_a_third_on_few_tokens_by_the_thread_of_a_gpu(kernels: str, tokens: int, beside: int) -> None:
    """Beside the one that is counted with the other gradients: that of the head, and with the plain kernels up to 3,072 tokens their sum."""
    predicted = estimate(*with_facts(*RUN, f"training.kernels={kernels}", "training.micro_batch=1", f"data.cutoff={tokens}")).as_dict()

    assert predicted["phases"]["backward: end"]["terms"]["gradients to be summed"] == beside * ONE


def test_the_peak_of_a_backward_pass_with_fused_kernels_is_the_measured_one() -> None:
    """kernels-full_bf16-fused/qwen2.5_0.5b/1x2048 on an H200: 4,263,120,384 bytes."""
    predicted = estimate(*with_facts(*RUN, "training.kernels=fused", "training.micro_batch=1", "data.cutoff=2048")).as_dict()

    assert predicted["phases"]["backward: end"]["bytes"] == pytest.approx(4_263_120_384, rel=0.0005)
