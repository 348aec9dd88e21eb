"""Which cells the calculators of other projects are asked about, and with which layers and bits."""

import pytest

from benchmarks.memory.calculators import LINEARS, bits_of, fitcheck_describes, soup_describes, targets_of, unsloth_describes
from launcher.composition.compose import compose
from launcher.gate.judge import Judged, judge_run

JOB = ("model=llama3.2_1b", "data=demo", "training.fit=off", "training.kernels=plain", "gate.mode=off", "node=h200_141", "node.gpus=1")


def judged(*overrides: str) -> Judged:
    return judge_run(compose([*JOB, *overrides]))


@pytest.mark.parametrize(
    ("overrides", "asked"),
    [
        (("regime=lora", "training.loss=plain"), {"fitcheck", "soup"}),
        (("regime=lora", "training.loss=chunked"), {"unsloth"}),
        (("regime=qlora", "regime.bits=8", "training.loss=plain"), {"fitcheck", "soup"}),
        (("regime=qlora", "regime.bits=8", "training.loss=chunked"), set()),
        (("regime=qlora", "regime.bits=2", "training.loss=plain"), set()),
        (("regime=full", "training.precision=bf16", "training.loss=plain"), set()),
        (("regime=full", "training.precision=bf16", "training.loss=chunked"), {"unsloth"}),
        (("regime=full", "training.precision=bf16_amp", "training.loss=plain"), {"fitcheck", "soup"}),
        (("regime=full", "training.precision=bf16_amp", "training.loss=plain", "optim=muon"), set()),
        (("regime=freeze", "training.loss=plain"), set()),
        (("regime=lora", "regime.dora=true", "training.loss=plain"), set()),
    ],
)
def test_a_calculator_is_asked_only_about_what_its_inputs_can_say(overrides: tuple[str, ...], asked: set[str]) -> None:
    found = judged(*overrides)
    describes = {"fitcheck": fitcheck_describes, "soup": soup_describes, "unsloth": unsloth_describes}
    assert {name for name, describe in describes.items() if describe(found.run, found.facts)} == asked


def test_all_linear_layers_are_named_one_by_one_and_the_bits_of_no_quantisation_are_sixteen() -> None:
    assert targets_of(judged("regime=lora").run) == list(LINEARS)
    assert targets_of(judged("regime=lora", "regime.targets=[q_proj,v_proj]").run) == ["q_proj", "v_proj"]
    assert [bits_of(judged(*regime).run) for regime in (("regime=lora",), ("regime=qlora", "regime.bits=4"))] == [16, 4]
