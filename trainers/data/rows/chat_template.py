"""The named chat templates beside this module, and what a template's text says about itself."""

import re
from pathlib import Path

FOLDER = Path(__file__).parent / "templates"
COMMENT = re.compile(r"\{#.*?#\}", re.DOTALL)
GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
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


def marks_answers(template: str) -> bool:
    """Whether the template says itself which part of its text the model is to generate."""
    return GENERATION.search(template) is not None


def shows_tools(template: str) -> bool:
    """Whether the template reads the tools of a conversation."""
    return "tools" in COMMENT.sub("", template)


def control_tokens(template: str) -> set[str]:
    """What the template writes for the model alone, such as <|im_end|>: of use only as single tokens."""
    return set(CONTROL_TOKEN.findall(template))
