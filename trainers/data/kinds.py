"""The kinds of rows, in words."""

from conf.stages import Kind

WORDS: dict[Kind, str] = {
    "text": "plain text",
    "answers": "conversations that end with an answer",
    "pairs": "prompts with a chosen and a rejected answer",
    "labelled": "answers labelled good or bad",
    "prompts": "prompts alone",
}
