"""Tokenised data in a folder named by everything that it was made of: used only if all of that is the same, made whole or not at all."""

import hashlib
import json
import os
import shutil
import socket
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import tokenizers
import transformers
from transformers import PreTrainedTokenizerBase

from conf.schema import Run
from conf.stages import stage_row
from trainers.data.sources.contents import contents_of_sets
from trainers.ranks.causes import is_full_disk

FORMAT = 4  # of what the folder holds and of how it is made: raise it with every change of either
DEFAULT = ".data"  # under run.output
MANIFEST = "manifest.json"
MAKING = ".making"
ROOT = 0  # who could change this process itself
# What does not change a token: names, and who does the work where. Sets are identified by their contents, not by their path.
INDIFFERENT = ("name", "folder", "registry", "workers", "cache", "buffer")


def cache_folder(run: Run) -> Path:
    return Path(run.data.cache) if run.data.cache is not None else Path(run.output, DEFAULT)


def cached(run: Run, tokenizer: PreTrainedTokenizerBase, make: Callable[[Path], None]) -> Path:
    """The whole folder of this run's tokenised data: the one that is there, or the one that `make` fills.

    Processes that make it at once do no harm: each makes its own aside, and the first that is done gives the name away.

    Raises:
        DataError, ValueError: as `make`.
        OSError: when the cache cannot be written.
    """
    parent = cache_folder(run)
    folder = own_entry(parent / cache_key(run, tokenizer))
    if not is_whole(folder):
        making = new_folder(parent)
        try:
            make(making)
            seal(making)
            publish(making, folder)
        finally:
            shutil.rmtree(making, ignore_errors=True)
    return folder


def own_entry(folder: Path) -> Path:
    """The folder itself, or one beside it where another user made it: data of others decides what a model learns."""
    if not folder.exists() or folder.stat().st_uid in (os.geteuid(), ROOT):
        return folder
    print(f"note: {folder} belongs to another user and is not used. The data is tokenised again.", flush=True)
    return folder.with_name(f"{folder.name}-{os.geteuid()}")


def new_folder(parent: Path) -> Path:
    making = parent / f"{MAKING}-{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    with naming_the_cache(parent):
        parent.mkdir(parents=True, exist_ok=True)
        clear_leftovers(parent)
        making.mkdir()
    return making


@contextmanager
def naming_the_cache(folder: Path) -> Iterator[None]:
    """Raises ValueError where the folder cannot be written, unless the disk is full."""
    try:
        yield
    except OSError as error:
        if is_full_disk(error):
            raise
        raise ValueError(f"data.cache={folder} cannot be written: {error.strerror}. Set it to a folder that you can write to.") from error


def cache_key(run: Run, tokenizer: PreTrainedTokenizerBase) -> str:
    """The name of the folder: equal for equal data, tokenizer, template, settings and versions."""
    settings = {key: value for key, value in asdict(run.data).items() if key not in INDIFFERENT}
    ingredients = {
        "format": FORMAT,
        "versions": [tokenizers.__version__, transformers.__version__],
        "kind": stage_row(run.stage.name).reads,
        "settings": settings,
        "seed": run.training.seed,  # of the held-out share and of the mixture
        "contents": contents_of_sets(run.data),
        "tokenizer": tokenizer_identity(tokenizer),
    }
    return hashlib.sha256(json.dumps(ingredients, sort_keys=True).encode()).hexdigest()[:32]


def tokenizer_identity(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Everything of a tokenizer that turns text to ids, its chat template included."""
    backend = tokenizer.backend_tokenizer.to_str()  # type: ignore[attr-defined]
    return [hashlib.sha256(backend.encode()).hexdigest(), json.dumps(tokenizer.special_tokens_map, sort_keys=True), str(tokenizer.chat_template)]


def sizes(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_size for path in sorted(folder.rglob("*")) if path.is_file() and path.name != MANIFEST}


def seal(folder: Path) -> None:
    """Write the manifest last, when everything that it lists is on the disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            flush(path)
    (folder / MANIFEST).write_text(json.dumps(sizes(folder)), encoding="utf-8")
    flush(folder / MANIFEST)


def flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def is_whole(folder: Path) -> bool:
    """Whether every file of the manifest is there at its full size: one that was cut or lost makes the folder useless."""
    try:
        listed = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return False
    return bool(listed == sizes(folder))


def publish(making: Path, folder: Path) -> None:
    """Give a sealed folder its name, in the place of a torn one; a whole one of another process stays."""
    if folder.exists() and not is_whole(folder):
        torn = folder.with_name(f"{MAKING}-torn-{uuid.uuid4().hex[:8]}")
        os.rename(folder, torn)
        shutil.rmtree(torn)
    try:
        os.rename(making, folder)
    except OSError:
        if not is_whole(folder):  # neither ours nor another's is there: the disk refused
            raise


def clear_leftovers(parent: Path) -> None:
    """Remove what processes of this machine left that were killed while they made data."""
    for path in leftovers(parent.glob(f"{MAKING}-{socket.gethostname()}-*")):
        shutil.rmtree(path, ignore_errors=True)


def leftovers(paths: Iterable[Path]) -> list[Path]:
    return [path for path in paths if not Path("/proc", path.name.split("-")[-2]).exists()]
