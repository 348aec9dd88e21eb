"""Texts to token ids, many at once: a tokenizer takes a batch several times faster than the same texts one by one."""

from collections.abc import Sequence

from tokenizers import Encoding
from transformers import PreTrainedTokenizerBase


def encoded(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, special_tokens: bool) -> list[Encoding]:
    """The encodings of all texts; as by the tokenizer's own call, nothing is padded or truncated, whatever its file says."""
    backend = tokenizer.backend_tokenizer  # type: ignore[attr-defined]
    backend.no_padding()
    backend.no_truncation()
    return list(backend.encode_batch(list(texts), add_special_tokens=special_tokens))
