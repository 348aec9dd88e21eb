"""Which families the installed liger-kernel fuses the loss of."""

import inspect

import pytest

from launcher.facts.model.families import COUNTED, FAMILIES, traits_of

FUSED = [name for name in (*FAMILIES, *COUNTED) if traits_of(name).fused_loss]
patches = pytest.importorskip("liger_kernel.transformers.monkey_patch", reason="liger-kernel is for GPUs")


@pytest.mark.parametrize("family", FUSED)
def test_a_family_that_is_planned_with_a_fused_loss_has_one(family):
    apply = patches.MODEL_TYPE_TO_APPLY_LIGER_FN[family]

    assert "fused_linear_cross_entropy" in inspect.signature(apply).parameters


def test_everything_else_that_liger_would_change_is_switched_off():
    from launcher.composition.compose import compose
    from trainers.arguments import loss_arguments

    config = loss_arguments(compose(["model=qwen2.5_0.5b", "data=demo", "training.loss=fused"]))["liger_kernel_config"]
    for family in FUSED:
        parameters = inspect.signature(patches.MODEL_TYPE_TO_APPLY_LIGER_FN[family]).parameters.values()
        on = {parameter.name for parameter in parameters if parameter.default is True}
        assert on <= set(config), family
