"""One rank of a run whose GPU is as small as asked: `python capped.py BYTES RUN_FOLDER`, in the place of `python -m trainers RUN_FOLDER`.

torch's allocator refuses to reserve more than BYTES, as the driver of a smaller card would; the CUDA context lies outside of it.
"""

import os
import sys

import torch

from trainers.__main__ import main

if __name__ == "__main__":
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(int(sys.argv.pop(1)) / total, 0)
    code = main()
    sys.stdout.flush()
    os._exit(code)
