"""What a chat template's text says about itself; the named ones are in templates/ beside this module."""

import re

COMMENT = re.compile(r"\{#.*?#\}", re.DOTALL)
GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")


def marks_answers(template: str) -> bool:
    """Whether the template says itself which part of its text the model is to generate."""
    return GENERATION.search(template) is not None


def shows_tools(template: str) -> bool:
    """Whether the template reads the tools of a conversation."""
    return "tools" in COMMENT.sub("", template)
