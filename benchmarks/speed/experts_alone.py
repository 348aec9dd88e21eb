"""Quantised experts by the size of the buffer that they are unpacked into: one layer alone, and the steps of a whole model.

    python -m benchmarks.speed.experts_alone --out EXPERTS.jsonl                  one H200, with nothing beside it
    python -m benchmarks.speed.experts_alone --out EXPERTS.jsonl --tiny           a rehearsal on a CPU

A layer: forward and backward pass over 2,048 tokens with routes drawn evenly, mean of CALLS after WARM. A whole model: Mixtral 8x7B of random
weights in 4 bits, 2,048 tokens with checkpointing, median of STEPS after WARM; loaded once, and trained by a plain loop, for regimen has no key for
the buffer. Each line is written when it is measured; those that the file holds are not measured again.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn

from benchmarks.memory.cells import overrides, tiny, write_samples
from benchmarks.memory.chosen import QLORA4, MemoryCell, cell, write_shapes
from benchmarks.running.cell_runs import surroundings
from launcher.composition.compose import compose
from launcher.gate.judge import judge_run
from trainers.model import experts as experts_module
from trainers.model.experts import expert_modules, take_parameters
from trainers.model.packing import EIGHT_BITS, FOUR_BITS_DOUBLE, TWO_BITS, Form

MIB = 2**20
BUFFERS = (64 * MIB, 128 * MIB, 256 * MIB, 512 * MIB, 1024 * MIB, 2**40)  # the last: a whole projection of a layer
FORMS = {8: EIGHT_BITS, 4: FOUR_BITS_DOUBLE, 2: TWO_BITS}
WARM, CALLS, STEPS, TOKENS = 2, 8, 6, 2048
WHOLE = cell("qlora4", "mixtral_8x7b", 1, TOKENS, QLORA4)


@dataclass(frozen=True)
class Shape:
    family: str
    experts: int
    hidden: int
    intermediate: int
    chosen: int  # experts that a token goes to

    def config(self) -> dict[str, Any]:
        routed = {"num_experts": self.experts, "num_local_experts": self.experts, "num_experts_per_tok": self.chosen}
        sizes = {"hidden_size": self.hidden, "intermediate_size": self.intermediate, "moe_intermediate_size": self.intermediate}
        heads = {"num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 16, "vocab_size": 64}
        return {**routed, **sizes, **heads}


SHAPES = {"mixtral": Shape("mixtral", 8, 4096, 14336, 2), "qwen3_30b_a3b": Shape("qwen3_moe", 128, 2048, 768, 8)}
TINY = {"mixtral": Shape("mixtral", 4, 64, 128, 2), "qwen3_30b_a3b": Shape("qwen3_moe", 8, 64, 64, 2)}


class Notes:
    """The lines of a file: what it holds is not measured again."""

    def __init__(self, path: Path, seconds: float, device: torch.device) -> None:
        self.path, self.device, self.facts = path, device, surroundings()
        self.end = time.monotonic() + seconds
        lines = path.read_text().splitlines() if path.exists() else []
        self.done = {json.loads(line)["what"] for line in lines}

    def wanted(self, what: str) -> bool:
        return what not in self.done and time.monotonic() < self.end

    def write(self, what: str, **found: object) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps({"what": what, **found, "surroundings": self.facts}) + "\n")
        print(what, found, flush=True)


def waited(device: torch.device) -> float:
    """Seconds, when all that was started has ended."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def timed(act: Callable[[], object], calls: int, device: torch.device) -> list[float]:
    """Seconds of each call after WARM others."""
    found = []
    for number in range(WARM + calls):
        began = waited(device)
        act()
        if number >= WARM:
            found.append(waited(device) - began)
    return found


def peak(device: torch.device) -> int:
    return torch.cuda.max_memory_allocated() if device.type == "cuda" else 0


def plain_layer(shape: Shape, device: torch.device) -> nn.Module:
    """The experts of one layer in 16 bits."""
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device(device):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(shape.family, **shape.config()), dtype=torch.bfloat16)
    (layer,) = expert_modules(model).values()
    return layer.requires_grad_(False)


def pack(layer: Any, form: Form) -> None:
    before = {name: parameter.data for name, parameter in layer.named_parameters(recurse=False)}
    take_parameters(layer, form, torch.bfloat16)
    for name, stack in before.items():
        packed = layer.get_submodule(name)
        for expert, matrix in enumerate(stack):
            for part, piece in enumerate(matrix.chunk(packed.parts)):
                packed.put(expert, part, piece)


