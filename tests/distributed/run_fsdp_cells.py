"""As run_cells.py, with FSDP2 on CPUs: torch splits weights there over gloo, and accelerate alone keeps to GPUs.

python -m torch.distributed.run --standalone --nproc-per-node=2 tests/distributed/run_fsdp_cells.py FOLDER...
"""

import runpy
from pathlib import Path
from typing import Any

from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType


def split_on_cpus() -> None:
    """What AcceleratorState does with a plugin of FSDP where ranks have GPUs (accelerate/state.py), done where they have none."""
    plain = AcceleratorState.__init__

    def with_plugin(self: AcceleratorState, *positional: Any, **named: Any) -> None:
        plain(self, *positional, **named)
        plugin = named.get("fsdp_plugin")
        if plugin is not None and self.distributed_type == DistributedType.MULTI_CPU:
            if self._mixed_precision != "no":
                plugin.set_mixed_precision(self._mixed_precision)
            self.fsdp_plugin = plugin
        if self.__dict__.get("fsdp_plugin") is not None:
            self.distributed_type = DistributedType.FSDP  # every further state of the process would begin as one of plain ranks

    AcceleratorState.__init__ = with_plugin


if __name__ == "__main__":
    split_on_cpus()
    runpy.run_path(str(Path(__file__).with_name("run_cells.py")), run_name="__main__")
