"""Kernels alone on one GPU: attention of every kind, orders of the products of a LoRA layer, sizes of the loss' chunks.

    python -m benchmarks.speed.kernels_alone --out KERNELS.jsonl

Times are means of ten calls after three, forward and backward; attention counts 3.5 times the forward operations of the causal half.
"""

import argparse
import json
from collections.abc import Callable
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.speed.cells import CELLS, lengths

CALLS = 10
BF16 = torch.bfloat16


def seconds(act: Callable[[], object]) -> float:
    for _ in range(3):
        act()
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    for _ in range(CALLS):
        act()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end) / CALLS / 1e3


def random(*shape: int, grad: bool = True) -> torch.Tensor:
    return torch.randn(*shape, device="cuda", dtype=BF16).requires_grad_(grad)


def whole_rows(heads: int, width: int, length: int, rows: int, backend: SDPBackend) -> float:
    query, key, value = random(rows, heads, length, width), random(rows, 8, length, width), random(rows, 8, length, width)
    given = torch.randn_like(query)

    def act() -> None:
        with sdpa_kernel([backend]):
            functional.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True).backward(given)

    return 3.5 * 2 * length**2 * heads * width * rows / seconds(act) / 1e12


def joined_rows(heads: int, width: int, bounds: list[int], cudnn: bool) -> float:
    from trainers.model.attention import Spans, by_kernel

    total = bounds[-1]
    query, key, value = random(total, heads, width), random(total, 8, width), random(total, 8, width)
    given, spans = torch.randn_like(query), torch.tensor(bounds, dtype=torch.int32, device="cuda")
    sizes = [after - before for before, after in pairwise(bounds)]

    def act() -> None:
        if cudnn:
            longest = max(sizes)
            out = torch.ops.aten._cudnn_attention_forward(query, key, value, None, spans, spans, longest, longest, True, 0.0, True, False)[0]
            out.backward(given)
        else:
            by_kernel(query, key, value, width**-0.5, Spans(spans, max(sizes), None)).backward(given)

    return 3.5 * 2 * sum(size**2 for size in sizes) * heads * width / seconds(act) / 1e12


def attention_cells() -> dict[str, Callable[[], float]]:
    found: dict[str, Callable[[], float]] = {}
    mixed = mixed_bounds()
    for width in (64, 128):
        for length, rows in ((2048, 8), (4096, 4)):
            for backend in (SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION):
                found[f"{backend.name} {width} wide, {rows} x {length}"] = lambda w=width, n=length, r=rows, b=backend: whole_rows(32, w, n, r, b)
            bounds = [length * row for row in range(rows + 1)]
            found[f"varlen {width} wide, {rows} x {length}"] = lambda w=width, b=bounds: joined_rows(32, w, b, False)
        found[f"varlen {width} wide, 32 mixed lengths"] = lambda w=width: joined_rows(32, w, mixed, False)
    return found


def last_cells() -> dict[str, Callable[[], float]]:
    """What no public function of torch calls: after all others, since a fault of the GPU ends the process."""
    bounds = mixed_bounds()
    return {f"varlen of cuDNN {width} wide, 32 mixed lengths": lambda w=width: joined_rows(32, w, bounds, True) for width in (64, 128)}


def mixed_bounds() -> list[int]:
    return [0, *accumulate(lengths(next(cell for cell in CELLS if cell.mixed), 32))]


def product_cells() -> dict[str, Callable[[], float]]:
    """Milliseconds of y = x W' + x A' B' and its parts, 8192 tokens, rank 16."""
    found: dict[str, Callable[[], float]] = {}
    for inputs, outputs in ((4096, 4096), (4096, 14336), (14336, 4096)):
        hidden, weight = random(8192, inputs, grad=False), random(outputs, inputs, grad=False)
        a, b, inner, into = (
            random(16, inputs, grad=False),
            random(outputs, 16, grad=False),
            random(8192, 16, grad=False),
            random(8192, outputs, grad=False),
        )
        acts: dict[str, Callable[[], object]] = {
            "base alone": lambda x=hidden, w=weight: functional.linear(x, w),
            "base, then adapter added": lambda x=hidden, w=weight, i=inner, b=b: functional.linear(x, w).addmm_(i, b.t()),
            "adapter, then base added": lambda x=hidden, w=weight, i=inner, b=b: (i @ b.t()).addmm_(x, w.t()),
            "adapter added alone": lambda y=into, i=inner, b=b: y.addmm_(i, b.t()),
            "x A'": lambda x=hidden, a=a: x @ a.t(),
            "gradient of B": lambda y=into, i=inner: torch.mm(y.t(), i, out_dtype=torch.float32),
            "gradient of B in bf16": lambda y=into, i=inner: y.t() @ i,
            "gradient of B transposed": lambda y=into, i=inner: torch.mm(i.t(), y, out_dtype=torch.float32),
            "gradient of A": lambda x=hidden, i=inner: torch.mm(i.t(), x, out_dtype=torch.float32),
            "gradient of the inner product": lambda y=into, b=b: y @ b,
        }
        for name, act in acts.items():
            found[f"ms: {inputs} to {outputs}: {name}"] = lambda act=act: 1e3 * seconds(act)
    return found


