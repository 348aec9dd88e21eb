"""The cells of test_stage_matrix.py, and its groups side by side, one line a test: `python tests/distributed/stage_matrix.py AT_ONCE [WORD...]`.

WORD: as `pytest -k` takes it, such as ppo or "dpo and zero2"; without one, every group. What failed is told on stderr.
"""

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

STAGES = ("pt", "sft", "rm", "dpo", "kto", "orpo", "simpo", "ppo", "grpo")
SHARDINGS = ("ddp", "zero2", "zero3")  # on a CPU fsdp2 is refused
REGIMES = ("full_bf16", "full_amp", "full_fp32", "freeze", "lora", "qlora8", "qlora4", "qlora2")
REFUSED = {("qlora2", "zero3")}
CELLS = [(stage, sharding, regime) for stage in STAGES for sharding in SHARDINGS for regime in REGIMES if (regime, sharding) not in REFUSED]

# ddp first: the first group under ZeRO compiles DeepSpeed's kernels, and the others wait for it
GROUPS = ("left_out", *(f"{stage} and {sharding}" for sharding in SHARDINGS for stage in STAGES))
REPOSITORY = Path(__file__).resolve().parents[2]
PYTEST = (sys.executable, "-m", "pytest", "tests/distributed/test_stage_matrix.py", "-m", "long", "--require=distributed", "-p", "no:cacheprovider")
LIBRARIES = ("torch", "transformers", "peft", "trl", "accelerate", "deepspeed", "bitsandbytes", "hqq")
OUTCOMES = ("PASSED", "FAILED", "ERROR", "SKIPPED")


def run_group(words: str) -> tuple[int, list[str]]:
    """Two ranks at a time; the exit code of pytest, and its line of each test."""
    threads = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}  # ranks of the groups beside this one need the other cores
    done = subprocess.run([*PYTEST, "-rA", "-k", words], cwd=REPOSITORY, env={**os.environ, **threads}, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith(OUTCOMES)]
    if done.returncode != 0:
        print(f"--- {words}\n{done.stdout}\n{done.stderr}", file=sys.stderr, flush=True)
    return done.returncode, lines


def main(at_once: int, groups: tuple[str, ...]) -> int:
    began = time.monotonic()
    print(f"# python tests/distributed/stage_matrix.py {at_once}, {time.strftime('%Y-%m-%d', time.gmtime())}, {os.cpu_count()} CPU cores")
    print(f"# {', '.join(f'{name} {version(name)}' for name in LIBRARIES)}", flush=True)
    codes, lines = [], []
    with ThreadPoolExecutor(at_once) as pool:
        for code, told in pool.map(run_group, groups):
            print(*told, sep="\n", flush=True)
            codes.append(code)
            lines += told
    counts = ", ".join(f"{sum(line.startswith(outcome) for line in lines)} {outcome.lower()}" for outcome in OUTCOMES)
    print(f"# {counts} in {time.monotonic() - began:.0f} s")
    return max(codes)


if __name__ == "__main__":
    raise SystemExit(main(int(sys.argv[1]), tuple(sys.argv[2:]) or GROUPS))
