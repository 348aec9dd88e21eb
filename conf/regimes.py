"""What of a model each regime trains, and how it is named elsewhere: one row a regime.

Launcher and trainers read this table. How a regime prepares a model is in trainers/regimes; what its keys cost is in launcher/memory.
"""

from dataclasses import dataclass
from typing import Literal

from conf.rows import row_of
from conf.schema import Freeze, Full, Lora, Qlora, Regime


@dataclass(frozen=True)
class RegimeRow:
    settings: type[Regime]  # the type of its YAML file
    learns: Literal["every weight", "some weights", "an adapter"]
    published: str  # its method in the published hardware table (launcher/gate/hardware_table.csv)
    phrase: str  # of it in the plan's sentence; {KEY} stands for the value of regime.KEY
    quantised: bool = False  # the frozen weights are packed, in regime.bits each
    words: str = ""  # its name in sentences; empty: as it is


REGIMES: dict[str, RegimeRow] = {
    "full": RegimeRow(Full, "every weight", "full", "full", words="full training"),
    "freeze": RegimeRow(Freeze, "some weights", "freeze", "freeze but {layers} layers"),
    "lora": RegimeRow(Lora, "an adapter", "lora_galore_badam", "LoRA of rank {rank}", words="LoRA"),
    "qlora": RegimeRow(Qlora, "an adapter", "qlora", "QLoRA in {bits} bits, rank {rank}", quantised=True, words="QLoRA"),
}


def regime_row(name: str) -> RegimeRow:
    """Raises MissingRow where the table has none."""
    return row_of(REGIMES, "regime", name, "REGIMES in conf/regimes.py")
