"""How fast a card works, by kind of work: measured on one, by data sheet on the others."""

import re
from dataclasses import dataclass, replace

from conf.schema import SettledNode

# Bytes a second of a card's memory, and of one direction of its link to others of the node: NVLink, else PCIe. From the vendor's data sheets, by the
# first pattern that the driver's name has.
DATA_SHEETS: tuple[tuple[str, float, float], ...] = (
    (r"\bG?B200\b", 8.0e12, 900e9),
    (r"\bH200\b", 4.8e12, 450e9),
    (r"\bH100 PCIe\b", 2.0e12, 64e9),
    (r"\bH100\b", 3.35e12, 450e9),
    (r"\bA100-PCIE-40GB\b", 1.555e12, 32e9),
    (r"\bA100[ -]PCIe-80GB\b|\bA100 80GB PCIe\b", 1.935e12, 32e9),
    (r"\bA100\b.*\b40GB\b", 1.555e12, 300e9),
    (r"\bA100\b", 2.039e12, 300e9),
    (r"\bL40S\b", 0.864e12, 32e9),
    (r"\bL40\b", 0.864e12, 32e9),
    (r"\bL4\b", 0.3e12, 32e9),
    (r"\bA40\b", 0.696e12, 32e9),
    (r"\bA10G?\b", 0.6e12, 32e9),
    (r"\bRTX[ -]4090\b", 1.008e12, 32e9),
    (r"\bRTX[ -]3090\b", 0.936e12, 32e9),
    (r"\bV100-PCIE\b", 0.9e12, 16e9),
    (r"\bV100\b", 0.9e12, 150e9),
    (r"\bT4\b", 0.32e12, 16e9),
)
MEASURED = r"\bH200\b"
MEASURED_TFLOPS, MEASURED_MEMORY = 989.0, 4.8e12
FASTER_ATTENTION = r"\bG?[HB][12]00\b"  # of cuDNN, which trainers/kernels/attention.py takes from Hopper on
PCIE = {r"\bG?[HB][12]00\b": 64e9, r"\bT4\b|\bV100\b": 16e9}  # bytes a second of one direction of 16 lanes, of generation 5 and 3
PCIE_ELSE = 32e9


@dataclass(frozen=True)
class Host:
    """Seconds of the host, in Python and torch, for each of these (launcher/timing/launches.py)."""

    kernel: float
    function: float
    dequantised: float
    repeated: float
    module: float
    step: float  # of a step: clipping, the optimizer, the loop


@dataclass(frozen=True)
class Rates:
    products: float  # operations a second in a matrix product
    operands: float  # bytes a second of what a product reads and writes
    traffic: float  # bytes a second of element-wise kernels
    dequantising: float  # bytes a second
    attention: float  # share of the table below
    plain: Host  # with training.kernels=plain
    fused: Host
    measured: bool
    hopper: bool  # cuDNN's attention is there


# One H200. products and traffic: benchmarks/speed/rates.py fits them to results/speed/h200_fit.jsonl, whose runs started side by side and
# trained one at a time. operands: of the products of adapters alone, 2.4 to 2.7e12 (results/speed/h200_kernels.jsonl). dequantising: what 8B QLoRA
# takes more than 8B LoRA (results/speed/h200_speed.jsonl).
# plain, fused: fitted by benchmarks/speed/host_rates.py to every run on record that was timed alone, on 16 processors of virtual machines of four
# five sessions. The same job took 131 to 250 ms a step in them, as neighbours left the processors to it: the times of a host are taken to be in
# proportion to one turn of a loop in Python (launcher/facts/host_speed.py), and these are those of a host that needs TURN ns for it.
TURN = 36.0
PLAIN = Host(kernel=22.3e-6, function=80e-6, dequantised=114e-6, repeated=1.88e-3, module=21e-6, step=8.0e-3)
FUSED = Host(kernel=19.6e-6, function=80e-6, dequantised=89e-6, repeated=1.71e-3, module=21e-6, step=8.0e-3)
H200 = Rates(
    products=856e12, operands=2.5e12, traffic=3.1e12, dequantising=2.0e12, attention=1.0, plain=PLAIN, fused=FUSED, measured=True, hopper=True
)

# Operations a second of causal attention, forward and back, in rows of 2048 and of 4096 tokens, by kernel and width of a head
# (results/speed/h200_kernels.jsonl, one H200).
ATTENTION: dict[tuple[str, int], tuple[float, float]] = {
    ("flash", 64): (199e12, 235e12),
    ("cudnn", 64): (318e12, 381e12),
    ("flash", 128): (227e12, 269e12),
    ("cudnn", 128): (418e12, 500e12),
}
SHORT, LONG = 2048, 4096


def rates_of(node: SettledNode) -> Rates | None:
    """None where neither a measurement nor a data sheet is known: on a CPU, and of a card without a row or without node.tflops."""
    sheet = data_sheet(node)
    if not node.gpus or sheet is None or not node.tflops:
        return None
    name, slower = node.gpu_name or "", (node.python_turn or TURN) / TURN
    here = replace(H200, plain=scaled(PLAIN, slower), fused=scaled(FUSED, slower))
    if re.search(MEASURED, name) and node.tflops == MEASURED_TFLOPS:
        return here
    operations, memory = node.tflops / MEASURED_TFLOPS, sheet[0] / MEASURED_MEMORY
    return replace(
        here,
        products=H200.products * operations,
        operands=H200.operands * memory,
        traffic=H200.traffic * memory,
        dequantising=H200.dequantising * memory,
        attention=operations,
        measured=False,
        hopper=re.search(FASTER_ATTENTION, name) is not None,
    )


def scaled(host: Host, by: float) -> Host:
    return Host(**{name: by * seconds for name, seconds in vars(host).items()})


def data_sheet(node: SettledNode) -> tuple[float, float] | None:
    """Bytes a second of the memory, and of one direction of the link to other GPUs of the node."""
    return next(((memory, link) for pattern, memory, link in DATA_SHEETS if re.search(pattern, node.gpu_name or "")), None)


def pcie(node: SettledNode) -> float:
    return next((rate for pattern, rate in PCIE.items() if re.search(pattern, node.gpu_name or "")), PCIE_ELSE)


def attention_rate(rates: Rates, kernel: str, width: int, length: int) -> float:
    """Operations a second in rows of `length` tokens: the time of an operation is a line over 1 / length, through both that were measured."""
    short, long = ATTENTION[kernel, 64 if width <= 64 else 128]
    slope = (1 / short - 1 / long) / (1 / SHORT - 1 / LONG)
    return rates.attention / (1 / long + slope * (1 / length - 1 / LONG))
