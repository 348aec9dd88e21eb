"""Records become samples of the kind that a stage learns from."""

import json

from conf.data_layout import Layout, in_words
from conf.stages import Kind
from trainers.data.samples.chat import (
    FOLLOWERS,
    REPAIRABLE,
    Message,
    RowError,
    Sample,
    plain,
    refuse_no_answer,
    refuse_no_question,
    refuse_wrong_order,
)
from trainers.data.samples.conversion import MAKE
from trainers.data.samples.messages import missing, optional_text, prompt_messages, read_tools, text, text_or_messages
from trainers.data.samples.turns import REPAIRED, repair
from trainers.data.samples.watched import Watched, unasked
from trainers.data.sources.records import Records, refuse_bad_rows
from trainers.data.sources.rows import parsed, place_within


def read_samples(records: Records, layout: Layout, wanted: Kind, turns: str) -> list[Sample]:
    """The samples of the wanted kind that the records give, in order; conversion.MAKE must have a way from what the layout holds.

    Raises:
        DataError: listing every record that does not fit the layout.
    """
    samples: list[Sample] = []
    problems: list[str] = []
    rows = list(records.rows)
    for number, record in rows:
        try:
            samples.extend(MAKE[layout.holds][wanted](read_sample(records.place(number), parsed(record), layout, wanted, turns)))
        except RowError as error:
            problems.append(f"{records.unit} {number}{place_within(error)}: {error}")
    refuse_bad_rows(records.origin, problems, len(rows), f"They were read as {layout.kind} data. Fix or remove them.")
    return samples


def read_sample(place: str, record: object, layout: Layout, wanted: Kind, turns: str) -> Sample:
    """The record as what the set holds, its roles in order."""
    if not isinstance(record, dict):
        raise RowError(f"the record is {in_words(record)}; it must be an object")
    record = Watched(record)
    sample: Sample = {"place": place, "messages": [], "tools": read_tools(record, layout.columns.tools)}
    if layout.holds == "pairs":
        sample["messages"], sample["chosen"], sample["rejected"] = read_pair(record, layout)
    else:
        sample["messages"] = with_answer(record, layout) if layout.holds in ("answers", "labelled") else prompt_messages(record, layout)
    if layout.holds == "labelled":
        sample["label"] = read_label(record, layout.columns.kto_tag)
    system = optional_text(record, layout.columns.system)
    unread = [*fields_unread(sample), *prompt_unread(record, layout, sample)]
    if system and sample["messages"][0]["role"] != "system":
        sample["messages"] = [plain("system", system), *sample["messages"]]
    elif system and system != sample["messages"][0]["content"]:
        unread += [f"column {layout.columns.system}, as the conversation begins with a system message of its own"]
    if turns == "repair":
        sample, done = repair(sample, layout.holds in ("answers", "labelled") and wanted != "prompts")
        sample = {**sample, "repairs": done} if done else sample
    refuse_misplaced(sample, layout, wanted, turns == "repair")
    refuse_no_text(sample)
    unread += [f"column {name}" for name in unasked(record)]
    return {**sample, "unread": unread} if unread else sample


def fields_unread(sample: Sample) -> list[str]:
    """What the messages hold that no template is given, taken out of them."""
    messages = [*sample["messages"], *sample.get("chosen", []), *sample.get("rejected", [])]
    return list(dict.fromkeys(name for message in messages for name in message.pop("unread", [])))


def prompt_unread(record: dict[str, object], layout: Layout, sample: Sample) -> list[str]:
    """A prompt column beside answers that hold the whole conversation is not read; that it says what they say does not count."""
    prompt = record.get(layout.columns.prompt) if layout.holds == "pairs" and layout.kind == "trl" and layout.columns.prompt is not None else None
    texts = (
        [prompt]
        if isinstance(prompt, str)
        else [turn.get("content") for turn in prompt if isinstance(turn, dict)]
        if isinstance(prompt, list)
        else []
    )
    said = [message["content"] for message in sample["messages"]]
    lost = any(isinstance(text, str) and text.strip() and not any(text in one for one in said) for text in texts)
    return [f"column {layout.columns.prompt}, as chosen and rejected hold the whole conversation"] if lost else []


def with_answer(record: dict[str, object], layout: Layout) -> list[Message]:
    """sharegpt and openai conversations hold their answer."""
    messages = prompt_messages(record, layout)
    if layout.kind in ("sharegpt", "openai"):
        return messages
    assert layout.columns.response is not None  # required column of the layout
    if layout.kind == "alpaca":
        return [*messages, plain("assistant", text(record, layout.columns.response))]
    return [*messages, *text_or_messages(record, layout.columns.response, "assistant", layout.tags)]


