"""The records of a hub data set."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from trainers.data.sources.arrow import without_nulls
from trainers.data.sources.rows import Row
from trainers.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset


def rows_of_hub(loaded: "Dataset") -> Iterator[Row]:
    return enumerate(map(without_nulls, loaded), start=1)


def load_hub(hub_id: str, subset: str | None, split: str, folder: str | None) -> "Dataset":
    """One split of a hub data set, mapped from disk; loading it may download it.

    Raises:
        DataError: when it cannot be loaded.
    """
    from datasets import load_dataset

    try:
        return load_dataset(hub_id, name=subset, split=split, data_dir=folder)
    except (
        OSError,
        ValueError,
    ) as error:  # datasets: ConnectionError, DatasetNotFoundError (both OSError), BuilderConfig and split names (ValueError)
        cause = next(iter(str(error).splitlines()), type(error).__name__)
        raise DataError(
            f"The hub data set {hub_id} (split {split}) cannot be loaded: {cause}. Check its name, or download it and name the file."
        ) from error
