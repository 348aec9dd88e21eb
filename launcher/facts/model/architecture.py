"""Finds the config.json of a model: embedded in the run, in a local folder, or on the hub."""

import json
from pathlib import Path
from typing import Any

from conf.constants import ADAPTER_CONFIG
from conf.hub import hub_silence, is_folder
from conf.run_dir import RunDir
from conf.schema import Model
from launcher.errors import ConfigError

CONFIG = "config.json"


def read_architecture(model: Model) -> dict[str, Any]:
    """The contents of config.json; from the hub, only that file is fetched.

    Raises:
        ConfigError: where it cannot be read, saying what to do.
    """
    if model.architecture is not None:
        return dict(model.architecture)
    if model.path is None:
        raise ConfigError(
            "model.path and model.architecture are both null. Set model.path to a folder or a hub id, or choose a preset with model=..."
        )
    path = folder_config(model.path) if is_folder(model.path) else hub_config(model.path, model.revision)
    return json_object(path, "model")


def architecture_source(model: Model) -> str:
    """Where `read_architecture` looks, for messages."""
    return "model.architecture" if model.architecture is not None else f"{CONFIG} of {model.path}"


def folder_config(path: str) -> Path:
    refuse_no_model(path)
    return Path(path).expanduser() / CONFIG


def refuse_no_model(path: str) -> None:
    """
    Raises:
        ConfigError: for a folder that is not there, or holds something else than a whole model.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise ConfigError(f"model.path={path} is not a folder. Give the folder that holds the model, or a hub id such as Qwen/Qwen2.5-7B.")
    for held in (folder, RunDir(folder).model):
        if (held / ADAPTER_CONFIG).is_file():
            raise ConfigError(whole_model_of(path, held))
    if not (folder / CONFIG).is_file():
        if RunDir(folder).run_yaml.is_file():
            raise ConfigError(whole_model_of_run(path, RunDir(folder)))
        raise ConfigError(f"model.path={path} holds no {CONFIG}. Give the folder that save_pretrained wrote.")


def whole_model_of(path: str, folder: Path) -> str:
    """What to say where an adapter was given as a model: transformers would load the adapter's base, and train another model than was named."""
    base = json_object(folder / ADAPTER_CONFIG, "model").get("base_model_name_or_path")
    run_dir = RunDir(folder.resolve().parent)
    merge = f"`regimen export {run_dir.path}`" if run_dir.run_yaml.is_file() else "merge_and_unload of PEFT"
    return (
        f"model.path={path} holds an adapter, not a whole model. To train a new adapter or all weights on top of it, merge it into its base first "
        f"({merge}) and set model.path to the result. To train this adapter further, set regime=lora, regime.adapter={folder}, and model.path to "
        f"its base{f', {base}' if base else ''}."
    )


def whole_model_of_run(path: str, run_dir: RunDir) -> str:
    if run_dir.model.is_dir():
        return f"model.path={path} is a run folder. Set model.path={run_dir.model}, which holds its model."
    return f"model.path={path} is a run that has not finished, so it has no model yet. Finish it with `regimen train resume={path}`."


def json_object(path: Path, of: str) -> dict[str, Any]:
    """The object in a file of a model's folder; `of`: what the file belongs to, in messages.

    Raises:
        ConfigError: where there is none.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not JSON: {error}. Fetch the {of} again.") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}. Check its permissions.") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds a JSON {type(values).__name__}, not an object. Fetch the {of} again.")
    return values


def hub_config(name: str, revision: str | None) -> Path:
    from huggingface_hub import errors

    try:
        return fetch_config(name, revision)
    except errors.HFValidationError as error:
        raise ConfigError(f"model.path={name} is neither a folder that exists nor a hub id. Give a folder, or owner/name.") from error
    except errors.GatedRepoError as error:
        raise ConfigError(f"model.path={name} is gated on the hub. Accept its licence there and set HF_TOKEN, or give a local folder.") from error
    except errors.RepositoryNotFoundError as error:
        raise ConfigError(f"model.path={name} is not on the hub, or is private. Check the id, set HF_TOKEN, or give a local folder.") from error
    except errors.RevisionNotFoundError as error:
        raise ConfigError(f"model.revision={revision} is not a revision of {name}. Give a branch, tag or commit of it.") from error
    except errors.RemoteEntryNotFoundError as error:
        raise ConfigError(f"model.path={name} holds no {CONFIG} on the hub. Choose a repository of transformers weights.") from error
    except (errors.HTTPError, OSError) as error:  # type: ignore[attr-defined]  # of httpx or httpx2, whichever the hub uses
        raise ConfigError(
            f"model.path={name}: the hub cannot be reached ({first_line(error)}) and no {CONFIG} is cached. Check the id and the network, give a "
            "local folder, or set HF_HUB_OFFLINE=1 on a machine that has a cached copy. A preset (model=llama3.1_8b) needs no network for a plan."
        ) from error


def fetch_config(name: str, revision: str | None) -> Path:
    """The cached copy, renewed where the hub can be reached. Raises what huggingface_hub raises."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache

    if isinstance(try_to_load_from_cache(name, CONFIG, revision=revision), str):
        return Path(hf_hub_download(name, CONFIG, revision=revision, local_files_only=hub_silence() is not None))
    get_hf_file_metadata(hf_hub_url(name, CONFIG, revision=revision))  # one request without retries
    return Path(hf_hub_download(name, CONFIG, revision=revision))


def first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
