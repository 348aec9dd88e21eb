"""States of a checkpoint are loaded without running code.

torch.save writes pickles, and a pickle may name any function, which is called while it is loaded. torch's `weights_only` calls only what a list
allows. DeepSpeed and torch's distributed checkpoints ask torch to do without it; torch's own variable overrules that for the whole process, and what
the libraries' states hold beside tensors is allowed here by name. The index of a distributed checkpoint is a bare pickle that torch loads without a
list: it is read here first, with a list of its own.
"""

import os
import pickle
import re
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import IO, Any

from trainers.errors import UnsafeFile
from trainers.ranks.libraries import import_after_all

# What torch does not know and the states of the libraries hold, seen in the files that they write.
ALLOWED = (
    "deepspeed.runtime.fp16.loss_scaler.LossScaler",  # zero_pp_rank_*: an object with two numbers
    "deepspeed.runtime.fp16.loss_scaler.DynamicLossScaler",
    "deepspeed.runtime.zero.config.ZeroStageEnum",
    "deepspeed.utils.tensor_fragment.fragment_address",  # where a parameter lies in the flat ones: two numbers
    "numpy._core.multiarray._reconstruct",  # rng_state*.pth: the state of numpy's generator
    "numpy.core.multiarray._reconstruct",
    "numpy.ndarray",
    "numpy.dtype",
    "numpy.dtypes.UInt32DType",
    "_codecs.encode",
)
INDEX, SHARDS = (
    ".metadata",
    ".distcp",
)  # of torch.distributed.checkpoint: where each tensor lies, and files of what torch.save wrote, one after the other
ALLOWED_IN_INDEX = (
    *(f"torch.distributed.checkpoint.metadata.{name}" for name in ("Metadata", "MetadataIndex", "StorageMeta")),
    *(f"torch.distributed.checkpoint.metadata.{name}" for name in ("BytesStorageMetadata", "ChunkStorageMetadata")),
    *(f"torch.distributed.checkpoint.metadata.{name}" for name in ("TensorStorageMetadata", "TensorProperties")),
    "torch.distributed.checkpoint.metadata._MEM_FORMAT_ENCODING",
    "torch.distributed.checkpoint.filesystem._StorageInfo",
    "torch.serialization._get_layout",
    "torch.Size",
    *(f"torch.{name}" for name in ("float32", "float16", "bfloat16", "float64", "int64", "int32", "int16", "int8", "uint8", "bool")),
    "pathlib.PosixPath",  # where the checkpoint was made
    "pathlib._local.PosixPath",  # the same in Python 3.13
)
NEVER_LOADED = ("training_args.bin",)  # an older version left it; run.yaml says it all
ZIP = b"PK\x03\x04"  # how a file of torch.save begins
PICKLE = re.compile(rb"\x80[\x00-\x7f]")  # how a bare pickle begins, from protocol 2 on
NO_PICKLES = ".safetensors"  # whose first bytes are a length, which may look like the beginning of a pickle
SUFFIXES = (".bin", ".ckpt", ".metadata", ".pickle", ".pkl", ".pt", ".pth")  # of files that libraries load as pickles, however they begin
FORCED, UNSAFE = "TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"


def load_only_weights() -> None:
    """From now on no torch.load of this process and of its children calls what is not allowed, whatever its caller says."""
    if os.environ.pop(UNSAFE, None) is not None:
        print(f"{UNSAFE} is set in the environment and is not followed: states are loaded without running code.", flush=True)
    os.environ[FORCED] = "1"


def admit(folder: Path) -> None:
    """Allow what the states below a checkpoint need, where it is known.

    Raises:
        UnsafeFile: naming the file and what it would call.
    """
    import torch

    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.name in NEVER_LOADED or path.suffix == NO_PICKLES:
            continue
        if path.name == INDEX:
            read_index(path)
            continue
        for name in unsafe_globals(path):
            if name not in ALLOWED:
                raise UnsafeFile(refusal(path, f"names {name}, which no state of a checkpoint needs", folder))
            torch.serialization.add_safe_globals([(found(name), name)])


class ListedAlone(pickle.Unpickler):
    """Finds what an index may name, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" not in ALLOWED_IN_INDEX:
            raise Unlisted(f"{module}.{name}")
        return super().find_class(module, name)


class Unlisted(Exception):
    """A name that no index needs."""


def read_index(path: Path) -> Any:
    """What torch's FileSystemReader.read_metadata returns, without running code.

    Raises:
        UnsafeFile: naming the file and what it would call.
    """
    try:
        with path.open("rb") as file:
            index = ListedAlone(file).load()
        index.state_dict_metadata, index.storage_data  # noqa: B018 - of anything else it is an AttributeError
    except Unlisted as error:
        raise UnsafeFile(refusal(path, f"names {error}, which no state of a checkpoint needs", path.parents[1])) from error
    except (pickle.UnpicklingError, EOFError, ValueError, IndexError, KeyError, AttributeError, ImportError, TypeError, UnicodeDecodeError) as error:
        said = next(iter(str(error).splitlines()), type(error).__name__)
        raise UnsafeFile(refusal(path, f"is not an index that torch writes ({said})", path.parents[1])) from error
    return index


def unsafe_globals(path: Path) -> list[str]:
    """What a file names beyond tensors and plain values, without loading it; nothing for a file that is not a pickle.

    Raises:
        UnsafeFile: for a pickle that torch.save did not write, or whose names cannot be listed.
    """
    with path.open("rb") as file:
        start = file.read(len(ZIP))
    if start != ZIP:
        if PICKLE.match(start) or path.name.endswith(SUFFIXES):
            raise UnsafeFile(refusal(path, "is not a file that torch.save writes", path.parent))
        return []
    try:
        if path.suffix == SHARDS and (path.parent / INDEX).is_file():
            return sorted(name for piece in pieces(path) for name in names_in(piece))
        return names_in(path.open("rb"))
    except (ValueError, RuntimeError, EOFError, AssertionError, UnicodeDecodeError, pickle.UnpicklingError) as error:
        said = next(iter(str(error).splitlines()), type(error).__name__)
        raise UnsafeFile(refusal(path, f"holds a pickle whose names cannot be listed ({said})", path.parent)) from error


def names_in(file: IO[bytes]) -> list[str]:
    from torch.serialization import get_unsafe_globals_in_checkpoint

    with file:
        return sorted(get_unsafe_globals_in_checkpoint(file))


def pieces(path: Path) -> Iterator[IO[bytes]]:
    """What a file of shards holds beside tensors, which torch loads by its list whatever is asked of it."""
    index = read_index(path.parent / INDEX)
    tensors = {name for name, described in index.state_dict_metadata.items() if hasattr(described, "chunks")}
    places = [place for which, place in index.storage_data.items() if place.relative_path == path.name and which.fqn not in tensors]
    with path.open("rb") as file:
        for place in places:
            file.seek(place.offset)
            yield BytesIO(file.read(place.length))


def found(name: str) -> object:
    module, _, attribute = name.rpartition(".")
    return getattr(import_after_all(module), attribute)


def refusal(path: Path, what: str, checkpoint: Path) -> str:
    return (
        f"{path} {what}. Loading it could run code, so it is not loaded. If you do not know who changed it, trust nothing in that run folder. "
        f"To go on from an older checkpoint, move {checkpoint} away."
    )
