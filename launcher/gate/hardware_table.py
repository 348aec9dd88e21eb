"""The published hardware requirements: GPU memory of a whole node by method, bits and model size, interpolated on true parameter counts.

The table is for the model that learns: what a stage holds beside it, a reference or a reward model, counts in the prediction alone.
"""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from conf.regimes import regime_row
from conf.schema import Badam, Galore, Qlora, Run
from launcher.errors import ConfigError

GB = 10**9  # the table counts in decimal gigabytes

# What each column's model really holds: Llama-2-7B, Llama-2-13B, Qwen2.5-32B, Llama-2-70B, Qwen1.5-110B.
DENSE_COLUMNS = {"7B": 6_738_415_616, "13B": 13_015_864_320, "30B": 32_763_876_352, "70B": 68_976_648_192, "110B": 111_209_914_368}
# Mixtral-8x7B-v0.1 and Mixtral-8x22B-v0.1.
MIXTURE_COLUMNS = {"8x7B": 46_702_792_704, "8x22B": 140_620_634_112}


@dataclass(frozen=True)
class Row:
    method: str
    bits: str  # of the weights, as the table writes them: 16-mixed, 16, 8, 4, 2


FULL_AMP = Row("full_amp", "16-mixed")
FULL = Row("full", "16")
LORA = Row("lora_galore_badam", "16")


def row_of(run: Run) -> Row:
    """The row that judges this run.

    Raises:
        ConfigError: where the table has none.
    """
    if isinstance(run.regime, Qlora):
        return LORA if run.regime.dequantised else qlora_row(run.regime.bits)
    row = Row(regime_row(run.regime.name).published, "16")
    if row == FULL and isinstance(run.optim, (Galore, Badam)):  # APOLLO's type is Galore's
        return LORA
    # Masters, gradients and states in fp32 need the same 16 bytes per parameter with and without autocast.
    return FULL_AMP if row == FULL and run.training.precision != "bf16" else row


def row_words(run: Run) -> str:
    """The row as people call it. The table has one row for LoRA, GaLore and BAdam."""
    row, regime = row_of(run), regime_row(run.regime.name)
    if row == LORA and isinstance(run.optim, (Galore, Badam)):
        return f"{run.optim.name}, {row.bits} bit"
    words = regime.words or run.regime.name
    if row == LORA and isinstance(run.regime, Qlora):
        return f"LoRA, {row.bits} bit, for the dequantised base"
    if row == FULL_AMP:
        return f"{words} in {'fp32, by the row of ' if run.training.precision == 'fp32' else ''}mixed precision"
    return f"{words}, {row.bits} bit"


def qlora_row(bits: int) -> Row:
    row = Row("qlora", str(bits))
    if row not in table():
        known = sorted((int(key.bits) for key in table() if key.method == "qlora"), reverse=True)
        raise ConfigError(f"regime.bits={bits} has no row in the published hardware table. Set regime.bits to one of {', '.join(map(str, known))}.")
    return row


def published_need(row: Row, parameters: int, mixture: bool) -> int:
    """Bytes of GPU memory of the whole node for a model of that many parameters.

    Dense models lie on the five dense columns, mixtures on all seven by their total count. Below the first column the line goes through
    the origin; above the last it keeps that column's bytes per parameter.
    """
    columns = DENSE_COLUMNS | MIXTURE_COLUMNS if mixture else DENSE_COLUMNS
    points = [(0, 0), *sorted((count, table()[row][name] * GB) for name, count in columns.items())]
    return on_line(points, parameters)


def on_line(points: list[tuple[int, int]], x: int) -> int:
    """The ordinate at `x` of straight lines through `points` in order, rounded up; beyond the last, through the origin and the last."""
    last_x, last_y = points[-1]
    if x >= last_x:
        return -(-x * last_y // last_x)
    after = next(index for index, point in enumerate(points) if x < point[0])
    (x0, y0), (x1, y1) = points[after - 1], points[after]
    return -(-(y0 * (x1 - x) + y1 * (x - x0)) // (x1 - x0))


@cache
def table() -> Mapping[Row, Mapping[str, int]]:
    """GB by row and column."""
    with Path(__file__).with_name("hardware_table.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {Row(row["method"], row["bits"]): {name: int(row[name]) for name in DENSE_COLUMNS | MIXTURE_COLUMNS} for row in rows}
