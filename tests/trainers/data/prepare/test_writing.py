"""Samples gathered from the batches of a file, and the rows that are written of them."""

from dataclasses import replace
from pathlib import Path

import numpy
import pyarrow
from datasets import Dataset, Features

from launcher.composition.compose import compose
from trainers.data.prepare.writing import Samples, write_rows
from trainers.data.rows.row_kinds import IDS
from trainers.data.rows.tokens import MASKED


def batch(*numbers: int) -> pyarrow.RecordBatch:
    return pyarrow.RecordBatch.from_pydict({"number": list(numbers), "word": [str(number) for number in numbers]}, schema=SCHEMA)


SCHEMA = pyarrow.schema([("number", pyarrow.int32()), ("word", pyarrow.string())])


def test_samples_come_in_the_order_asked_for_from_every_batch_and_as_often_as_asked_for():
    samples = Samples([batch(0, 1), batch(), batch(2), batch(3, 4)], numpy.array([2, 2, 3, 5]))
    wanted = numpy.array([4, 0, 2, 0, 3])
    assert samples.at(wanted).to_pydict() == {"number": [4, 0, 2, 0, 3], "word": ["4", "0", "2", "0", "3"]}


def test_packed_rows_hold_their_samples_one_after_the_other_with_positions_that_restart(tmp_path: Path):
    ids = [[1, 2], [3, 4, 5], [6]]
    columns = {"input_ids": ids, "labels": [[MASKED, *each[1:]] for each in ids], "tokens": [2, 3, 1]}
    schema = Features({"input_ids": IDS, "labels": IDS}).arrow_schema.append(pyarrow.field("tokens", pyarrow.int32()))
    with pyarrow.OSFile(str(tmp_path / "samples.arrow"), "wb") as sink, pyarrow.ipc.new_stream(sink, schema.remove_metadata()) as writer:
        writer.write_table(pyarrow.table(columns, schema=schema.remove_metadata()), max_chunksize=2)  # of the three samples, two in a batch
    data = replace(compose(["model=demo", "data=demo"]).data, packing=True, cutoff=4)
    rows = write_rows(Dataset.from_file(str(tmp_path / "samples.arrow")), numpy.array([0, 1, 2]), data, "answers", tmp_path / "rows.arrow")
    # The longest first: 3 tokens, which leave room for 1; then 2.
    assert rows.to_dict() == {
        "input_ids": [[3, 4, 5, 6], [1, 2]],
        "labels": [[MASKED, 4, 5, MASKED], [MASKED, 2]],
        "position_ids": [[0, 1, 2, 0], [0, 1]],
    }
