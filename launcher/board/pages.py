"""Templates and texts of the pages. Whatever a page shows is escaped, and no secret is in it."""

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from conf.secrets import masked

if TYPE_CHECKING:
    from jinja2 import Environment

FOLDER = Path(__file__).resolve().parent
LANGUAGES = ("en", "zh")


@cache
def texts() -> dict[str, dict[str, str]]:
    """Every text of the pages by its key, in each language."""
    found: dict[str, dict[str, str]] = yaml.safe_load((FOLDER / "texts.yaml").read_text(encoding="utf-8"))
    return found


def language_of(accepted: str) -> str:
    """The first language of an Accept-Language header that the board has; English where it has none."""
    wished = [part.split(";")[0].strip().lower().split("-")[0] for part in accepted.split(",")]
    return next((language for language in wished if language in LANGUAGES), LANGUAGES[0])


def in_language(language: str) -> dict[str, str]:
    return {key: said[language] for key, said in texts().items()}


@cache
def environment() -> "Environment":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(FOLDER / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=without_secrets,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def without_secrets(value: Any) -> Any:
    """Before it is escaped, which could hide the shape of a secret."""
    return masked(value) if type(value) is str else value


def rendered(name: str, language: str, values: Mapping[str, Any]) -> str:
    return environment().get_template(name).render(t=speaking(language), language=language, **values)


def speaking(language: str) -> Callable[[str], str]:
    said = in_language(language)
    return lambda key: said[key]
