"""What the files of a tokenizer show without being loaded: whether it is there, its chat template, its vocabulary."""

import os
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from conf.constants import BYTE_TOKENIZER, BYTE_TOKENS
from conf.hub import is_folder, out_of_reach
from conf.schema import Model
from launcher.errors import ConfigError
from launcher.facts.model.architecture import json_object

CONFIG, WHOLE = "tokenizer_config.json", "tokenizer.json"
TEMPLATE, FURTHER_TEMPLATES = "chat_template.jinja", "additional_chat_templates"
HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")  # names without an owner are older than the hub
VOCABULARIES = ("tokenizer.json", "*.model", "vocab*", "*.tiktoken", "tekken.json", "*-tokenizer.json")  # of transformers' tokenizer classes


def tokenizer_folder(model: Model, elsewhere: bool) -> Path | None:
    """Where the files of a run's tokenizer are; None for the built-in one, and for one that is not on this machine.

    Args:
        elsewhere: whether the run may be for another machine, which has other folders.

    Raises:
        ConfigError: where no tokenizer is named, or its folder is not there or holds none.
    """
    if model.tokenizer == BYTE_TOKENIZER:
        return None
    key, source = named_source(model)
    if not is_folder(source):
        if HUB_ID.fullmatch(source) is None:
            raise ConfigError(f"{key}={source} is neither a folder nor a hub id (org/name). Give the folder that holds {WHOLE}.")
        return cached_folder(source, model.revision if source == model.path else None)
    folder = Path(source).expanduser()
    if not folder.is_dir():
        if elsewhere:
            return None
        raise ConfigError(f"{key}={source} is not a folder. Give the folder that holds {WHOLE}, or a hub id (org/name).")
    if not holds_vocabulary(folder):
        raise ConfigError(
            f"{key}={source}: the folder holds no tokenizer. Copy its files there ({WHOLE}, {CONFIG}), or set model.tokenizer to a folder or hub id "
            "that has one."
        )
    return folder


def refuse_absent_tokenizer(model: Model) -> None:
    """Of a run that starts on this machine: its ranks would find that out after a minute.

    Raises:
        ConfigError: where the tokenizer is on the hub alone, and the hub cannot be reached.
    """
    if model.tokenizer == BYTE_TOKENIZER or tokenizer_folder(model, elsewhere=False) is not None:
        return
    why = out_of_reach()
    if why is not None:
        key, source = named_source(model)
        raise ConfigError(
            f"{key}={source} is not on this machine, and the hub cannot be reached ({why}). Check the network, or download the model elsewhere, copy "
            "its folder here, and set model=local model.path=FOLDER."
        )


def named_source(model: Model) -> tuple[str, str]:
    """(key, folder or hub id) of the tokenizer."""
    if model.tokenizer is not None:
        return "model.tokenizer", model.tokenizer
    if model.path is None:
        raise ConfigError("model.tokenizer and model.path are both null. Set model.tokenizer to a folder, a hub id, or bytes (the built-in one).")
    return "model.path", model.path


def holds_vocabulary(folder: Path) -> bool:
    return any(path.is_file() for pattern in VOCABULARIES for path in folder.glob(pattern))


def cached_folder(name: str, revision: str | None) -> Path | None:
    """The hub's files on this machine, where its tokenizer has been loaded before."""
    if not (hub_cache() / f"models--{name.replace('/', '--')}").is_dir():
        return None  # most plans end here, and need not import the hub's library
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name, WHOLE, revision=revision)
    return Path(found).parent if isinstance(found, str) else None


def hub_cache() -> Path:
    """As huggingface_hub/constants.py finds it."""
    home = os.environ.get("HF_HOME") or str(Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface"))
    given = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE") or str(Path(home, "hub"))
    return Path(os.path.expandvars(given)).expanduser()


def has_chat_template(folder: Path) -> bool:
    """Where transformers looks (tokenization_utils_base.py, from_pretrained)."""
    if (folder / TEMPLATE).is_file() or any(folder.glob(f"{FURTHER_TEMPLATES}/*.jinja")):
        return True
    return bool(read_config(folder).get("chat_template"))


def read_config(folder: Path) -> dict[str, Any]:
    """tokenizer_config.json; empty where there is none.

    Raises:
        ConfigError: where it is not a JSON object.
    """
    return json_object(folder / CONFIG, "tokenizer") if (folder / CONFIG).is_file() else {}


@dataclass(frozen=True)
class Vocabulary:
    tokens: frozenset[str]
    size: int  # ids without those of added tokens


def vocabulary(model: Model, folder: Path | None) -> Vocabulary | None:
    """What the tokenizer has before model.added_tokens; None where that is not known before it is loaded."""
    if model.tokenizer == BYTE_TOKENIZER:
        return Vocabulary(frozenset(BYTE_TOKENS), 256 + len(BYTE_TOKENS))
    return None if folder is None or not (folder / WHOLE).is_file() else listed_vocabulary(folder)


@cache
def listed_vocabulary(folder: Path) -> Vocabulary | None:
    """What tokenizer.json lists, and the tokens that tokenizer_config.json adds."""
    whole = json_object(folder / WHOLE, "tokenizer")
    model = whole.get("model")
    listed = model.get("vocab") if isinstance(model, dict) else None
    if not isinstance(listed, (dict, list)):
        return None
    words = listed if isinstance(listed, dict) else [pair[0] for pair in listed]  # of Unigram: pairs of a token and its score
    further = [*(whole.get("added_tokens") or []), *(read_config(folder).get("added_tokens_decoder") or {}).values()]
    return Vocabulary(frozenset(words) | {entry["content"] for entry in further}, len(listed))
