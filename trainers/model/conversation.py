"""What generation needs to know of a tokenizer's chat template: prompts, and the tokens that end an answer."""

import copy
from pathlib import Path
from typing import Any

from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from conf.request import Sampling

ANSWER = "ANSWER"  # any word that no template writes itself
Turn = dict[str, str]

# A model's own generation_config fills what is left open, and Qwen's, for one, would cut and penalise probabilities.
PLAIN: dict[str, Any] = {"top_k": 0, "top_p": 1.0, "repetition_penalty": 1.0, "num_beams": 1, "use_cache": True}  # top_k: all; else 50
LIKELIEST: dict[str, Any] = {**PLAIN, "do_sample": False, "temperature": None, "top_k": None, "top_p": None}


def prompt_ids(tokenizer: PreTrainedTokenizerBase, turns: list[Turn]) -> list[int]:
    """The tokens after which the model is to answer the last turn."""
    text = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def stop_tokens(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The end token, and the one with which the template ends an answer: of many base models that is another one.

    Raises:
        ValueError: when there is neither.
    """
    found = end_tokens(tokenizer)
    if not found:
        raise ValueError("The tokenizer has no end token, and its chat template ends answers without one, so generation would never stop.")
    return found


def end_tokens(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    return sorted({tokenizer.eos_token_id, answer_end(tokenizer)} - {None})


def answer_end(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The special token that follows an answer; None: plain text follows, or nothing."""
    if tokenizer.chat_template is None:
        return None
    turns = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": ANSWER}]
    after = tokenizer.apply_chat_template(turns, tokenize=False).rpartition(ANSWER)[2]
    ids: list[int] = tokenizer(after, add_special_tokens=False)["input_ids"]
    return ids[0] if ids and ids[0] in special_tokens(tokenizer) else None


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    return {index for index, token in tokenizer.added_tokens_decoder.items() if token.special}


def refuse_missing_template(tokenizer: PreTrainedTokenizerBase) -> None:
    if tokenizer.chat_template is None:
        raise ValueError(
            "This model comes without a chat template (as after training on plain text), so it cannot chat. Train with data.template and stage=sft."
        )


def generation_config(tokenizer: PreTrainedTokenizerBase) -> GenerationConfig:
    """What ends and what pads an answer; how to sample is for those who use the model."""
    return GenerationConfig(bos_token_id=tokenizer.bos_token_id, eos_token_id=end_tokens(tokenizer) or None, pad_token_id=tokenizer.pad_token_id)


def end_answers(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Give a model, and whatever is saved of it, the end of an answer that the template writes; what else it says of generation stays.

    Returns a line where what it says contradicts itself: transformers refuses to save that, and ignores it otherwise.
    """
    if not model.can_generate():
        return []
    wanted = with_ends(model.generation_config, tokenizer)
    try:
        wanted.validate(strict=True)
    except ValueError as error:
        cause = " ".join(str(error).split("\n\n")[0].split()).removeprefix("GenerationConfig is invalid: ")
        model.generation_config = generation_config(tokenizer)
        return [f"The base's generation_config.json contradicts itself, so only what ends and what pads an answer is kept of it. {cause}"]
    model.generation_config = wanted
    return []


def save_ends(model: PreTrainedModel, folder: Path) -> None:
    """Beside an adapter too, whose base may name other ends: generate() takes it as `generation_config`."""
    if model.can_generate():
        model.generation_config.save_pretrained(folder)


def with_ends(found: GenerationConfig, tokenizer: PreTrainedTokenizerBase) -> GenerationConfig:
    """Ends that the model names beside those of training stay, unless they are text to this tokenizer: a llama without settings names token 2."""
    theirs = found.eos_token_id if isinstance(found.eos_token_id, list) else [found.eos_token_id]
    ends = sorted({*end_tokens(tokenizer), *(special_tokens(tokenizer) & {*theirs})})
    config = copy.deepcopy(found)
    config._from_model_config = False  # else transformers 4 would make it again from config.json, which names one end
    config.update(eos_token_id=ends or None, bos_token_id=tokenizer.bos_token_id, pad_token_id=tokenizer.pad_token_id)
    return config


def ending(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    return {"eos_token_id": stop_tokens(tokenizer), "pad_token_id": tokenizer.pad_token_id}


def sampling_keywords(sampling: Sampling, tokenizer: PreTrainedTokenizerBase) -> dict[str, object]:
    """Keywords of generate()."""
    ends = {**ending(tokenizer), "max_new_tokens": sampling.max_new_tokens}
    if sampling.temperature == 0:
        return {**ends, **LIKELIEST}
    return {**ends, **PLAIN, "do_sample": True, "temperature": sampling.temperature, "top_p": sampling.top_p}
