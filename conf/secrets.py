"""What must not be shown: known shapes of credentials, and values that a configuration reads from the environment.

The shapes are those that their issuers document; tests/conf/test_secrets.py has one of each.
"""

import re
from typing import Any

SHAPES = {
    "a Hugging Face token": r"\bhf_[A-Za-z0-9]{20,}",
    "a key of OpenAI or Anthropic": r"\bsk-[A-Za-z0-9_-]{20,}",
    "a GitHub token": r"\b(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{22,})",
    "a GitLab token": r"\bglpat-[A-Za-z0-9_-]{20,}",
    "an AWS access key": r"\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}\b",
    "a Google API key": r"\bAIza[A-Za-z0-9_-]{35}",
    "a Slack token": r"\bxox[abeoprs]-[A-Za-z0-9-]{10,}",
    "a Stripe key": r"\b[rs]k_live_[A-Za-z0-9]{16,}",
    "a key of Weights & Biases": r"\bwandb_v[0-9]_[A-Za-z0-9_]{20,}",
    "a package index token": r"\b(?:pypi-AgEI[A-Za-z0-9_-]{20,}|npm_[A-Za-z0-9]{36})",
    "a JSON web token": r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{6,}",
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE KEY-----",
    "a password in a URL": r"(?<=://)[^/\s:@'\"]*:[^/\s@'\"]+(?=@)",
    "a key in a URL": r"(?i)(?<=[?&])(?:access_token|api_?key|auth|key|passw(?:or)?d|secret|sig|signature|token|x-amz-signature)=[^&\s'\",#]{8,}",
    "an authorization header": r"(?i)\bauthorization['\"]?\s*[:=]\s*['\"]?\w+\s+[^\s'\"]{8,}",
}
EXACT = {what: re.compile(shape) for what, shape in SHAPES.items()}
# wandb's older keys look like a git commit: one counts only where it is a whole value that is not a revision, or stands behind a word for a key.
HEX_VALUE = re.compile(r"^(?!\s*(?:- )?(?:[\w.]+\.)?revision\s*[:=]).*?[:=\s'\"\[,]['\"]?[0-9a-f]{40}['\"\],]*\s*$", re.MULTILINE)
HEX_IN_TEXT = re.compile(r"(?i)(?<=key|ken|ret|ord|gin)(?P<between>\W{1,4})[0-9a-f]{40}\b")
SHORTEST = 6  # characters: hiding a shorter value would hide half of every text

HIDDEN: dict[str, str] = {}  # values that this process has read from the environment for a configuration, and what is shown instead


def shape_of_secret(configuration: str) -> str:
    """What kind of credential lines of `key=value` or `key: value` hold; empty for none."""
    found = next((what for what, shape in EXACT.items() if shape.search(configuration)), "")
    return found or ("a key of Weights & Biases" if HEX_VALUE.search(configuration) else "")


def hide(value: str, shown: str) -> None:
    """From now on, `masked` shows the other text for this value."""
    if len(value) >= SHORTEST and value != shown:
        HIDDEN[value] = shown


def masked(text: str) -> str:
    """The text as it may be shown and written."""
    for value in sorted(HIDDEN, key=len, reverse=True):
        if value in text:
            text = text.replace(value, HIDDEN[value])
    for shape in EXACT.values():
        text = shape.sub("***", text)
    return HEX_IN_TEXT.sub(r"\g<between>***", text)


def masked_in(values: Any) -> Any:
    """The same with every text in it masked; the keys of dicts stay."""
    if isinstance(values, str):
        return masked(values)
    if isinstance(values, dict):
        return {key: masked_in(value) for key, value in values.items()}
    return [masked_in(value) for value in values] if isinstance(values, (list, tuple)) else values


class Masking:
    """A text stream that shows no secret."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        self.stream.write(masked(text))
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)
