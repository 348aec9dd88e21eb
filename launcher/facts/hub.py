"""Whether the hub answers. It is asked once and briefly: the libraries ask a hub that is out of reach six times for each file, for half a minute."""

from functools import cache


def hub_silence() -> str | None:
    """Why the hub cannot be reached; None where it answers, and where the site has said not to ask it (HF_HUB_OFFLINE)."""
    from huggingface_hub import constants

    return None if constants.HF_HUB_OFFLINE else silence_of(constants.ENDPOINT)


@cache
def silence_of(endpoint: str) -> str | None:
    from huggingface_hub import constants, errors, get_session

    try:
        get_session().head(endpoint, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    except (errors.HTTPError, OSError) as error:  # type: ignore[attr-defined]  # of httpx or httpx2, whichever the hub uses
        return next(iter(str(error).splitlines()), type(error).__name__)
    return None
