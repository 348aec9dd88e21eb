"""Under torchrun: the same steps of ZeRO-1 and ZeRO-2 by DeepSpeed as it is and by one that does not wait. Rank 0 writes what both found.

python -m torch.distributed.run --standalone --nproc-per-node=2 tests/distributed/run_engine_steps.py RESULT.json cpu|cuda
"""

import json
import sys
from pathlib import Path
from typing import Any

import deepspeed
import torch
import torch.distributed as dist
from deepspeed.accelerator import get_accelerator

from conf.run_dir import RunDir
from trainers.__main__ import place_of_this_rank
from trainers.kernels.engine_steps import go_on, goes_on
from trainers.ranks.extensions import guard_deepspeed

STEPS, WIDTH, LAYERS = 4, 64, 6
LARGEST_NORM = 0.01  # each step is scaled down


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList(torch.nn.Linear(WIDTH, WIDTH) for _ in range(LAYERS))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            rows = torch.tanh(layer(rows))
        return rows.float().square().mean()


def engine_of(stage: int, masters: torch.dtype, on_gpu: bool) -> Any:
    torch.manual_seed(0)
    model = Net().to(torch.bfloat16)
    low = {"bf16_master_weights_and_grads": True, "bf16_optimizer_states": True} if masters == torch.bfloat16 else {}
    zero = {"stage": stage, "overlap_comm": on_gpu, "contiguous_gradients": True, "reduce_scatter": False, "reduce_bucket_size": 5000}
    config = {
        "train_micro_batch_size_per_gpu": 2,
        "gradient_clipping": LARGEST_NORM,
        "bf16": {"enabled": True, "check_grad_overflow": False, **low},
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "timers": {"throughput": {"enabled": False}},
    }
    engine, *_ = deepspeed.initialize(model=model, optimizer=torch.optim.AdamW(model.parameters(), lr=1e-2, fused=on_gpu), config=config)
    return engine


def steps_of(engine: Any, device: str, rank: int, waits: bool) -> dict[str, Any]:
    """Norms and the last weights; without waiting, whatever reads a value of the GPU is an error."""
    chance = torch.Generator().manual_seed(100 + rank)
    norms = []
    for number in range(STEPS):
        rows = torch.randn(2, WIDTH, generator=chance).to(device, torch.bfloat16)
        loss = engine(rows)
        if number == STEPS - 1:  # by then kernels are loaded and buffers are made
            forbid(device, not waits)
        engine.backward(loss)
        engine.step()
        norm = engine.get_global_grad_norm()
        forbid(device, False)
        norms.append(float(norm))
    return {"norms": norms, "weights": [weight.detach().double().sum().item() for weight in engine.module.parameters()]}


def forbid(device: str, forbidden: bool) -> None:
    if device == "cuda":
        torch.cuda.set_sync_debug_mode("error" if forbidden else "default")
        get_accelerator().synchronize = refuse if forbidden else torch.cuda.synchronize


def refuse(*_: Any) -> None:
    raise RuntimeError("the host waits for the GPU")


def infinite(engine: Any, device: str) -> dict[str, Any]:
    """A step whose gradients are not finite on one rank."""
    loss = engine(torch.ones(2, WIDTH, device=device, dtype=torch.bfloat16))
    engine.backward(loss * (float("inf") if dist.get_rank() == 0 else 1.0))
    engine.step()
    weights = torch.cat([weight.detach().flatten() for weight in engine.module.parameters()])
    return {"norm": str(float(engine.get_global_grad_norm())), "finite": bool(torch.isfinite(weights).all()), "skipped": engine.skipped_steps}


def main() -> None:
    result, device = Path(sys.argv[1]), sys.argv[2]
    guard_deepspeed(RunDir(result.parent), place_of_this_rank())  # what runs have compiled is not compiled again
    deepspeed.init_distributed()
    rank = dist.get_rank()
    if device == "cuda":
        torch.cuda.set_device(rank)
    found = {}
    for stage in (1, 2):
        for masters in (torch.float32, torch.bfloat16):
            both = {}
            for waits in (True, False):
                engine = engine_of(stage, masters, device == "cuda")
                assert goes_on(engine.optimizer)
                if not waits:
                    go_on(engine.optimizer)
                both["waiting" if waits else "going on"] = steps_of(engine, device, rank, waits)
            found[f"zero{stage} {masters}"] = {**both, "infinite": infinite(engine, device)}
    if rank == 0:
        result.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
