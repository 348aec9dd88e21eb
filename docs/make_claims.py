"""Writes the figures of README's claims from the raw results: python -m docs.make_claims."""

import argparse
import json
import re
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.memory.measured import errors, records
from benchmarks.memory.tables import FILES
from benchmarks.speed.times import error_of

REPOSITORY = Path(__file__).resolve().parent.parent
RESULTS = REPOSITORY / "benchmarks" / "results"
WITHIN = 0.015  # of the measured peak


def lines(*patterns: str) -> list[dict[str, Any]]:
    """The JSON lines of the result files that match."""
    return [json.loads(line) for pattern in patterns for path in sorted(RESULTS.glob(pattern)) for line in path.read_text().splitlines()]


def memory() -> str:
    """Of the sets of one GPU whose predictions were committed before they were measured."""
    measured = [record for (_, gpus), file in FILES.items() if gpus == 1 for record in records(RESULTS / file)]
    found = [abs(errors(record["predicted"], record["measured"])["allocated"][0]) for record in measured]
    within = sum(error <= WITHIN for error in found)
    return f"{len(found)} runs on an H200: {statistics.median(found):.2%} off in the median, {within} within {WITHIN:.1%}"


def gate() -> str:
    return f"{len({line['cell'] for line in lines('memory/h200_caps*.jsonl')})} jobs on an H200, each under smaller and smaller caps"


def speed() -> str:
    """The newest run of each cell with nothing set but its model, data, regime and samples a step."""
    newest = {
        line["cell"].split("/")[0]: line
        for line in lines("speed/h200_speed.jsonl")
        if line["cell"].endswith("/default") and "tokens_per_second" in line
    }
    return f"8B LoRA {newest['8b-lora']['tokens_per_second']:,.0f} and 8B QLoRA {newest['8b-qlora']['tokens_per_second']:,.0f} tokens/s on one H200"


def kills() -> str:
    trials = [line for line in lines("reliability/kills_in_training.jsonl", "reliability/kills_on_gpu*.jsonl") if not line["broken"]]
    held = sum(line["held"] for line in trials)
    return f"{held} of {len(trials)} real runs with the same losses, rows and weights, bit for bit"


def time() -> str:
    measured = [line for line in lines("speed/h200_times.jsonl") if "step" in line]
    found = [abs(error_of(line)) for line in measured]
    return f"{len(found)} runs on an H200: {statistics.median(found):.1%} off in the median, {max(found):.1%} at worst"


def start() -> str:
    [line] = lines("speed/h200_first_step.jsonl")
    return f"the first step of 8B QLoRA ends {line['start_seconds']:.1f} s after the command, files warm"


CLAIMS: Mapping[str, Callable[[], str]] = {
    "Peak memory is predicted": memory,
    "The gate permits nothing": gate,
    "With no key set for it": speed,
    "Killed runs end": kills,
    "The time of a step": time,
    "It starts fast": start,
}


def with_figures(page: str) -> str:
    """The page with the line below each claim made anew.

    Raises:
        ValueError: where a claim is not there, or several times.
    """
    for claim, figure in CLAIMS.items():
        page, made = re.subn(rf"^(- {re.escape(claim)}[^\n]*:\n  )[^\n]*$", rf"\g<1>{figure()}", page, flags=re.MULTILINE)
        if made != 1:
            raise ValueError(f"README.md has {made} claims that begin with {claim!r}; it needs one.")
    return page


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.parse_args()
    readme = REPOSITORY / "README.md"
    readme.write_text(with_figures(readme.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
