"""Cells of training.kernels=fused on one GPU, drawn at random by the seed below: models x regimes x batch x checkpointing x rows x loss x variants.

Two samples in a micro-batch are of mixed lengths, so that some batches are laid end to end, or padded under sdpa; of four and more every sample is
longer than the cutoff, since the largest batch of mixed ones might not come up in six steps.
"""

import random
from dataclasses import replace

from benchmarks.memory.chosen import CHUNKED, FREEZE, FULL_AMP, FULL_BF16, FUSED, LORA, OFF, QLORA4, QLORA8, MemoryCell
from benchmarks.memory.drawn import ACCUMULATED
from benchmarks.memory.from_files import PACKED, filed

SEED, CELLS = 20261129, 28
KERNELS, PADDED = "training.kernels=fused", "training.attention=sdpa"
SMALL = ("qwen2.5_0.5b", "qwen3_0.6b", "gemma3_1b", "llama3.2_1b")
WIDE = ("mistral_7b_cut", "qwen3_8b_cut", "qwen2.5_7b_cut", "phi3_mini", "llama3.1_8b")
SIZES = ((1, 2048), (1, 4096), (1, 8192), (2, 1024), (2, 2048), (4, 1024), (4, 2048), (8, 512), (8, 1024))
REGIMES = {
    "full_bf16": FULL_BF16,
    "full_amp": FULL_AMP,
    "freeze": f"{FREEZE} regime.layers=2",
    "lora": LORA,
    "qlora4": QLORA4,
    "qlora8": QLORA8,
}
WEIGHTS = (3, 3, 2, 5, 4, 1)
LAYERS = (1, 2, 3, 5)  # of which activations are computed again; the cut models have six
VARIANTS = {"rank64": "regime.rank=64", "q_v": "regime.targets=[q_proj,v_proj]", "dropout": "regime.dropout=0.1"}


def drawn(draw: random.Random, by_layers: bool = False) -> MemoryCell:
    """`by_layers`: most cells that keep their activations keep those of all but a few layers."""
    regime = draw.choices(list(REGIMES), weights=WEIGHTS)[0]
    model = draw.choice(SMALL + (WIDE if regime != "full_amp" else WIDE[:3]))
    if model == "llama3.1_8b" and "lora" not in regime:
        model = "llama3.2_1b"  # the whole of 8B does not learn on one GPU beside other cells
    samples, length = draw.choice(SIZES)
    length = min(length, 4096) if model == "phi3_mini" else length  # its positions
    loss = draw.choices(("fused", "", "chunked"), weights=(4, 1, 1))[0]
    variant = draw.choice(list(VARIANTS)) if "lora" in regime and draw.random() < 0.4 and model != "phi3_mini" else ""
    parts = {
        regime: REGIMES[regime],
        "kept": OFF if draw.random() < 0.6 else "",
        loss: {"fused": FUSED, "chunked": CHUNKED, "": ""}[loss],
        variant: VARIANTS.get(variant, ""),
        "accumulated": ACCUMULATED if draw.random() < 0.25 else "",
        "packed": PACKED if draw.random() < 0.2 else "",
        "padded": PADDED if samples == 2 and draw.random() < 0.3 else "",
    }
    if by_layers and parts["kept"] and draw.random() < 0.7:
        count = 1 if regime == "freeze" else draw.choice(LAYERS)  # through two layers at most goes its backward pass
        parts = {**parts, "kept": "", f"layers{count}": f"training.gradient_checkpointing={count}"}
    taken = {name: text for name, text in parts.items() if text}
    if "packed" in taken:
        taken.pop("padded", None)
    cell = filed("-".join(("kernels", *taken)), model, samples, length, KERNELS, *taken.values())
    return replace(cell, rows="samples.json" if samples == 2 and "packed" not in taken else "long.json")


def grid(seed: int, count: int, by_layers: bool = False) -> tuple[MemoryCell, ...]:
    """Different ones; what is drawn a second time is drawn again."""
    draw, found = random.Random(seed), {}
    while len(found) < count:
        cell = drawn(draw, by_layers)
        found.setdefault(cell.name, cell)
    return tuple(found.values())


FUSED_ONE_GPU = grid(SEED, CELLS)
FUSED_AGAIN_ONE_GPU = tuple(cell for cell in grid(SEED + 1, 16) if cell not in FUSED_ONE_GPU)
# After the norms of adapted models became torch's own. 8B is left out, whose weights take long to read.
FUSED_LAYERS_ONE_GPU = tuple(
    cell
    for cell in grid(SEED + 2, 50, by_layers=True)
    if cell.name not in {earlier.name for earlier in (*FUSED_ONE_GPU, *FUSED_AGAIN_ONE_GPU)} and cell.model != "llama3.1_8b"
)[:42]
