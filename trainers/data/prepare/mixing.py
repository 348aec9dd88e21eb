"""In which order samples of several sets are trained on, in the same way as datasets.interleave_datasets (LLaMA-Factory's mix_strategy)."""

from collections.abc import Sequence

import numpy
from datasets import Dataset, interleave_datasets

from conf.schema import Data

STOPPING = {"interleave_under": "first_exhausted", "interleave_over": "all_exhausted"}


def mixed_order(sets: Sequence[int], data: Data, seed: int) -> numpy.ndarray:
    """Positions of samples in the order of training; `sets` holds each sample's set.

    Interleaving under ends with the first set that is used up, over with the last, when the others have begun again.
    Sets of which nothing is left are passed over, and the probabilities of the others grow in proportion.
    """
    numbers = numpy.asarray(sets)
    present = numpy.unique(numbers)
    if data.mixing == "concatenate" or len(present) < 2:
        return numpy.arange(len(numbers))
    chosen = None if data.probabilities is None else numpy.asarray(data.probabilities)[present]
    mixed = interleave_datasets(
        [Dataset.from_dict({"position": numpy.flatnonzero(numbers == number)}) for number in present],
        probabilities=None if chosen is None else (chosen / chosen.sum()).tolist(),
        seed=seed,
        stopping_strategy=STOPPING[data.mixing],  # type: ignore[arg-type]
    )
    return mixed.with_format("numpy")["position"][:]
