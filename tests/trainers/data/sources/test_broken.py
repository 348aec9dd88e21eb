"""More than a thousand broken records, files and registry entries: always a message that names them, never a traceback or a silent loss."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as draw
from transformers import PreTrainedTokenizerBase

from conf.data_sets import sources_of
from conf.schema import Run
from conf.stages import stage_row
from tests.described import composed
from trainers.data.prepare.problems import refuse_problems
from trainers.data.prepare.tokenising import Tokenised, Work, tokenise_chunks
from trainers.data.sources.chunks import chunks_of
from trainers.errors import DataError
from trainers.model.tokenizer import byte_tokenizer

EXAMPLES = 60  # of each layout and file format: with 11 layouts, 5 formats and 400 registry entries 1,360 in all
REPEATABLE = settings(
    max_examples=EXAMPLES, derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)
STAGES = {"text": "pt", "answers": "sft", "pairs": "dpo", "labelled": "kto", "prompts": "grpo"}
TURNS = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
CHAT = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
REPLY = [{"role": "assistant", "content": "b"}]
# (kind of rows, a record that gives one of them), for every layout
VALID: dict[str, tuple[str, dict[str, Any]]] = {
    "alpaca": ("answers", {"instruction": "q", "input": "i", "output": "a", "system": "s", "history": [["x", "y"]]}),
    "sharegpt": ("answers", {"conversations": TURNS, "system": "s"}),
    "openai": ("answers", {"messages": CHAT}),
    "trl answers": ("answers", {"prompt": "q", "completion": "a"}),
    "text": ("text", {"text": "words"}),
    "alpaca pairs": ("pairs", {"instruction": "q", "chosen": "a", "rejected": "b"}),
    "sharegpt pairs": ("pairs", {"conversations": TURNS[:1], "chosen": TURNS[1], "rejected": {"from": "gpt", "value": "b"}}),
    "trl pairs": ("pairs", {"prompt": CHAT[:1], "chosen": CHAT[1:], "rejected": REPLY}),
    "alpaca labelled": ("labelled", {"instruction": "q", "output": "a", "kto_tag": True}),
    "trl labelled": ("labelled", {"prompt": "q", "completion": "a", "label": False}),
    "prompts": ("prompts", {"prompt": "q"}),
}

scalars = draw.none() | draw.booleans() | draw.integers() | draw.floats(allow_nan=False) | draw.text(max_size=8)
values = draw.recursive(
    scalars, lambda inner: draw.lists(inner, max_size=3) | draw.dictionaries(draw.text(max_size=6), inner, max_size=3), max_leaves=6
)


@draw.composite
def broken_lines(choose: draw.DrawFn, record: dict[str, Any]) -> bytes:
    """A record with a value replaced, a column lost, something deep within changed, or bytes of its line damaged."""
    damaged = json.loads(json.dumps(record))
    how = choose(draw.sampled_from(["value", "column", "inside", "whole", "bytes", "cut"]))
    column = choose(draw.sampled_from(sorted(damaged)))
    if how == "value":
        damaged[column] = choose(values)
    elif how == "column":
        del damaged[column]
    elif how == "inside" and isinstance(damaged[column], list):
        damaged[column].append(choose(values))
    elif how == "whole":
        damaged = choose(values)
    line = json.dumps(damaged).encode()
    if how == "bytes":
        return line[:3] + choose(draw.binary(min_size=1, max_size=4)).replace(b"\n", b"") + line[3:]
    return line[: choose(draw.integers(1, len(line)))] if how == "cut" else line


@cache
def tokenizer() -> PreTrainedTokenizerBase:
    return byte_tokenizer()


@cache
def described(kind: str) -> Run:
    return composed("model=demo", "data=files", f"stage={STAGES[kind]}", "data.sets=[a.jsonl]", "data.workers=1", "data.cutoff=256")


class Uncounted:
    def add(self, records: int, tokens: int) -> None: ...


def tokenised(folder: Path, kind: str, lines: list[bytes]) -> Tokenised:
    (folder / "a.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    data = described(kind).data
    data.folder = str(folder)
    wanted = stage_row(described(kind).stage.name).reads
    work = Work(tokenizer(), data, wanted)
    return tokenise_chunks(chunks_of(sources_of(data.sets, data), None, wanted), 1, work, folder / "rows.arrow", Uncounted())


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp())
    yield made
    shutil.rmtree(made)


@pytest.mark.parametrize("layout", VALID)
def test_a_broken_record_is_named_with_its_line_and_its_neighbours_are_kept(layout: str, folder: Path) -> None:
    kind, record = VALID[layout]
    good = json.dumps(record).encode()

    @REPEATABLE
    @given(broken_lines(record))
    def holds(line: bytes) -> None:
        lines = [good, line, good]
        result = tokenised(folder, kind, lines)
        read = 3 if line.strip() else 2
        named = {problem.number for problem in result.problems}
        assert result.read == [read]
        assert named <= {2}
        assert len(result.rows) + len(result.problems) == read  # each of these kinds gives one row a record
        for problem in result.problems:
            assert str(problem).startswith(f"{folder}/a.jsonl, line 2")
            with pytest.raises(DataError, match="line 2"):
                refuse_problems(result.problems, read, described(kind).data)

    holds()


@pytest.mark.parametrize("layout", VALID)
def test_valid_records_of_every_layout_pass(layout: str, folder: Path) -> None:
    kind, record = VALID[layout]
    result = tokenised(folder, kind, [json.dumps(record).encode()] * 3)
    assert (result.read, result.problems, len(result.rows)) == ([3], [], 3)


ENTRY = {"file_name": "b.jsonl", "formatting": "sharegpt", "columns": {"messages": "conversations"}, "tags": {"role_tag": "from"}, "num_samples": 1}


@draw.composite
def broken_entries(choose: draw.DrawFn) -> object:
    how = choose(draw.sampled_from(["value", "key", "columns", "tags", "whole"]))
    entry: Any = json.loads(json.dumps(ENTRY))
    if how == "whole":
        return choose(values)
    if how in ("columns", "tags"):
        entry[how][choose(draw.sampled_from(sorted(entry[how])) | draw.text(max_size=6))] = choose(values)
    elif how == "key":
        entry[choose(draw.text(max_size=8))] = choose(values)
    else:
        entry[choose(draw.sampled_from(sorted(entry)))] = choose(values)
    return entry


@settings(REPEATABLE, max_examples=400)
@given(broken_entries())
def test_a_broken_registry_entry_ends_in_a_message_or_reads_what_it_names(entry: object) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "b.jsonl").write_text(json.dumps({"conversations": TURNS}) + "\n")
        (folder / "dataset_info.json").write_text(json.dumps({"mine": entry}))
        data = described("answers").data
        data.folder, data.sets = name, ["mine"]
        message = ""
        try:
            assert sum(len(chunk.records) for chunk in chunks_of(sources_of(data.sets, data), None, "answers")) == 1
        except DataError as error:
            message = str(error)
        finally:
            data.sets = ["a.jsonl"]
        assert not message or "mine" in message or name in message  # the entry, or the file that it names


def whole_file(path: Path, rows: list[dict[str, str]]) -> bytes:
    """The same rows in the format of the ending."""
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif path.suffix == ".csv":
        path.write_text("instruction,output\n" + "".join(f"{row['instruction']},{row['output']}\n" for row in rows))
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".txt":
        path.write_text("".join(f"{row['output']}\n" for row in rows))
    else:
        path.write_text(json.dumps(rows))
    return path.read_bytes()


@pytest.mark.parametrize("ending", [".json", ".jsonl", ".csv", ".parquet", ".txt"])
def test_a_file_with_damaged_bytes_is_named_or_gives_every_row_that_it_holds(ending: str, folder: Path) -> None:
    path = folder / f"c{ending}"
    whole = whole_file(path, [{"instruction": f"q{number}", "output": f"answer {number}"} for number in range(5)])
    kind = "text" if ending == ".txt" else "answers"

    @REPEATABLE
    @given(draw.integers(0, len(whole) - 1), draw.integers(0, 12), draw.binary(max_size=6))
    def holds(begin: int, removed: int, added: bytes) -> None:
        path.write_bytes(whole[:begin] + added + whole[begin + removed :])
        data = described(kind).data
        data.folder, data.sets = str(folder), [path.name]
        wanted = stage_row(described(kind).stage.name).reads
        message = path.name
        try:
            chunks = chunks_of(sources_of(data.sets, data), None, wanted)
            result = tokenise_chunks(chunks, 1, Work(tokenizer(), data, wanted), folder / "rows.arrow", Uncounted())
            assert len(result.rows) + len(result.problems) == sum(result.read)
            assert all(problem.origin == str(path) for problem in result.problems)
        except DataError as error:
            message = str(error)
        finally:
            data.sets = ["a.jsonl"]
        assert path.name in message

    holds()
