"""What a run will take: steps, tokens, disk, wall time, each with what it was counted from."""

import json
from dataclasses import asdict, dataclass
from math import ceil
from pathlib import Path
from typing import Any

from conf.schema import Data, Run
from launcher.errors import DataError
from launcher.memory.estimate import MemoryEstimate
from launcher.memory.stages import sample_tokens
from launcher.model_facts import ModelFacts
from launcher.reinforcement import refuse_too_few_prompts, steps_of_an_epoch
from launcher.throughput import step_flops

ASSUMED_MFU = 0.4  # of the vendor's dense peak; measured runs of the field lie between 0.3 and 0.5
LARGEST_LIST = 256 * 2**20  # bytes of a .json file that is read whole to count its list; parsing takes seconds and several times its size
GENERATED_SAMPLES = 2000  # trainers/data/generated.py makes this many; a test holds the two together

DATA_FILES = (".json", ".jsonl", ".csv", ".parquet", ".txt")  # what trainers/data/records.py reads; a test holds the two together


@dataclass(frozen=True)
class Expectations:
    samples: int | None  # training samples; None: not known before the data is read
    steps: int | None
    tokens: int | None  # an upper bound: every sample as long as data.cutoff
    disk: int  # bytes of the checkpoints that are kept and of the final model
    seconds: float | None
    flops_per_token: float  # model FLOP of one trained token, recomputation not counted
    peak_flops: float | None  # FLOP/s of all GPUs of the run
    sources: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def expect(run: Run, facts: ModelFacts, predicted: MemoryEstimate) -> Expectations:
    trained = trained_samples(run)
    steps = expected_steps(run, trained)
    assert run.training.effective_batch is not None, "settle() fills the batch"
    step_tokens = run.training.effective_batch * sample_tokens(run)
    flops = step_flops(facts, run, step_tokens)
    peak = None if not (run.node.gpus and run.node.tflops) else run.node.tflops * 1e12 * run.cluster.nodes * (run.cluster.ranks_per_node or 1)
    seconds = None if steps is None or peak is None else steps * flops.hardware / (peak * ASSUMED_MFU)
    return Expectations(
        samples=trained,
        steps=steps,
        tokens=None if steps is None else steps * step_tokens,
        disk=predicted.disk,
        seconds=seconds,
        flops_per_token=flops.model / step_tokens,
        peak_flops=peak,
        sources=sources(run, trained, seconds),
    )


def refuse_too_few(run: Run, samples: int | None) -> None:
    """Every rank needs one whole micro batch; what packing or the cutoff takes away is known to the trainers alone.

    Raises:
        DataError: when there are surely fewer.
    """
    ranks = run.cluster.nodes * (run.cluster.ranks_per_node or 1)
    if samples is not None and samples < ranks * run.training.micro_batch:
        raise DataError(
            f"{samples} training samples are fewer than one batch: {ranks} rank{'s' * (ranks > 1)} x training.micro_batch="
            f"{run.training.micro_batch}. Lower training.micro_batch, use fewer ranks, or give more data."
        )
    if samples is not None:
        refuse_too_few_prompts(run, samples)


def expected_steps(run: Run, samples: int | None) -> int | None:
    if run.training.max_steps is not None:
        return run.training.max_steps
    if samples is None or run.data.packing:
        return None
    return ceil(run.training.epochs * steps_of_an_epoch(run, samples))


def sources(run: Run, samples: int | None, seconds: float | None) -> tuple[str, ...]:
    counted = "unknown data" if samples is None else f"{samples} samples in {', '.join(run.data.sets)}"
    steps = "training.max_steps" if run.training.max_steps else counted
    rate = f"{ASSUMED_MFU:.0%} of the GPUs' dense bf16 peak" if seconds is not None else "no peak rate is known for this node"
    return (f"steps: {steps}", f"tokens: at most, every sample {run.data.cutoff} long", f"time: {rate}")


def trained_samples(run: Run) -> int | None:
    """None where it is not the sum of the sets: mixed sets repeat or end early, a stream is not counted, texts are cut into rows."""
    data = run.data
    if data.streaming or data.mixing != "concatenate":
        return None
    samples = count_samples(data)  # for texts too: it tells of files that are not there
    return None if samples is None or run.stage.name == "pt" else samples - round(samples * data.validation_share)


def count_samples(data: Data) -> int | None:
    """Samples of all sets, where local files tell; None for hub sets and formats whose count needs a full read by a library.

    Raises:
        DataError: for a set whose file is named but absent.
    """
    counts = [count_set(entry, data) for entry in data.sets]
    return None if any(count is None for count in counts) else sum(min(count, data.max_samples or count) for count in counts if count is not None)


def count_set(entry: str, data: Data) -> int | None:
    if entry == "generated":
        return GENERATED_SAMPLES
    path = file_of(entry, data)
    count = None if path is None else count_records(path)
    if count == 0:
        raise DataError(f"{path}: holds no records. Give a file with at least one.")
    return count


def file_of(entry: str, data: Data) -> Path | None:
    """The local file or folder of a data set entry; None: the entry means a hub set.

    Raises:
        DataError: when the file it names is not there.
    """
    folder, registry = Path(data.folder), Path(data.folder) / data.registry
    if registry.is_file():
        try:
            entries = json.loads(registry.read_text(encoding="utf-8-sig"))
        except json.JSONDecodeError as error:
            raise DataError(f"{registry}, line {error.lineno}, column {error.colno}: no valid JSON ({error.msg}). Mend the registry.") from error
        if entry in entries:
            name = entries[entry].get("file_name")
            return None if name is None else existing(folder / name, f"data set {entry} of {registry}")
    local = [path for path in (folder / entry, Path(entry)) if path.exists()]
    if local and (local[0].is_dir() or local[0].suffix in DATA_FILES):
        return local[0]
    if entry.endswith(DATA_FILES):
        return existing(Path(entry), f"data.sets: {entry}")
    if "/" in entry:
        return None
    files = ", ".join(DATA_FILES)
    raise DataError(f"data.sets: {entry} is neither in {registry} nor a folder, a file ending in {files} or a hub id such as org/name.")


def existing(path: Path, what: str) -> Path:
    if not path.exists():
        raise DataError(f"{what}: {path} does not exist. Set data.folder to the folder that holds it, or mend the name.")
    return path


def count_records(path: Path) -> int | None:
    """None: unknown before a library reads the file, or the files of a folder."""
    if path.is_dir():
        return None
    if path.suffix == ".jsonl":
        with path.open("rb") as file:
            return sum(1 for line in file if line.strip())
    if path.suffix == ".json" and path.stat().st_size <= LARGEST_LIST:
        try:
            records = json.loads(path.read_text(encoding="utf-8-sig"))
        except (json.JSONDecodeError, UnicodeDecodeError):
            return None  # JSON lines under another name, or broken: the reader of the data tells which line
        return len(records) if isinstance(records, list) else None
    return None
