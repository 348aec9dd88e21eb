"""The data of a run as its files show them: which files there are, and how many samples they hold."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from conf import data_registry, hub
from conf.constants import GENERATED_SAMPLES
from conf.data_kinds import refuse_other_kind
from conf.data_registry import Source
from conf.data_sets import ending_of, evaluation_sources, is_compressed, limit_of, parts_of, refuse_empty_share, sources_of
from conf.schema import Data, Run
from conf.stages import stage_row
from launcher.errors import ConfigError, DataError
from launcher.facts.records import layout_of_part, opened

LINES = (".jsonl", ".txt")  # endings of files with a record on each line
LARGEST_LIST = 256 * 2**20  # bytes of a .json file that is read whole to count its list; parsing needs seconds, and several times its size in memory


def trained_samples(run: Run) -> int | None:
    """None where it is not the sum of the sets: mixed sets repeat or end early, a stream is not counted, texts are cut into rows.

    Raises:
        ConfigError, DataError: as refuse_absent_sets.
    """
    data = run.data
    refuse_absent_sets(data)
    if data.streaming or data.mixing != "concatenate":
        return None
    samples = count_samples(data, run.stage.name)  # for texts too: it reports a list without records
    if samples is not None and stage_row(run.stage.name).reads != "text":
        with as_launcher_errors():
            refuse_empty_share(samples, data.validation_share)
    return None if samples is None or stage_row(run.stage.name).reads == "text" else samples - round(samples * data.validation_share)


def held_out_samples(run: Run) -> int | None:
    """Samples that the run is evaluated on; None where no file says so: a hub set, or a format that only a library reads.

    Raises:
        ConfigError, DataError: as refuse_absent_sets.
    """
    data = run.data
    if not data.evaluation_sets:
        samples = None if data.streaming else count_samples(data, run.stage.name)
        return None if samples is None else round(samples * data.validation_share)
    with as_launcher_errors():
        counts = [count_set(source, data, run.stage.name) for source in evaluation_sources(data)]
    return None if any(count is None for count in counts) else sum(count for count in counts if count is not None)


def refuse_absent_sets(data: Data) -> None:
    """Refuse sets, to train and to evaluate on, that are not there or hold nothing; of each file no more than its beginning is read.

    Raises:
        ConfigError: where no set is named.
        DataError: for a set that cannot be found or holds nothing.
    """
    with as_launcher_errors():
        for source in [*sources_of(data.sets, data), *evaluation_sources(data)]:
            for part in parts_of(source):
                if part.file is not None and ending_of(part.file) in LINES and not is_compressed(part.file) and first_line(part.file) == b"":
                    raise no_records(part.file)


def has_sets_of_hub(data: Data) -> bool:
    """Whether a set to train or to evaluate on is one of the hub.

    Raises:
        ConfigError, DataError: as refuse_absent_sets.
    """
    with as_launcher_errors():
        return hub.has_sets_of_hub(data)


def refuse_unfit_sets(run: Run) -> None:
    """Refuse sets of which the stage can make nothing, as their first records show: what is read later may still be refused by the ranks.

    Raises:
        ConfigError: where no set is named.
        DataError: naming the file and its columns, or what the set holds and the stages that it suits.
    """
    data, wanted = run.data, stage_row(run.stage.name).reads
    with as_launcher_errors():
        for key, sources in (("data.sets", sources_of(data.sets, data)), ("data.evaluation_sets", evaluation_sources(data))):
            for source in sources:
                whole = limit_of(source, data.max_samples) is None
                for part in parts_of(source)[: None if whole else 1]:  # the others may lie beyond the limit
                    layout = layout_of_part(part, strict=data.on_bad == "fail")
                    if layout is not None:
                        refuse_other_kind(f"{key}: {source.name}", layout.holds, wanted, run.stage.name)


def no_records(file: Path) -> data_registry.DataError:
    return data_registry.DataError(f"{file} holds no records. Give a file with at least one.")


def count_samples(data: Data, stage: str) -> int | None:
    """Samples of all sets, where local files show it; None for hub sets and formats whose count needs a full read by a library.

    Raises:
        ConfigError: where no set is named.
        DataError: for a set that cannot be found or holds nothing.
    """
    with as_launcher_errors():
        counts = [count_set(source, data, stage) for source in sources_of(data.sets, data)]
    return None if any(count is None for count in counts) else sum(count for count in counts if count is not None)


@contextmanager
def as_launcher_errors() -> Iterator[None]:
    """What is wrong with the sets, as the errors that the command line ends with."""
    try:
        yield
    except data_registry.DataError as error:
        raise DataError(str(error)) from error
    except ValueError as error:
        raise ConfigError(str(error)) from error


def count_set(source: Source, data: Data, stage: str) -> int | None:
    """Samples that the set's first records give, up to its limit."""
    limit = limit_of(source, data.max_samples)
    samples, left = 0, sys.maxsize if limit is None else limit
    counts = [(part, count_records(part)) for part in parts_of(source)]
    for part, records in counts:
        if records is None:
            return None
        samples += min(records, left) * samples_of_a_record(part, stage)
        left -= min(records, left)
    return samples


def count_records(part: Source) -> int | None:
    """None: unknown before a library reads the file.

    Raises:
        DataError: for a file that is not there, is not read or holds no records.
    """
    if part.hub_id is not None:
        return None
    if part.file is None:
        return GENERATED_SAMPLES
    ending = ending_of(part.file)
    if is_compressed(part.file):
        return None
    count = {".jsonl": count_lines, ".json": count_list}.get(ending, uncounted)(part.file)
    if count == 0:
        raise no_records(part.file)
    return count


def count_lines(path: Path) -> int:
    with opened(path) as file:
        return sum(1 for line in file if line.strip())


def count_list(path: Path) -> int | None:
    if path.stat().st_size > LARGEST_LIST:
        return None
    records = read_json(path.read_bytes())
    return len(records) if isinstance(records, list) else None  # JSON lines under another name, or broken: the reader of the data reports which line


def uncounted(path: Path) -> None:
    """Only a library reads this format."""


def samples_of_a_record(part: Source, stage: str) -> int:
    """A stage that reads labelled answers takes a pair as a good and a bad one."""
    return 2 if stage_row(stage).reads == "labelled" and holds_pairs(part) else 1


def holds_pairs(part: Source) -> bool:
    layout = layout_of_part(part, strict=False)
    return layout is not None and layout.holds == "pairs"  # the generated set gives each stage what it reads


def first_line(path: Path) -> bytes:
    """The first line that is not blank; empty where there is none."""
    with path.open("rb") as file:
        return next((line for line in file if line.strip()), b"")


def read_json(text: bytes) -> object:
    try:
        return json.loads(text.decode("utf-8-sig"))
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError):
        return None
