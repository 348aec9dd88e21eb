"""One rank of a run that follows every allocation: `python alive_rank.py RUN_FOLDER`, in the place of `python -m trainers RUN_FOLDER`.

RUN_FOLDER/alive.json: how many blocks of which size were alive at the peak, as [bytes, blocks], the most bytes first. Sizes alone: the backward pass
of a checkpointed layer fails where torch 2.11 records the Python frames of an allocation.
"""

import json
import os
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from trainers.__main__ import main

ENTRIES = 2_000_000


def alive_at_peak(trace: Iterable[dict[str, Any]]) -> Counter[int]:
    """Of a device's events in their order: by size, those allocations that were not freed when their sum was largest."""
    alive: dict[int, int] = {}
    now = highest = 0
    at_peak = Counter[int]()
    for event in trace:
        if event["action"] == "alloc":
            alive[event["addr"]] = event["size"]
            now += event["size"]
        elif event["action"] == "free_completed" and event["addr"] in alive:
            if now > highest:
                highest, at_peak = now, Counter(alive.values())
            now -= alive.pop(event["addr"])
    return at_peak if highest >= now else Counter(alive.values())


if __name__ == "__main__":
    torch.cuda.memory._record_memory_history(context=None, max_entries=ENTRIES)
    code = main()
    found = alive_at_peak(torch.cuda.memory._snapshot()["device_traces"][0])
    (Path(sys.argv[1]) / "alive.json").write_text(json.dumps(sorted(found.items(), key=lambda kind: -kind[0] * kind[1])))
    sys.stdout.flush()
    os._exit(code)
