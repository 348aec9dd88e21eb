"""Texts to token ids, many at once: a tokenizer encodes a batch several times faster than the same texts one by one.

Nothing is padded or truncated, whatever the tokenizer's file says. Without the place of each token in its text, a fifth of the time is saved.
"""

from collections.abc import Sequence

from tokenizers import Encoding, Tokenizer
from transformers import PreTrainedTokenizerBase


def encode_chats(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[Encoding]:
    """What a template wrote, with the place of each token."""
    return list(backend_of(tokenizer).encode_batch(list(texts), add_special_tokens=False))


def encode_prompts(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[Encoding]:
    """What a template wrote."""
    return list(backend_of(tokenizer).encode_batch_fast(list(texts), add_special_tokens=False))


def encode_documents(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[Encoding]:
    """Texts with the tokens that the tokenizer itself puts around one."""
    return list(backend_of(tokenizer).encode_batch_fast(list(texts), add_special_tokens=True))


def backend_of(tokenizer: PreTrainedTokenizerBase) -> Tokenizer:
    backend: Tokenizer = tokenizer.backend_tokenizer  # type: ignore[attr-defined]
    backend.no_padding()
    backend.no_truncation()
    return backend
