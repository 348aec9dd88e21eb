"""Steps of DeepSpeed's ZeRO-1 and ZeRO-2 that do not wait for the GPU.

DeepSpeed 0.19.8 waits several times in such a step until all that was queued is done: at the end of the backward pass, where the next kernels could
wait on the GPU for the reductions alone; to know whether a gradient is infinite, and whether their norm is; for the norm, once for each group of
weights that it scales and once for whoever asks. While the host waits it queues nothing, and then the GPU waits for the host. Before the norm, two
small kernels for each gradient look for infinities, and the norm is taken of copies of 8 bytes a number. Its meter of throughput waits twice a step
in every stage of ZeRO. trainers/arguments.py turns that meter and the look at each gradient off.

Here nothing reads a value. A gradient that is NaN or infinite makes the norm and the weights so, as it does without DeepSpeed, and
trainers/callbacks/finite.py ends the run before anything is saved.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def goes_on(optimizer: Any) -> bool:
    """Whether it is ZeRO-1's or ZeRO-2's, has its states on the GPU, and computes in bf16, whose losses have no scale."""
    from deepspeed.runtime.zero.stage_1_and_2 import DeepSpeedZeroOptimizer

    return isinstance(optimizer, DeepSpeedZeroOptimizer) and not optimizer.cpu_offload and optimizer.dtype == torch.bfloat16


def go_on(optimizer: Any) -> None:
    """Have a DeepSpeedZeroOptimizer that `goes_on` queue its steps without waiting for them."""
    end_backward = optimizer.independent_gradient_partition_epilogue

    def end_backward_on_the_gpu() -> None:
        with reductions_awaited_on_the_gpu(optimizer):
            end_backward()

    def norm(norm_type: int = 2) -> Tensor:
        assert norm_type == 2, "DeepSpeed asks for no other"
        return global_norm(own_gradients(optimizer), optimizer.dp_process_group, optimizer.device)

    def scale(gradients: Sequence[Tensor], norm: Tensor) -> None:
        scale_down(gradients, norm, optimizer.clip_grad)

    optimizer.independent_gradient_partition_epilogue = end_backward_on_the_gpu
    optimizer.scaled_global_norm = norm
    optimizer.unscale_and_clip_grads = scale


@contextmanager
def reductions_awaited_on_the_gpu(optimizer: Any) -> Iterator[None]:
    """What DeepSpeed has the host wait for meanwhile, the stream of the next kernels waits for instead.

    Gradients that are freed then are used again by that stream alone, behind the reductions that read them.
    """
    from deepspeed.accelerator import get_accelerator

    accelerator = get_accelerator()
    accelerator.synchronize = lambda: accelerator.current_stream().wait_stream(optimizer.reduction_stream)
    try:
        yield
    finally:
        del accelerator.synchronize  # its class has the real one


def own_gradients(optimizer: Any) -> list[Tensor]:
    """This rank's parts of the summed gradients, without what fills its share up."""
    return [part for parts in optimizer.averaged_gradients.values() for part in parts if not getattr(part, "_zero_padding", False)]


def global_norm(parts: Sequence[Tensor], group: dist.ProcessGroup, device: torch.device | str) -> Tensor:
    """The 2-norm [] of what all ranks of the group hold, in fp32 on the device. A collective act."""
    norms = torch._foreach_norm(parts, 2, dtype=torch.float32) if parts else [torch.zeros((), device=device)]
    square = torch.linalg.vector_norm(torch.stack(norms)).square()
    dist.all_reduce(square, group=group)
    return square.sqrt()


def scale_down(gradients: Sequence[Tensor], norm: Tensor, largest: float) -> None:
    """In place, so that the norm is `largest` at most; 0: they stay. DeepSpeed's formula, which is torch.nn.utils.clip_grad_norm_'s."""
    if largest > 0:
        factor = 1 / ((norm + 1e-6) / largest).clamp(min=1.0)
        torch._foreach_mul_(gradients, factor.to(gradients[0].dtype))
