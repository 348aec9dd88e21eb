"""Why a sample is dropped."""

NOTHING_LEARNED = "nothing left to learn"  # most often because the cutoff took the whole answer
EMPTY = "empty"
EQUAL = "chosen and rejected are equal"
NO_ROOM = "no room for an answer"
PROMPT_TOO_LONG = "prompt too long"
TOO_LONG = "longer than data.cutoff"  # where data.on_long=drop
