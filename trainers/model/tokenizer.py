"""The tokenizer of a run, with the chat template and the padding token that training uses."""

import re
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from conf.chat_templates import control_tokens, named_template, refuse_split_tokens, template_names
from conf.constants import BYTE_TOKENIZER, BYTE_TOKENS
from conf.schema import Model, Run
from conf.stages import stage_row
from conf.vocabulary import vocabulary_rows
from trainers.model.conversation import answer_end

# Tokens that model makers reserve for padding, or reserve and never train: Llama 3.1, Phi, Mistral, BERT, Gemma and Falcon families.
SPARE_TOKEN = re.compile(
    r"^[<\[|]*(pad|padding|finetune_right_pad_id|pad_id|dummy_\d+|unused_?\d+|reserved_(special_)?token_\d+)[>\]|]*$", re.IGNORECASE
)
HUB_ID = re.compile(r"^[\w.-]+(/[\w.-]+)?$")


def load_tokenizer(run: Run) -> PreTrainedTokenizerBase:
    """The tokenizer that run.model names, padding right, with the chat template that run.data names.

    Raises:
        ValueError: naming model.tokenizer, model.path or data.template.
    """
    tokenizer = byte_tokenizer() if run.model.tokenizer == BYTE_TOKENIZER else pretrained_tokenizer(run.model)
    tokenizer.padding_side = "right"
    add_tokens(tokenizer, run.model)
    if run.data.template is not None:
        tokenizer.chat_template = fitting_template(run.data.template, tokenizer)
        tokenizer.eos_token = end_token(tokenizer)
    if stage_row(run.stage.name).reads != "text" or run.evaluation.generate is not None:
        refuse_missing_template(tokenizer)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = padding_token(tokenizer)
    refuse_large_vocabulary(tokenizer, vocabulary_rows(run.model, model_vocabulary(run.model)), set(run.model.added_tokens))
    return tokenizer


def byte_tokenizer() -> PreTrainedTokenizerBase:
    """256 byte symbols and a few special tokens, ChatML as its template; it encodes any text and nothing is downloaded."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={symbol: index for index, symbol in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(list(BYTE_TOKENS))
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<|pad|>",
        eos_token="<|im_end|>",
        extra_special_tokens=["<|endoftext|>", "<|im_start|>"],
        chat_template=named_template("chatml"),
        clean_up_tokenization_spaces=False,
    )


def pretrained_tokenizer(model: Model) -> PreTrainedTokenizerBase:
    key, source = ("model.path", model.path) if model.tokenizer is None else ("model.tokenizer", model.tokenizer)
    if source is None:
        raise ValueError("model.tokenizer and model.path are both null. Set model.tokenizer to a folder, a hub id, or bytes (the built-in one).")
    refuse_missing_folder(key, source)
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, revision=model.revision if source == model.path else None)
    except (OSError, ValueError) as error:
        raise ValueError(unreadable(key, source, "tokenizer", error)) from error
    if not tokenizer.is_fast:
        raise ValueError(
            f"{key}={source}: this tokenizer gives no character offsets, and they are needed to find the answers. Save it with a tokenizer.json."
        )
    return tokenizer


def refuse_missing_folder(key: str, source: str) -> None:
    if not Path(source).is_dir() and not HUB_ID.match(source):
        raise ValueError(f"{key}={source} is neither a folder nor a hub id (org/name). Give the folder that holds tokenizer.json.")


def unreadable(key: str, source: str, what: str, error: Exception) -> str:
    cause = next(iter(str(error).splitlines()), type(error).__name__)
    if Path(source).is_dir():
        return f"{key}={source}: the folder holds no readable {what}: {cause} Save one there with save_pretrained, or name another in {key}."
    return (
        f"{key}={source}: there is no such folder, and no {what} of that hub id could be loaded: {cause} "
        f"Check the name, or download it first and give its folder."
    )


def fitting_template(name: str, tokenizer: PreTrainedTokenizerBase) -> str:
    refuse_split_tokens(name, set(tokenizer.get_vocab()))
    return named_template(name)


def end_token(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """The token that ends an answer in the named template: whoever generates with this tokenizer stops there."""
    end = answer_end(tokenizer)
    return tokenizer.eos_token if end is None else str(tokenizer.convert_ids_to_tokens(end))


def refuse_missing_template(tokenizer: PreTrainedTokenizerBase) -> None:
    if tokenizer.chat_template is None:
        raise ValueError(f"The tokenizer has no chat template. Set data.template to one of {', '.join(template_names())}.")


def padding_token(tokenizer: PreTrainedTokenizerBase) -> str:
    """A special token that no text uses, else the end token; padding is masked by position, so real end tokens are still learned."""
    in_use = control_tokens(str(tokenizer.chat_template)) | {tokenizer.bos_token, tokenizer.eos_token}
    special = [token.content for _, token in sorted(tokenizer.added_tokens_decoder.items()) if token.special]
    spare = [token for token in special if SPARE_TOKEN.match(token) and token not in in_use]
    if spare:
        return spare[0]
    if tokenizer.eos_token is None:
        raise ValueError("model.tokenizer has neither a padding nor an end token. Set eos_token in its tokenizer_config.json.")
    return tokenizer.eos_token


def add_tokens(tokenizer: PreTrainedTokenizerBase, model: Model) -> None:
    """Raises ValueError when the tokenizer has one of them already: its trained row would be initialised again."""
    known = tokenizer.get_vocab()
    for token in model.added_tokens:
        if token in known:
            raise ValueError(f"model.added_tokens: {token} is a token of this tokenizer already. Leave it out.")
    tokenizer.add_tokens(list(model.added_tokens))


def model_vocabulary(model: Model) -> int:
    """Rows of the embedding as it is loaded."""
    if model.architecture is not None:
        stated = model.architecture.get("text_config", model.architecture)
        return int(stated.get("vocab_size") or AutoConfig.for_model(**model.architecture).get_text_config().vocab_size)
    if model.path is None:
        raise ValueError("model.path and model.architecture are both null. Set model.path to the folder or hub id of a model.")
    try:
        config = AutoConfig.from_pretrained(model.path, revision=model.revision)
    except (OSError, ValueError) as error:
        raise ValueError(unreadable("model.path", model.path, "config.json", error)) from error
    return int(config.get_text_config().vocab_size)


def refuse_large_vocabulary(tokenizer: PreTrainedTokenizerBase, rows: int, added: set[str]) -> None:
    """Text and control tokens must have embeddings; a marker for images may lie beyond them (Gemma 3 1B: id 262144 of 262144 rows)."""
    needed = {tokenizer.pad_token, tokenizer.eos_token, tokenizer.bos_token} | control_tokens(str(tokenizer.chat_template))
    vocabulary = tokenizer.get_vocab()
    largest = max([tokenizer.vocab_size - 1, *(vocabulary[token] for token in needed | added if token in vocabulary)])
    if largest >= rows:
        raise ValueError(
            f"model.tokenizer uses {largest + 1} ids, but the model has {rows} embeddings. Use the model's own tokenizer (model.tokenizer=null), "
            f"or a model with vocab_size of at least {largest + 1}."
        )
