"""Control tokens that stand in the texts of the data: a tokenizer reads `<|im_end|>` in a question as the token that ends a turn.

They are counted. With data.control_tokens=text they stay text. The template is given a sample in which each stands as a run of private characters of
the same length, so that it is known from what the template itself writes. Then a copy of the tokenizer, which splits special tokens as any other text
and knows the template's own under other names, encodes what the data hold. Lengths stay the same, and with them the places of answers.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

from tokenizers import AddedToken, Encoding, Tokenizer
from transformers import PreTrainedTokenizerBase

from trainers.data.rows.template import Span
from trainers.data.samples.chat import RowError, Sample

DATA, TEMPLATE = 0x100000, 0x108000  # where private characters begin: for tokens in the data, and for those that the template writes
OF_ANSWERS = re.compile(r"</?(?:think|tool_call|tool_response|tools)>")  # of thoughts and calls: data that hold them mean the tokens
PRIVATE = re.compile(f"[{chr(DATA)}-{chr(0x10FFFD)}]")
PRIVATE_RUN = re.compile(f"([{chr(DATA)}-{chr(TEMPLATE - 1)}])\\1*")  # tokens of the data


@dataclass(frozen=True)
class Encoded:
    """What is used of an Encoding, with the ids that the tokenizer itself has."""

    ids: list[int]
    token_to_chars: Callable[[int], Span]


@dataclass(frozen=True)
class Controls:
    """The special tokens of a tokenizer, the longest first, and the copy that reads them in the data as text."""

    tokens: tuple[str, ...]
    every: re.Pattern[str]  # finds any of them
    found: re.Pattern[str]  # finds those that are not text in the data
    backend: Tokenizer
    ids: dict[int, int]  # of the names under which the copy knows the template's tokens -> of the tokens

    def named(self, text: str, first: int) -> str:
        """The text with each special token as a run of one private character."""
        wanted = self.found if first == DATA else self.every
        return wanted.sub(lambda match: chr(first + self.tokens.index(match[0])) * len(match[0]), text)

    def as_written(self, text: str) -> str:
        """The text with the tokens of the data as the data hold them."""

        def tokens_of(run: re.Match[str]) -> str:
            token = self.tokens[ord(run[1]) - DATA]
            return token * (len(run[0]) // len(token))

        return PRIVATE_RUN.sub(tokens_of, text)

    def encode(self, texts: Sequence[str], alone: bool) -> list[Encoded]:
        """What a template wrote of guarded samples; of documents, which stand alone, with the tokens that the tokenizer puts around one."""
        named = [self.as_written(self.named(text, TEMPLATE)) for text in texts]
        return [self.own(encoding) for encoding in self.backend.encode_batch(named, add_special_tokens=alone)]

    def own(self, encoding: Encoding) -> Encoded:
        return Encoded([self.ids.get(token, token) for token in encoding.ids], encoding.token_to_chars)


@lru_cache(maxsize=4)  # of processes that have more than one there are tests alone
def special_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[tuple[str, ...], re.Pattern[str]]:
    """The special tokens of a tokenizer, the longest first, and what finds those that no answer writes itself."""
    tokens = sorted({token.content for token in tokenizer.added_tokens_decoder.values() if token.special}, key=lambda text: (-len(text), text))
    return tuple(tokens), any_of(token for token in tokens if not OF_ANSWERS.fullmatch(token))


def any_of(tokens: Iterable[str]) -> re.Pattern[str]:
    return re.compile("|".join(map(re.escape, tokens)) or "(?!)")


@lru_cache(maxsize=4)
def controls_of(tokenizer: PreTrainedTokenizerBase) -> Controls:
    tokens, found = special_tokens(tokenizer)
    backend: Tokenizer = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())  # type: ignore[attr-defined]
    backend.no_padding()
    backend.no_truncation()
    known = {token.content: (index, token) for index, token in tokenizer.added_tokens_decoder.items()}
    names = {chr(TEMPLATE + number) * len(token): known[token] for number, token in enumerate(tokens)}
    backend.add_tokens([AddedToken(name, lstrip=token.lstrip, rstrip=token.rstrip, normalized=False) for name, (_, token) in names.items()])
    backend.encode_special_tokens = True
    return Controls(tokens, any_of(tokens), found, backend, {backend.token_to_id(name): index for name, (index, _) in names.items()})


def controls_in(sample: Sample, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """The special tokens in the texts of a sample."""
    _, found = special_tokens(tokenizer)
    return sorted({token for text in texts_of(list(sample_parts(sample))) for token in found.findall(text)})


def guarded(sample: Sample, controls: Controls) -> Sample:
    """The sample with the special tokens of its texts as private characters.

    Raises:
        RowError: for a sample that holds such characters already.
    """
    if any(PRIVATE.search(text) for text in texts_of(list(sample_parts(sample)))):
        raise RowError("the record holds characters of the private plane from U+100000 on, which data.control_tokens=text needs for itself")
    parts = cast(dict[str, Any], sample)
    return cast(Sample, {**parts, **{name: renamed(parts[name], controls) for name in ("messages", "chosen", "rejected", "tools") if name in parts}})


def sample_parts(sample: Sample) -> tuple[object, ...]:
    return sample["messages"], sample.get("chosen"), sample.get("rejected"), sample["tools"]


def texts_of(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    inner = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []
    return [text for item in inner for text in texts_of(item)]


def renamed(value: Any, controls: Controls) -> Any:
    if isinstance(value, str):
        return controls.named(value, DATA)
    if isinstance(value, dict):
        return {renamed(key, controls): renamed(item, controls) for key, item in value.items()}
    return [renamed(item, controls) for item in value] if isinstance(value, list) else value
