"""How busy, how warm and how hungry each GPU of this machine is at this moment: for people to look at, never for a verdict."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Load:
    """None: the driver does not report it, as for a MIG instance."""

    busy: int | None  # percent of the last sample period in which a kernel ran
    celsius: int | None
    watts: float | None


def gpu_loads() -> dict[int, Load]:
    """By the number of the board, in PCI order; empty where no driver answers, which visible_gpus tells."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return {}
    try:
        return {index: load_of(pynvml, pynvml.nvmlDeviceGetHandleByIndex(index)) for index in range(pynvml.nvmlDeviceGetCount())}
    except pynvml.NVMLError:
        return {}
    finally:
        pynvml.nvmlShutdown()


def load_of(nvml: Any, handle: Any) -> Load:
    def said(ask: Callable[[], Any]) -> Any:
        try:
            return ask()
        except nvml.NVMLError:  # not supported on this board, or not in its mode
            return None

    busy = said(lambda: int(nvml.nvmlDeviceGetUtilizationRates(handle).gpu))
    celsius = said(lambda: int(nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)))
    return Load(busy, celsius, said(lambda: nvml.nvmlDeviceGetPowerUsage(handle) / 1000))
