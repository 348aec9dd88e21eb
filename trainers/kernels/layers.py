"""liger-kernel's RMSNorm, rotary embedding and SwiGLU or GEGLU in the layers of the families that were compared; others stay as they are.

Under an adapter the norms of the residual stream are torch's own (norms.py).
Saved for the backward pass of a layer with T tokens, in the dtype of its tensors: of each norm its input and one fp32 number a token, where
transformers' own keeps the input, two fp32 tensors and a product of their size; of the rotary embedding cosines and sines alone (queries and keys are
turned in place); of SwiGLU its two inputs, T x intermediate each, which the backward pass overwrites by their gradients. All are deterministic.
"""

import inspect
import sys
from collections.abc import Callable
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from conf.kernels import FUSED_FAMILIES

LAYER_KERNELS = ("rope", "rms_norm", "swiglu", "geglu")


def fuse_layers(model: PreTrainedModel) -> bool:
    """Give the layers of `model`, which is to run on a GPU, liger's kernels in place; whether that was done.

    liger replaces the classes in the family's module too. They are put back: the next model of the family begins with transformers' own layers.
    """
    if model.config.model_type not in FUSED_FAMILIES:
        return False
    from liger_kernel.transformers.monkey_patch import MODEL_TYPE_TO_APPLY_LIGER_FN

    apply = MODEL_TYPE_TO_APPLY_LIGER_FN[model.config.model_type]
    switches = [name for name in inspect.signature(apply).parameters if name != "model"]
    module = sys.modules[type(model).__module__]
    before = dict(vars(module))
    apply(model=model, **{name: name in LAYER_KERNELS for name in switches})
    vars(module).update(before)
    if "apply_rotary_pos_emb" in before:
        module.apply_rotary_pos_emb = turning(before["apply_rotary_pos_emb"])
    return True


def turning(on_cpus: Callable[..., Any]) -> Callable[..., Any]:
    """The one name that attention looks up in its module at each call, so that later models of the family find it too: they may be on a CPU."""
    on_cpus = getattr(on_cpus, "on_cpus", on_cpus)  # of an earlier model, which was given this already

    def turned(query: Tensor, *arguments: Any, **keywords: Any) -> Any:
        return (rotary if query.is_cuda else on_cpus)(query, *arguments, **keywords)

    turned.on_cpus = on_cpus  # type: ignore[attr-defined]
    return turned


def rotary(query: Tensor, key: Tensor, cos: Tensor, sin: Tensor, unsqueeze_dim: int = 1, **_: Any) -> tuple[Tensor, Tensor]:
    """liger's kernel itself: its own function looks through all of its backends at every call."""
    from liger_kernel.ops import LigerRopeFunction

    turned: tuple[Tensor, Tensor] = LigerRopeFunction.apply(query, key, cos, sin, None, unsqueeze_dim)
    return turned
