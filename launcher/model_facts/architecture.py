"""Finds the config.json of a model: embedded in the run, in a local folder, or on the hub."""

import json
from pathlib import Path
from typing import Any

from conf.schema import Model
from launcher.errors import ConfigError

CONFIG = "config.json"


def read_architecture(model: Model) -> dict[str, Any]:
    """The contents of config.json; from the hub, that file alone is fetched.

    Raises:
        ConfigError: where it cannot be had, saying what to do.
    """
    if model.architecture is not None:
        return dict(model.architecture)
    if model.path is None:
        raise ConfigError(
            "model.path and model.architecture are both null. Set model.path to a folder or a hub id, or choose a preset with model=..."
        )
    path = folder_config(Path(model.path).expanduser()) if is_folder(model.path) else hub_config(model.path, model.revision)
    return parse_config(path)


def architecture_source(model: Model) -> str:
    """Where `read_architecture` looks, for messages."""
    return "model.architecture" if model.architecture is not None else f"{CONFIG} of {model.path}"


def is_folder(path: str) -> bool:
    return path.startswith((".", "/", "~")) or Path(path).exists()


def folder_config(folder: Path) -> Path:
    if not folder.is_dir():
        raise ConfigError(f"model.path={folder} is not a folder. Give the folder that holds the model, or a hub id such as Qwen/Qwen2.5-7B.")
    if not (folder / CONFIG).is_file():
        raise ConfigError(f"model.path={folder} holds no {CONFIG}. Give the folder that save_pretrained wrote.")
    return folder / CONFIG


def parse_config(path: Path) -> dict[str, Any]:
    try:
        architecture = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not JSON: {error}. Fetch the model again.") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}. Check its permissions.") from error
    if not isinstance(architecture, dict):
        raise ConfigError(f"{path} holds a JSON {type(architecture).__name__}, not an object. Fetch the model again.")
    return architecture


def hub_config(name: str, revision: str | None) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        return Path(hf_hub_download(name, CONFIG, revision=revision))
    except HFValidationError as error:
        raise ConfigError(f"model.path={name} is neither a folder that exists nor a hub id. Give a folder, or owner/name.") from error
    except GatedRepoError as error:
        raise ConfigError(f"model.path={name} is gated on the hub. Accept its licence there and set HF_TOKEN, or give a local folder.") from error
    except RepositoryNotFoundError as error:
        raise ConfigError(f"model.path={name} is not on the hub, or private. Check the id, set HF_TOKEN, or give a local folder.") from error
    except RevisionNotFoundError as error:
        raise ConfigError(f"model.revision={revision} is not a revision of {name}. Give a branch, tag or commit of it.") from error
    except LocalEntryNotFoundError as error:
        raise ConfigError(
            f"model.path={name}: the hub cannot be reached and its {CONFIG} is not cached. Check the id and the network, "
            "give a local folder, or use a preset (model=...), which needs no network to plan; HF_HUB_OFFLINE=1 uses a cached copy at once."
        ) from error
    except EntryNotFoundError as error:
        raise ConfigError(f"model.path={name} holds no {CONFIG} on the hub. Choose a repository of transformers weights.") from error
    except (HfHubHTTPError, OSError) as error:
        raise ConfigError(f"model.path={name}: the hub answered: {str(error).splitlines()[0]} Try again, or give a local folder.") from error
