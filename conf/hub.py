"""The hub: what of a run is read from it, and whether it answers.

It is asked once and briefly: the libraries ask a hub that is out of reach six times for each file, for half a minute.
"""

from functools import cache
from pathlib import Path

from conf.constants import BYTE_TOKENIZER
from conf.data_sets import evaluation_sources, sources_of
from conf.schema import Composed, Data, Model


def is_folder(path: str) -> bool:
    return path.startswith((".", "/", "~")) or Path(path).exists()


def is_of_hub(model: Model) -> bool:
    """Whether its weights or its tokenizer have a name that no folder has."""
    return any(name not in (None, BYTE_TOKENIZER) and not is_folder(name) for name in (model.path, model.tokenizer))


def has_sets_of_hub(data: Data) -> bool:
    """Whether a set to train or to evaluate on is one of the hub.

    Raises:
        DataError, ValueError: as sources_of.
    """
    return any(source.hub_id is not None for source in [*sources_of(data.sets, data), *evaluation_sources(data)])


def reads_hub(run: Composed) -> bool:
    """Whether training this run reads something that only the hub, or its cache on this machine, has.

    Raises:
        DataError, ValueError: as sources_of.
    """
    reward_model = getattr(run.stage, "reward_model", None)
    return is_of_hub(run.model) or (reward_model is not None and not is_folder(reward_model)) or has_sets_of_hub(run.data)


def hub_silence() -> str | None:
    """Why the hub cannot be reached; None where it answers, and where the site has said not to ask it (HF_HUB_OFFLINE)."""
    from huggingface_hub import constants

    return None if constants.HF_HUB_OFFLINE else silence_of(constants.ENDPOINT)


def out_of_reach() -> str | None:
    """Why nothing can be downloaded from the hub; None where it answers."""
    from huggingface_hub import constants

    return "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else hub_silence()


@cache
def silence_of(endpoint: str) -> str | None:
    from huggingface_hub import constants, errors, get_session

    try:
        get_session().head(endpoint, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    except (errors.HTTPError, OSError) as error:  # type: ignore[attr-defined]  # of httpx or httpx2, whichever the hub uses
        return next(iter(str(error).splitlines()), type(error).__name__)
    return None


def cache_alone(silence: str) -> str:
    """What to say when only files that were downloaded before are read."""
    return f"The hub cannot be reached ({silence}), so only what was downloaded before is read."
