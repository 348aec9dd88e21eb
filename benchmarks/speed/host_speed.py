"""How fast the host of this process is at what a step asks of it: microseconds of small jobs, each the median of several rounds."""

import statistics
import time
from collections.abc import Callable

STARTS, TURNS, PASSES, ROUNDS = 1000, 50_000, 40, 5


def host_speed() -> dict[str, float]:
    """To add to a small tensor (on the GPU where there is one), for one turn of a loop of Python, and for a small pass through modules and back."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    small = torch.zeros(16, device=device)
    layers = torch.nn.Sequential(*(torch.nn.Sequential(torch.nn.Linear(16, 16), torch.nn.SiLU()) for _ in range(4))).to(device)

    def start() -> None:
        for _ in range(STARTS):
            small.add_(1)

    def turn() -> None:
        total = 0
        for number in range(TURNS):
            total += number

    def pass_through() -> None:
        for _ in range(PASSES):
            layers(small.float()[None]).sum().backward()

    jobs: dict[str, tuple[Callable[[], None], int]] = {"kernel": (start, STARTS), "loop": (turn, TURNS), "pass": (pass_through, PASSES)}
    with torch.enable_grad():
        return {name: 1e6 * statistics.median(seconds(job) for _ in range(ROUNDS)) / count for name, (job, count) in jobs.items()}


def seconds(job: Callable[[], None]) -> float:
    """Of the host alone where the GPU keeps up, which it does with small jobs."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
    began = time.perf_counter()
    job()
    return time.perf_counter() - began
