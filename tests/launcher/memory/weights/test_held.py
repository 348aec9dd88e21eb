"""A dequantised base lies in memory as that of LoRA."""

import pytest

from launcher.memory.estimate import estimate


@pytest.mark.parametrize("model", ["llama3.1_8b", "qwen2.5_0.5b"])
@pytest.mark.parametrize(
    "choices", [(), ("training.kernels=fused", "training.loss=fused", "training.gradient_checkpointing=false")], ids=["plain", "fused"]
)
@pytest.mark.parametrize("bits", [4, 2])
def test_every_phase_on_the_gpu_is_that_of_lora(described, bits, choices, model):
    of_lora = estimate(*described(f"model={model}", "regime=lora", *choices))
    found = estimate(*described(f"model={model}", "regime=qlora", f"regime.bits={bits}", "regime.dequantised=true", *choices))

    assert found.phases == of_lora.phases
    assert (found.fragments, found.outside, found.uncertainty) == (of_lora.fragments, of_lora.outside, of_lora.uncertainty)


def test_weights_go_to_the_gpu_as_those_of_qlora(described):
    """transformers quantises onto the GPU, so in fp32 the host holds no copy of the model, as it does for LoRA."""
    shared = ("model=qwen2.5_0.5b", "training.precision=fp32")
    host = {choices: estimate(*described(*shared, *choices)).host for choices in [("regime=lora",), ("regime=qlora",), ("regime=qlora", DEQUANTISED)]}

    assert host["regime=qlora", DEQUANTISED] == host[("regime=qlora",)] < host[("regime=lora",)]


DEQUANTISED = "regime.dequantised=true"
