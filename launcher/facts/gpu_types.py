"""What card the TYPE in `Gres=gpu:TYPE:N` of Slurm is: conf/gpu_types.yaml, and what the site adds to it (cluster.gpu_types)."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

import conf
from conf.sizes import bytes_of
from launcher.errors import ConfigError

TABLE = Path(conf.__file__).parent / "gpu_types.yaml"
NODES = Path(conf.__file__).parent / "node"
VENDOR = re.compile(r"^(nvidia_)?(tesla_|geforce_)?")  # Slurm's AutoDetect=nvml writes the product's name, in small letters
ROW = re.compile(r"(?P<type>[\w.-]+):(?P<name>[\w .-]+):(?P<memory>[0-9.]+ ?[A-Za-z]+)(?::(?P<tflops>[0-9]*[1-9][0-9]*(\.[0-9]+)?))?")


@dataclass(frozen=True)
class Card:
    """One GPU of a node: its name as the driver reports it, bytes, and dense 16-bit peak in TFLOP/s (None: not known)."""

    name: str
    memory: int
    tflops: float | None


def card_of(gpu_type: str, site: Sequence[str]) -> Card | None:
    """The card of a type; None where nobody says which it is. Rows of the site come first.

    Raises:
        ConfigError: for a row of the site that describes no card.
    """
    rows = dict(read_row(row) for row in site)
    known = table().get(plain(gpu_type))
    return rows.get(gpu_type) or rows.get(plain(gpu_type)) or (None if known is None else described_card(known))


def plain(gpu_type: str) -> str:
    return VENDOR.sub("", gpu_type.lower())


@cache
def table() -> Mapping[str, str]:
    rows: dict[str, str] = yaml.safe_load(TABLE.read_text(encoding="utf-8"))
    return rows


@cache
def described_card(node: str) -> Card:
    values = yaml.safe_load((NODES / f"{node}.yaml").read_text(encoding="utf-8"))
    return Card(values["gpu_name"], values["gpu_memory"], values["tflops"])


def card_names() -> list[str]:
    """The files of conf/node that describe a GPU."""
    return sorted(path.stem for path in NODES.glob("*.yaml") if path.stem not in ("auto", "cpu"))


def read_row(row: str) -> tuple[str, Card]:
    """The type and the card of TYPE:CARD, where CARD is a file of conf/node, or of TYPE:NAME:MEMORY[:TFLOPS].

    Raises:
        ConfigError: for what is neither.
    """
    gpu_type, _, described = row.partition(":")
    if described in card_names():
        return gpu_type, described_card(described)
    found = ROW.fullmatch(row)
    memory = bytes_of(found["memory"]) if found else None
    if found is None or not memory:
        raise ConfigError(
            f"cluster.gpu_types={row} does not say which card a type is. Write TYPE:CARD, where CARD is one of {', '.join(card_names())}, "
            f"or TYPE:NAME:MEMORY:TFLOPS, for example {example('b200')}. TFLOPS, the dense bf16 peak of one GPU, may be left out."
        )
    return found["type"], Card(found["name"], memory, float(found["tflops"]) if found["tflops"] else None)


def example(gpu_type: str) -> str:
    return f"cluster.gpu_types=[{gpu_type}:NAME:80GB:312]"


def line_to_add(gpu_type: str) -> str:
    """What says which card an unknown type is: of a described card its name, of another one its values."""
    alike = [name for name in card_names() if name.startswith(re.split(r"[-_ ]", plain(gpu_type))[0])]
    return " or ".join(f"cluster.gpu_types=[{gpu_type}:{name}]" for name in alike) or example(gpu_type)
