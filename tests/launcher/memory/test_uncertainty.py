import pytest

from launcher.memory.estimate import estimate


def share(described, *overrides):
    return estimate(*described("model=llama3.1_8b", "node.gpus=1", *overrides)).uncertainty.share


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ((), 0.01),
        (("training.loss=chunked",), 0.015),
        (("model=mixtral_8x7b",), 0.015),
        (("node.gpus=2",), 0.01),
        (("node.gpus=2", "sharding=zero2", "regime=full"), 0.01),
        (("node.gpus=2", "sharding=zero3", "regime=full"), 0.025),
        (("regime=qlora", "regime.bits=8", "training.loss=fused"), 0.03),
        (("regime=qlora", "regime.bits=8"), 0.01),
        (("regime=qlora", "regime.bits=2"), 0.01),
        (("regime=lora", "regime.dora=true"), 0.015),
        (("node.gpus=2", "sharding=zero3_offload", "regime=full"), 0.19),
        (("node.gpus=2", "sharding=zero3_offload", "regime=lora"), 0.03),
        (("node.gpus=2", "sharding=fsdp2", "regime=full"), 0.02),
        (("node.gpus=8",), 0.03),
        (("optim=galore", "regime=full"), 0.01),
        (("node.gpus=0",), 0.13),
    ],
)
def test_every_kind_of_job_states_its_own_uncertainty(described, overrides, expected):
    assert share(described, *overrides) == expected


def test_the_largest_of_several_kinds_counts_and_names_its_source(described):
    predicted = estimate(*described("model=mixtral_8x7b", "regime=qlora", "regime.bits=8", "training.loss=fused", "node.gpus=1"))

    assert predicted.uncertainty.share == 0.03
    assert "outliers" in predicted.uncertainty.source
    assert predicted.as_dict()["uncertainty"] == {"share": 0.03, "source": predicted.uncertainty.source}
