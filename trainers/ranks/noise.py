"""What libraries print that no user can act on. It is left out by name; every other warning of theirs stays."""

import logging
import warnings
from dataclasses import dataclass


@dataclass(frozen=True)
class Noise:
    logger: str
    begins: str
    why: str  # it concerns nobody


NOISE = (
    Noise(
        "bitsandbytes.backends.cpu.ops",
        "Failed to load CPU gemm_4bit_forward",
        "an optional kernel for answers in 4 bits on CPUs; bitsandbytes uses its own in its place",
    ),
    Noise(
        "transformers.trainer_utils",
        "The tokenizer has new PAD/BOS/EOS tokens",
        "the model gets the tokenizer's end tokens on purpose; trainers/ranks/notes.py warns before training where the two contradict each other",
    ),
)
# Announcements to the programmers of other libraries, who call what will be renamed or removed.
DEPRECATIONS = (FutureWarning, DeprecationWarning, PendingDeprecationWarning)


class LeavesOut(logging.Filter):
    def __init__(self, begins: str) -> None:
        super().__init__()
        self.begins = begins

    def filter(self, record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(self.begins)


def leave_out_noise() -> None:
    """Before any library is imported: some speak while they are."""
    for noise in NOISE:
        logging.getLogger(noise.logger).addFilter(LeavesOut(noise.begins))
    for category in DEPRECATIONS:
        warnings.filterwarnings("ignore", category=category)
