"""Which architectures speak of experts, and which random bases are drawn again."""

import pytest

from conf.mixtures import draws_experts, names_experts
from tests.described import described

RANDOM = ("data=demo", "node=cpu", "model.init=random", "model.path=null")


@pytest.mark.parametrize(
    ("architecture", "expected"),
    [
        ({"model_type": "mixtral", "num_local_experts": 8}, True),
        ({"model_type": "deepseek_v3", "n_routed_experts": 256}, True),
        ({"model_type": "some_vl", "text_config": {"num_experts": 64}}, True),
        ({"model_type": "llama", "hidden_size": 64}, False),
        ({"model_type": "granitemoehybrid", "num_local_experts": 0}, False),
        ({"model_type": "gemma4_text", "num_experts": None}, False),
    ],
)
def test_a_number_of_experts_has_many_names(architecture: dict[str, object], expected: bool) -> None:
    assert names_experts(architecture) is expected


def test_only_a_random_mixture_whose_experts_stay_quantised_is_drawn_again() -> None:
    assert draws_experts(described("model=mixtral_8x7b", *RANDOM, "regime=qlora"))
    assert not draws_experts(described("model=mixtral_8x7b", *RANDOM, "regime=lora"))
    assert not draws_experts(described("model=mixtral_8x7b", *RANDOM, "regime=qlora", "regime.dequantised=true"))
    assert not draws_experts(described("model=mixtral_8x7b", "data=demo", "node=cpu", "regime=qlora"))
    assert not draws_experts(described("model=llama3.1_8b", *RANDOM, "regime=qlora"))
