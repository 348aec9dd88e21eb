"""Where this rank holds the parameters that learn and the states of their optimizer, under every sharding; and their filling from a checkpoint.

Under ZeRO the optimizer updates flat tensors that hold parts of many parameters, under the others the parameters themselves.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset
from torch.optim import Optimizer

from trainers.checkpoints.saved import STEP, WEIGHT, Saved


@dataclass(frozen=True)
class Held:
    """Elements `begin` to `begin + count` of a flattened parameter: they lie from `at` on in `owner`, which the optimizer updates."""

    name: str
    owner: Tensor
    at: int
    begin: int
    count: int


def held_plainly(model: nn.Module) -> Iterator[Held]:
    """Whole parameters, or rows of them (FSDP2)."""
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        begin = 0
        if isinstance(parameter, DTensor):
            _, offset = compute_local_shape_and_global_offset(parameter.shape, parameter.device_mesh, parameter.placements)
            begin = offset[0] * parameter[0].numel() if offset else 0
        yield Held(name, parameter, 0, begin, local(parameter).numel())


def held_by_zero2(engine: Any) -> Iterator[Held]:
    zero = engine.optimizer
    for parameter in (each for group in zero.bit16_groups for each in group):
        mapping = parameter._hp_mapping
        if mapping is not None:
            ours, of_it = mapping.hp_fragment_address, mapping.lp_fragment_address
            owner = zero.single_partition_of_fp32_groups[mapping.param_group_index]
            yield Held(zero.param_names[parameter], owner, ours.start, of_it.start, of_it.numel)


def held_by_zero3(engine: Any) -> Iterator[Held]:
    """Equal parts of each parameter; behind the end of one lies what fills up the last."""
    zero = engine.optimizer
    rank = torch.distributed.get_rank(zero.dp_process_group)
    for parameter in (each for group in zero.fp16_groups for each in group):
        group, at, share = zero.grad_position[zero.get_param_id(parameter)]
        count = max(0, min(share, parameter.ds_numel - rank * share))
        yield Held(zero.param_names[parameter], zero.fp32_partitioned_groups_flat[group], at, rank * share, count)


def fill(held: Iterable[Held], saved: Saved, optimizer: Optimizer) -> None:
    """Copy what is held, weights and states, from a checkpoint.

    Raises:
        ValueError: for a parameter that is not saved, or saved with fewer elements.
    """
    for part in held:
        if part.name not in saved:
            raise ValueError(f"the checkpoint holds no {part.name}. Resume with the sharding under which it was saved.")
        found = saved[part.name]
        state = optimizer.state[part.owner]
        for key in found.parts:
            target = part.owner if key == WEIGHT else state.setdefault(key, torch.zeros_like(part.owner))
            flat = local(target).view(-1)[part.at : part.at + part.count]
            for position, elements in found.elements(key, part.begin, part.count):
                flat[position : position + elements.numel()].copy_(elements)
        if found.step is not None:
            state[STEP] = counted(found.step, part.owner, optimizer)


def counted(step: float, owner: Tensor, optimizer: Optimizer) -> Any:
    """A number of steps in the form in which this optimizer counts them: torch's has a tensor, beside its parameter where its kernel is fused."""
    if not isinstance(optimizer, torch.optim.Adam):  # torch's AdamW is one
        return int(step)
    fused = any(group.get("fused") or group.get("capturable") for group in optimizer.param_groups)
    return torch.tensor(step, dtype=torch.float32, device=owner.device if fused else "cpu")


def local(tensor: Tensor) -> Tensor:
    """What this rank has of it, as memory to write into."""
    return (tensor.to_local() if isinstance(tensor, DTensor) else tensor).detach()
