"""Which kind of rows each stage learns from."""

from conf.data_layout import Kind

KINDS: dict[str, Kind] = {
    "pt": "text",
    "sft": "answers",
    "rm": "pairs",
    "dpo": "pairs",
    "orpo": "pairs",
    "simpo": "pairs",
    "kto": "labelled",
    "ppo": "prompts",
    "grpo": "prompts",
}

WORDS: dict[Kind, str] = {
    "text": "plain text",
    "answers": "conversations that end with an answer",
    "pairs": "prompts with a chosen and a rejected answer",
    "labelled": "answers labelled good or bad",
    "prompts": "prompts alone",
}
