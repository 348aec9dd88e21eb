"""What generation needs to know of a tokenizer's chat template: prompts, and the tokens that end an answer."""

from transformers import GenerationConfig, PreTrainedTokenizerBase

from conf.request import Sampling

ANSWER = "ANSWER"  # any word that no template writes itself
Turn = dict[str, str]


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
    special = {index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    return ids[0] if ids and ids[0] in special else None


def refuse_missing_template(tokenizer: PreTrainedTokenizerBase) -> None:
    if tokenizer.chat_template is None:
        raise ValueError("The model was trained without a chat template (on plain text), so it cannot chat. Train with data.template and stage=sft.")


def generation_config(tokenizer: PreTrainedTokenizerBase) -> GenerationConfig:
    """What ends and what pads an answer; how to sample is for those who use the model."""
    return GenerationConfig(bos_token_id=tokenizer.bos_token_id, eos_token_id=end_tokens(tokenizer) or None, pad_token_id=tokenizer.pad_token_id)


def sampling_keywords(sampling: Sampling, tokenizer: PreTrainedTokenizerBase) -> dict[str, object]:
    """Keywords of generate()."""
    ends = {"eos_token_id": stop_tokens(tokenizer), "pad_token_id": tokenizer.pad_token_id, "max_new_tokens": sampling.max_new_tokens}
    if sampling.temperature == 0:
        return {**ends, "do_sample": False}
    return {
        **ends,
        "do_sample": True,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": 0,
    }  # 0: all; the default of transformers is 50
