"""What a conversation is: messages, tool calls, the order of roles, and the sample that a record becomes."""

from typing import Literal, NotRequired, TypedDict

from trainers.data.sources.rows import RowError

THOUGHTS = ("reasoning_content", "thinking", "reasoning")  # fields of a message; transformers gives each to the template under the first two names

Role = Literal["system", "user", "assistant", "tool"]


class Call(TypedDict):
    name: str
    arguments: dict[str, object]
    id: NotRequired[str]  # which a tool's answer refers to


class Message(TypedDict):
    role: Role
    content: str
    learn: bool
    weight: NotRequired[int]  # 0 or 1 where the data give one: whether they want it learned
    calls: NotRequired[list[Call]]  # of tools, by an assistant
    further: NotRequired[dict[str, object]]  # every other field (reasoning_content, name, tool_call_id, ...), as templates may read it
    unread: NotRequired[list[str]]  # fields that are not given to the template, in words; read_sample gathers them


class Sample(TypedDict):
    place: str  # file or hub id, and record or line
    messages: list[Message]  # with the answer at the end; of text, pairs and prompts: without it
    tools: list[dict[str, object]]
    chosen: NotRequired[list[Message]]  # of pairs: what follows `messages`
    rejected: NotRequired[list[Message]]
    label: NotRequired[bool]  # of labelled answers: whether the answer is good
    answer: NotRequired[str]  # of prompts: the set's own answer, or ""
    repairs: NotRequired[list[str]]  # what data.turns=repair did to it
    unread: NotRequired[list[str]]  # what the record holds beside all of this, in words


# Which roles may follow which. sharegpt alternates strictly; openai data may hold the answers of several tools in a row.
STRICT: dict[str, tuple[Role, ...]] = {
    "start": ("system", "user"),
    "system": ("user",),
    "user": ("assistant",),
    "assistant": ("user", "tool"),
    "tool": ("assistant",),
}
PARALLEL: dict[str, tuple[Role, ...]] = {**STRICT, "tool": ("assistant", "tool")}
FOLLOWERS = {"alpaca": STRICT, "sharegpt": STRICT, "openai": PARALLEL, "trl": PARALLEL}


def plain(role: Role, content: str, learn: bool = True) -> Message:
    return {"role": role, "content": content, "learn": role == "assistant" and learn}


def says_nothing(message: Message) -> bool:
    return not (message["content"].strip() or message.get("calls"))


REPAIRABLE = ", or set data.turns=repair"  # what a message adds where that would help


def refuse_wrong_order(messages: list[Message], followers: dict[str, tuple[Role, ...]], repairable: str) -> None:
    before = "start"
    for number, message in enumerate(messages, start=1):
        if message["role"] not in followers[before]:
            after = "at the start" if before == "start" else f"after {before}"
            way_out = repairable if message["role"] in (before, "assistant") else ""
            raise RowError(f"message {number} has the role {message['role']}; {after} it must be {' or '.join(followers[before])}{way_out}")
        before = message["role"]


def refuse_no_answer(messages: list[Message], repairable: str) -> None:
    last = messages[-1]["role"]
    if last != "assistant":
        way_out = repairable if any(message["role"] == "assistant" for message in messages) else ""
        raise RowError(f"the last message has the role {last}; it must be the assistant's answer, which is learned. Fix it{way_out}")


def refuse_no_question(messages: list[Message]) -> None:
    last = messages[-1]["role"] if messages else "none"
    if last not in ("user", "tool"):
        raise RowError(f"the last message of the prompt has the role {last}; it must be the user's")
