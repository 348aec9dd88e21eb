"""What a traced step depends on beside the architecture, and in which terms its bytes are given: launcher and trainers share both."""

from dataclasses import dataclass

REQUEST, TRACES = "request.json", "traces.json"

# What the bytes of one tensor are in proportion to, where a batch has B samples of S tokens.
POWERS = ((0, 0), (1, 0), (0, 1), (1, 1), (0, 2), (1, 2))  # exponents of B and S: 1, B, S, BS, SS, BSS


@dataclass(frozen=True)
class Adapter:
    """Of LoRA and QLoRA (conf/schema.py)."""

    rank: int
    dropout: float
    dora: bool
    targets: tuple[str, ...]
    bits: int  # of the base; 16: not quantised
    double_quant: bool


@dataclass(frozen=True)
class TraceSettings:
    compute: int  # bytes of an operand of a matrix product
    autocast: bool  # what learns is fp32, and cast where it is used
    checkpointing: bool
    attention: str
    masked: bool  # attention is given a mask tensor
    packed: bool  # every sample has positions of its own
    adapter: Adapter | None  # None: every weight learns
