"""Which tokenised samples are trained on, in which order, and which are held out."""

import random
from collections import Counter
from dataclasses import dataclass

import numpy
import pyarrow.compute
from datasets import Dataset

from conf.data_sets import refuse_empty_share
from conf.schema import Data
from trainers.data.prepare.mixing import mixed_order
from trainers.data.rows.drops import EQUAL, TOO_LONG, UNWANTED, is_empty
from trainers.errors import DataError


@dataclass(frozen=True)
class Selected:
    """Positions among the tokenised samples."""

    train: numpy.ndarray
    evaluation: numpy.ndarray


def select(rows: Dataset, data: Data, seed: int) -> Selected:
    """The samples to train on, mixed, and those held out; the same for the same seed.

    Raises:
        DataError: when too many would be dropped, or a side of the split stays empty.
    """
    places = learnable(rows, data)
    train, evaluation = split(len(places), data, seed)
    trained = places[train]
    return Selected(trained[mixed_order(rows.with_format("numpy")["set"][:][trained], data, seed)], places[evaluation])


def learnable(rows: Dataset, data: Data) -> numpy.ndarray:
    """Positions of the samples from which something is learned.

    Raises:
        DataError: when more than half would be dropped, which no one wants unnoticed, or all for the reasons that data.bad_share permits.
    """
    reasons = drop_reasons(rows)
    useless = reasons.total() - reasons[TOO_LONG]  # data.on_long has a limit of its own
    if useless * 2 > len(rows):
        raise DataError(mostly_dropped(reasons, useless, rows, data.cutoff))
    places = numpy.flatnonzero(kept(rows))
    if not len(places):
        raise DataError("data.sets: every row is unusable or longer than data.cutoff, so none is left. Fix the data, or raise data.cutoff.")
    return places


def kept(rows: Dataset) -> numpy.ndarray:
    """For each sample whether it is learned from."""
    mask: numpy.ndarray = pyarrow.compute.equal(rows.data.column("drop"), "").to_numpy()
    return mask


def drop_reasons(rows: Dataset) -> Counter[str]:
    counted = pyarrow.compute.value_counts(rows.data.column("drop")).to_pylist()
    return Counter({entry["values"]: entry["counts"] for entry in counted if entry["values"]})


def mostly_dropped(reasons: Counter[str], useless: int, rows: Dataset, cutoff: int) -> str:
    told = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
    if sum(count for reason, count in reasons.items() if is_empty(reason) or reason in (EQUAL, UNWANTED)) * 2 > useless:
        return f"data.sets: {useless} of {len(rows)} samples cannot be used ({told}). Fix the data, or the columns in the registry."
    lengths = numpy.sort(rows.with_format("numpy")["length"][:])
    return (
        f"data.cutoff={cutoff} leaves nothing to learn in {useless} of {len(rows)} samples ({told}). Samples have {lengths[0]} to "
        f"{lengths[-1]} tokens, the middle one {lengths[len(lengths) // 2]}. Set data.cutoff={lengths[-1]} to keep everything."
    )


def split(samples: int, data: Data, seed: int) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Training and evaluation samples, both in their order; the same for the same seed."""
    refuse_empty_share(samples, data.validation_share)
    count = round(samples * data.validation_share)
    held_out = numpy.sort(numpy.array(random.Random(seed).sample(range(samples), count), dtype=int))
    return numpy.delete(numpy.arange(samples), held_out), held_out