def fp8_cells() -> dict[str, Callable[[], float]]:
    """Milliseconds of the parts of training.fp8=true, 8192 tokens, beside the same product in bf16; and by one scale for all numbers."""
    from trainers.kernels import fp8

    found: dict[str, Callable[[], float]] = {}
    for inputs, outputs in ((4096, 4096), (4096, 14336), (14336, 4096)):
        hidden, weight = random(8192, inputs, grad=False), random(outputs, inputs, grad=False)
        rows, scales = fp8.quantise_rows(hidden)
        matrix, of_outputs = fp8.quantise_rows(weight)
        columns = fp8.scales_of(torch.linalg.vector_norm(weight, float("inf"), dim=0)).unsqueeze(1)
        turned, one = torch.empty(inputs, outputs, dtype=fp8.E4M3, device="cuda"), torch.ones((), device="cuda")

        def by_rows(fast: bool, rows: Any = rows, scales: Any = scales, matrix: Any = matrix, others: Any = of_outputs) -> object:
            return fp8.product(rows, scales, matrix, others, BF16, fast)

        def by_one(fast: bool, rows: Any = rows, matrix: Any = matrix, one: Any = one) -> object:
            return torch._scaled_mm(rows, matrix.t(), scale_a=one, scale_b=one, out_dtype=BF16, use_fast_accum=fast)

        acts: dict[str, Callable[[], object]] = {
            "bf16": lambda x=hidden, w=weight: functional.linear(x, w),
            "a scale for each row": lambda act=by_rows: act(False),
            "a scale for each row, fast sums": lambda act=by_rows: act(True),
            "one scale": lambda act=by_one: act(False),
            "one scale, fast sums": lambda act=by_one: act(True),
            "input to e4m3": lambda x=hidden: fp8.quantise_rows(x),
            "weight to e4m3": lambda w=weight, m=matrix: fp8.quantise_rows(w, m),
            "weight to e4m3, transposed": lambda w=weight, c=columns, t=turned: fp8.quantise_columns(w, c, t),
        }
        for name, act in acts.items():
            found[f"ms: fp8: {inputs} to {outputs}: {name}"] = lambda act=act: 1e3 * seconds(act)
    return found


def loss_cells() -> dict[str, Callable[[], float]]:
    """Milliseconds of the loss of 8192 tokens, forward and backward, by logits at a time."""
    from trainers.kernels import loss

    def act(width: int, size: int, learns: bool) -> float:
        hidden, head = random(8192, width), random(128256, width, grad=learns)
        targets = torch.randint(0, 128256, (8192,), device="cuda")

        def one() -> None:
            loss.LOGITS = size * 128256
            hidden.grad = head.grad = None
            loss.SummedCrossEntropy.apply(hidden, head, targets).backward()

        return 1e3 * seconds(one)

    sizes = (512, 1024, 2048, 4096, 8192)
    return {
        f"ms: loss of width {width}, {'head learns' if learns else 'head frozen'}, chunks of {size}": lambda w=width, s=size, x=learns: act(w, s, x)
        for width, learns in ((4096, False), (2048, True))
        for size in sizes
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", default="", help="cells whose names hold this")
    arguments = parser.parse_args()
    cells: dict[str, Callable[[], float]] = {**attention_cells(), **product_cells(), **fp8_cells(), **loss_cells(), **last_cells()}
    for name, cell in cells.items():
        if arguments.only not in name:
            continue
        record: dict[str, Any] = {"name": name, "gpu": torch.cuda.get_device_name(), "torch": torch.__version__}
        try:
            record["value"] = round(cell(), 4)
        except (RuntimeError, AttributeError, TypeError) as error:
            record["error"] = str(error)[:200]
        with arguments.out.open("a") as file:
            file.write(json.dumps(record) + "\n")
        print(f"{name:<70} {record.get('value', record.get('error'))}", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
