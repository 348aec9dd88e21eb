from dataclasses import replace

from conf.shardings import SETTINGS
from launcher.memory.weights.dtypes import FULL_MEANING, loaded_element


def test_full_means_these_bytes_per_parameter():
    table = {key: storage.per_parameter for key, storage in FULL_MEANING.items()}

    # weight + gradient + DeepSpeed's master + two states of AdamW
    assert table == {
        ("torch", "bf16_amp"): 4 + 4 + 8,
        ("torch", "fp16_amp"): 4 + 4 + 8,
        ("torch", "bf16"): 2 + 2 + 4,
        ("torch", "fp32"): 4 + 4 + 8,
        ("deepspeed", "bf16_amp"): 2 + 2 + 4 + 8,
        ("deepspeed", "fp16_amp"): 2 + 2 + 4 + 8,
        ("deepspeed", "bf16"): 2 + 2 + 2 + 4,
        ("deepspeed", "fp32"): 4 + 4 + 4 + 8,
        ("fsdp2", "bf16_amp"): 4 + 4 + 8,
        ("fsdp2", "fp16_amp"): 4 + 4 + 8,
        ("fsdp2", "bf16"): 2 + 2 + 4,
        ("fsdp2", "fp32"): 4 + 4 + 8,
    }


def test_every_engine_has_all_precisions():
    assert {precision for _, precision in FULL_MEANING} == {"bf16_amp", "fp16_amp", "bf16", "fp32"}
    assert len(FULL_MEANING) == len(SETTINGS) * 4


def test_only_weights_that_all_learn_under_autocast_are_loaded_in_fp32(described):
    run, _ = described("regime=full")
    lora, _ = described("regime=lora")

    assert loaded_element(run) == 4
    assert loaded_element(lora) == 2
    assert loaded_element(replace(run, training=replace(run.training, precision="bf16"))) == 2
