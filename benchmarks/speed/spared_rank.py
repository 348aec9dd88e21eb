"""The rank of a run of spared.py: `python -m benchmarks.speed.spared_rank`."""

import os

from benchmarks.speed.spared import rank

if __name__ == "__main__":
    os._exit(rank())