def read_pair(record: dict[str, object], layout: Layout) -> tuple[list[Message], list[Message], list[Message]]:
    """Prompt, chosen and rejected answer; answers that hold the whole conversation part where they differ."""
    columns, tags = layout.columns, layout.tags
    assert columns.chosen is not None
    assert columns.rejected is not None
    if layout.kind == "trl" and columns.prompt not in record and isinstance(record.get(columns.chosen), str):
        return split_texts(*(answer_text(record, column) for column in (columns.chosen, columns.rejected)))
    chosen, rejected = (text_or_messages(record, column, "assistant", tags) for column in (columns.chosen, columns.rejected))
    if chosen[0]["role"] != "assistant":
        return split_conversations(chosen, rejected)
    return prompt_messages(record, layout), chosen, rejected


def answer_text(record: dict[str, object], column: str) -> str:
    value = record.get(column)
    if not isinstance(value, str):
        raise RowError(f"column {column} is {in_words(value)}; it must be text, as the other answer is")
    return value


def split_texts(chosen: str, rejected: str) -> tuple[list[Message], list[Message], list[Message]]:
    """TRL's implicit prompt: the words with which both texts begin."""
    common = shared_length(chosen, rejected, min(len(chosen), len(rejected)))
    prompt = chosen[: max(0, *(chosen.rfind(space, 0, common) for space in " \n"))]
    if not prompt.strip():
        raise RowError("chosen and rejected share no beginning, so there is no prompt; give the prompt in a column of its own")
    return [plain("user", prompt)], [plain("assistant", chosen[len(prompt) :])], [plain("assistant", rejected[len(prompt) :])]


def split_conversations(chosen: list[Message], rejected: list[Message]) -> tuple[list[Message], list[Message], list[Message]]:
    common = shared_length(chosen, rejected, min(len(chosen), len(rejected)) - 1)  # of equal ones the last message is the answer
    if common == 0:
        raise RowError("chosen and rejected share no beginning, so there is no prompt; give the prompt in a column of its own")
    return chosen[:common], chosen[common:], rejected[common:]


def shared_length(one: str | list[Message], other: str | list[Message], limit: int) -> int:
    return next((index for index in range(limit) if one[index] != other[index]), limit)


def read_label(record: dict[str, object], column: str | None) -> bool:
    assert column is not None  # required column of the layout
    if column not in record:
        raise missing(record, column)
    value = record[column]
    words = {"true": True, "false": False}  # a CSV file holds text alone
    label = words.get(value.strip().lower()) if isinstance(value, str) else value
    if not isinstance(label, bool):
        raise RowError(f"column {column} is {in_words(value)}; it must be true or false")
    return label


def refuse_no_text(sample: Sample) -> None:
    """JSON may hold half of a surrogate pair, for example where a text was cut in the middle of an emoji. Tokenizers cannot encode it."""
    messages = [*sample["messages"], *sample.get("chosen", []), *sample.get("rejected", [])]
    whole = "".join([*(message["content"] for message in messages), *structures(sample, messages)])
    try:
        whole.encode()
    except UnicodeEncodeError as error:
        raise RowError(f"the record holds half of a surrogate pair ({whole[error.start]!r}), which is not a character") from error


def structures(sample: Sample, messages: list[Message]) -> list[str]:
    """Tools, calls and further fields as the text that templates make of them."""
    parts = [sample["tools"], *(message.get(name) for message in messages for name in ("calls", "further"))]
    try:
        return [json.dumps(part, ensure_ascii=False, default=str) for part in parts if part]  # Parquet has dates, which JSON has not
    except RecursionError as error:
        raise RowError("its tools or calls are nested too deeply") from error


def refuse_misplaced(sample: Sample, layout: Layout, wanted: Kind, repaired: bool) -> None:
    """Roles must alternate, and the conversation must end where the kind of data says."""
    messages, repairable = sample["messages"], "" if repaired else REPAIRABLE
    followers = REPAIRED if repaired else FOLLOWERS[layout.kind]
    if layout.holds == "pairs":
        refuse_no_question(messages)
        for column in ("chosen", "rejected"):
            whole = [*messages, *sample[column]]
            refuse_wrong_order(whole, followers, repairable)
            refuse_no_answer(whole, "")  # an answer of a pair is kept whole
        return
    refuse_wrong_order(messages, followers, repairable)
    answered = layout.holds in ("answers", "labelled")
    if answered and (wanted != "prompts" or messages[-1]["role"] == "assistant"):
        refuse_no_answer(messages, repairable)
    else:
        refuse_no_question(messages)
