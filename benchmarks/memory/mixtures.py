"""Cells of quantised mixtures on one GPU: whole models of random weights, which are drawn and quantised where they train, and cut ones in every bits.

The experts of a whole model in 16 bits would fill more than the disk or the host of most machines with one GPU: none is written.
"""

from benchmarks.memory.chosen import OFF, QLORA2, QLORA4, QLORA8, cell

WHOLE = (
    cell("qlora4", "mixtral_8x7b", 1, 2048, QLORA4),
    cell("qlora4", "qwen3_30b_a3b", 1, 2048, QLORA4),
    cell("qlora4", "mixtral_8x22b", 1, 2048, QLORA4),
    cell("qlora4-kept", "mixtral_8x7b", 1, 1024, QLORA4, OFF),
    cell("qlora8", "mixtral_8x7b", 1, 2048, QLORA8),
    cell("qlora2", "mixtral_8x7b", 1, 2048, QLORA2),
)
CUT = tuple(
    cell(f"{name}{suffix}", model, samples, length, bits, *parts)
    for model in ("mixtral_cut", "qwen3_moe_cut", "qwen2_moe_cut", "deepseek_cut")
    for name, bits in (("qlora8", QLORA8), ("qlora4", QLORA4), ("qlora2", QLORA2))
    for suffix, parts, samples, length in (("", (), 1, 2048), ("-kept", (OFF,), 2, 1024))
    if not (model == "deepseek_cut" and name == "qlora8")  # bitsandbytes' 8-bit layers refuse its keys' inputs of four dimensions
)
MIXTURES_ONE_GPU = (*WHOLE, *CUT)
