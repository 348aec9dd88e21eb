"""What a checkpoint holds under each sharding, in bytes a weight. Folders of real ranks: tests/trainers/test_disk.py."""

import pytest

from launcher.memory.estimate import estimate

P = 8_030_261_248  # of Llama-3.1-8B
ADAPTERS = 32 * 16 * ((4096 + 4096) * 2 + (4096 + 1024) * 2 + (4096 + 14336) * 3)


@pytest.mark.parametrize(
    ("sharding", "regime", "precision", "size"),
    [
        ("ddp", "full", "bf16_amp", (4 + 8) * P),  # weights and two states
        ("zero1", "full", "bf16_amp", (2 + 2 + 4 + 8) * P),  # the model, its weights once more, masters, states
        ("zero2", "full", "bf16", (2 + 2 + 2 + 4) * P),
        ("zero3", "full", "bf16_amp", (2 + 4 + 8) * P),  # the model, masters, states
        ("fsdp2", "full", "bf16_amp", (4 + 4 + 8) * P),  # the model, its shards, states
        ("fsdp2", "full", "bf16", (2 + 2 + 4) * P),
        ("fsdp2", "lora", "bf16_amp", (4 + 4 + 8) * ADAPTERS),
        ("ddp", "lora", "bf16_amp", (4 + 8) * ADAPTERS),
    ],
)
def test_a_checkpoint_is_the_model_and_what_the_engine_keeps(described, sharding, regime, precision, size):
    job = (
        "model=llama3.1_8b",
        "model.init=pretrained",
        "model.path=somewhere",
        f"regime={regime}",
        f"training.precision={precision}",
        f"sharding={sharding}",
    )
    found = {term.name: term.bytes for term in estimate(*described(*job, "node.gpus=2")).disk_terms}

    assert found["checkpoint in the making"] == size
    assert found["checkpoints"] == 2 * size


def test_weights_that_are_frozen_are_saved_too_and_by_zero3_twice(described):
    job = (
        *("model=llama3.1_8b", "model.init=pretrained", "model.path=somewhere"),
        *("regime=freeze", "regime.layers=1", "training.precision=bf16", "node.gpus=2"),
    )
    plain, split = ({term.name: term.bytes for term in estimate(*described(*job, f"sharding={name}")).disk_terms} for name in ("ddp", "zero3"))
    learned = 2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 14336 + 2 * 4096  # a layer

    assert plain["checkpoint in the making"] == 2 * P + 4 * learned
    assert split["checkpoint in the making"] == 2 * P + (2 + 4) * learned + 2 * (P - learned)
