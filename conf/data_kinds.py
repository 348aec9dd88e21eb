"""The kinds of rows in words, and which kinds can be made of what a set holds: an answered question gives a prompt, a pair gives answers."""

from conf.data_registry import DataError
from conf.stages import STAGES, Kind

WORDS: dict[Kind, str] = {
    "text": "plain text",
    "answers": "conversations that end with an answer",
    "pairs": "prompts with a chosen and a rejected answer",
    "labelled": "answers labelled good or bad",
    "prompts": "prompts alone",
}

# What a set holds -> the kinds of rows that are made of it; how, is in trainers/data/samples/conversion.py. What is not here cannot be made.
GIVES: dict[Kind, tuple[Kind, ...]] = {
    "text": ("text", "prompts"),
    "answers": ("answers", "prompts"),
    "pairs": ("pairs", "answers", "labelled", "prompts"),
    "labelled": ("labelled", "prompts"),
    "prompts": ("prompts",),
}


def stages_served(held: Kind) -> list[str]:
    return [stage for stage, row in STAGES.items() if row.reads in GIVES[held]]


def refuse_other_kind(origin: str, held: Kind, wanted: Kind, stage: str = "") -> None:
    """Refuse a set of which no rows of the wanted kind can be made; `stage` is the chosen one, where that is known.

    Raises:
        DataError: naming the set, what it holds, and the stages that it suits.
    """
    if wanted not in GIVES[held]:
        chosen = f"stage={stage}" if stage else "this stage"
        raise DataError(
            f"{origin} holds {WORDS[held]}, but {chosen} reads {WORDS[wanted]}. "
            f"This set suits stage={', '.join(stages_served(held))}. Choose one of these stages, or another set."
        )
