"""The named chat templates: their names, their texts, and the tokens that they need."""

import re
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "trainers/data/rows/templates"
# Of most families, and of Gemma, DeepSeek, Baichuan and GLM.
CONTROL_TOKEN = re.compile(r"<\|\w+\|>|<(?:start|end)_of_turn>|<｜[\w▁]+｜>|<reserved_\d+>|\[gMASK\]|<sop>")


def template_names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.jinja"))


def named_template(name: str) -> str:
    """The Jinja text of data.template.

    Raises:
        ValueError: for an unknown name.
    """
    if name not in template_names():
        raise ValueError(f"data.template={name} is not a template. Choose one of: {', '.join(template_names())}; null uses the tokenizer's own.")
    return (FOLDER / f"{name}.jinja").read_text(encoding="utf-8")


def control_tokens(template: str) -> set[str]:
    """What the template writes for the model alone, such as <|im_end|>: of use only as single tokens."""
    return set(CONTROL_TOKEN.findall(template))


def refuse_split_tokens(name: str, vocabulary: set[str]) -> None:
    """Raises ValueError where the tokenizer has no tokens of their own for what the named template writes."""
    missing = control_tokens(named_template(name)) - vocabulary
    if missing:
        raise ValueError(
            f"data.template={name} writes {', '.join(sorted(missing))}, which this tokenizer would split into pieces that never end an answer. "
            f"Use data.template=alpaca, which needs no tokens of its own, or a model.tokenizer that has them."
        )