def passes(layer: nn.Module, shape: Shape, tokens: int, device: torch.device) -> Callable[[], None]:
    generator = torch.Generator(device).manual_seed(0)
    hidden = torch.randn(tokens, shape.hidden, device=device, dtype=torch.bfloat16, generator=generator).requires_grad_()
    routes = torch.rand(tokens, shape.experts, device=device, generator=generator).topk(shape.chosen)
    weights = routes.values.to(torch.bfloat16).requires_grad_()

    def act() -> None:
        layer(hidden, routes.indices, weights).sum().backward()

    return act


def measure_layers(notes: Notes, shapes: dict[str, Shape], tokens: int) -> None:
    for name, shape in shapes.items():
        for bits in (0, *FORMS):
            wanted = {buffer: f"layer of {name}, {bits or 16} bits, buffer {buffer // MIB} MiB" for buffer in (BUFFERS if bits else BUFFERS[-1:])}
            if not any(notes.wanted(what) for what in wanted.values()):
                continue
            layer = plain_layer(shape, notes.device)
            if bits:
                pack(layer, FORMS[bits])
            act = passes(layer, shape, tokens, notes.device)
            for buffer, what in wanted.items():
                if notes.wanted(what):
                    note_layer(notes, what, buffer, act)


def note_layer(notes: Notes, what: str, buffer: int, act: Callable[[], None]) -> None:
    experts_module.EXPERT_BUFFER = buffer
    if notes.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    seconds = timed(act, CALLS, notes.device)
    notes.write(what, seconds=statistics.mean(seconds), peak=peak(notes.device))


def whole_model(small: bool, work: Path) -> Any:
    """As a run trains it, adapters and checkpointing with it."""
    from transformers import AutoModelForCausalLM

    from trainers.regimes import prepare_model, with_adapter

    shapes, data = write_shapes(work / "shapes"), write_samples(work / "data")
    given = [*overrides(WHOLE, data), "node=cpu" if small else "node=auto", "training.attention=sdpa", "training.kernels=plain"]
    if small:
        given += [*tiny(architecture(WHOLE, shapes)), "data.cutoff=128"]
    run = judge_run(compose(given, [shapes])).run
    prepared = prepare_model(run, AutoModelForCausalLM, work / "base")
    model = with_adapter(prepared, run)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.enable_input_require_grads()
    return model.train()


def architecture(chosen: MemoryCell, shapes: Path) -> dict[str, object]:
    return compose([f"model={chosen.model}", "model.init=random", "model.path=null", "data=demo"], [shapes]).model.architecture or {}


def measure_whole(notes: Notes, small: bool, tokens: int) -> None:
    wanted = {buffer: f"whole mixtral_8x7b, 4 bits, buffer {buffer // MIB} MiB" for buffer in BUFFERS}
    if not any(notes.wanted(what) for what in wanted.values()):
        return
    with TemporaryDirectory() as folder:
        began = time.perf_counter()
        model = whole_model(small, Path(folder))
        notes.write(f"whole mixtral_8x7b, loaded at {time.strftime('%H:%M:%S')}", seconds=waited(notes.device) - began)
        act = steps(model, tokens, notes.device)
        for buffer, what in wanted.items():
            if notes.wanted(what):
                note_whole(notes, what, buffer, act, tokens)


def steps(model: Any, tokens: int, device: torch.device) -> Callable[[], None]:
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=1e-4, fused=device.type == "cuda")
    ids = torch.randint(0, model.config.vocab_size, (1, tokens), device=device, generator=torch.Generator(device).manual_seed(0))

    def act() -> None:
        with torch.autocast(device.type, dtype=torch.bfloat16):
            model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return act


def note_whole(notes: Notes, what: str, buffer: int, act: Callable[[], None], tokens: int) -> None:
    experts_module.EXPERT_BUFFER = buffer
    if notes.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    seconds = timed(act, STEPS, notes.device)
    notes.write(what, tokens_per_second=tokens / statistics.median(seconds), seconds=seconds, peak=peak(notes.device))


def rows(path: Path) -> Iterator[str]:
    """Of the page: what was measured, a line each."""
    for line in map(json.loads, path.read_text().splitlines()):
        shown = f"{line['tokens_per_second']:,.0f} tokens/s" if "tokens_per_second" in line else f"{1e3 * line['seconds']:.1f} ms"
        yield f"| {line['what']} | {shown} | {line.get('peak', 0) / 2**30:.2f} GiB |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=60, help="measure nothing new after this time")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--table", action="store_true", help="print what the file holds, and measure nothing")
    arguments = parser.parse_args()
    if arguments.table:
        print("\n".join(rows(arguments.out)))
        return 0
    device = torch.device("cpu" if arguments.tiny else "cuda")
    notes, tokens = Notes(arguments.out, arguments.seconds, device), 64 if arguments.tiny else TOKENS
    measure_layers(notes, TINY if arguments.tiny else SHAPES, tokens)
    measure_whole(notes, arguments.tiny, tokens)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
