"""`python -m trainers.verbs.chat FOLDER`: a conversation in the terminal; the answers are streamed, Ctrl-C stops one of them."""

import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TextIteratorStreamer, set_seed

from conf.request import Chat, Sampling, load_chat
from conf.schema import Run
from trainers.after_training.trained import load_tokenizer_of, load_trained
from trainers.model.conversation import Turn, prompt_ids, refuse_missing_template, sampling_keywords
from trainers.verbs.frame import perform

HELP = (
    "/system TEXT sets the system prompt and starts a new conversation, /clear only starts a new one, /exit or Ctrl-D ends, Ctrl-C stops an answer."
)


@dataclass(frozen=True)
class Conversation:
    system: str | None
    turns: tuple[tuple[str, str], ...]  # questions and answers so far

    def asking(self, question: str) -> list[Turn]:
        """The messages for the chat template."""
        system = [{"role": "system", "content": self.system}] if self.system else []
        spoken = [{"role": role, "content": text} for turn in self.turns for role, text in zip(("user", "assistant"), turn, strict=True)]
        return [*system, *spoken, {"role": "user", "content": question}]


def chat(run: Run, request: Chat) -> None:
    tokenizer = load_tokenizer_of(run, request.trained)
    refuse_missing_template(tokenizer)
    model = load_trained(run, request.trained)
    set_seed(request.sampling.seed)
    conversation = Conversation(request.system, ())
    when = "before" if request.trained.base else "after"
    say(f"{run.model.name} {when} {run.stage.name}, {request.trained.label}. {HELP}")
    for line in typed_lines():
        command, _, rest = line.partition(" ")
        if command == "/exit":
            return
        if not is_text(line):
            print("This line is not UTF-8, so the model did not get it. Write it in UTF-8.", file=sys.stderr)
        elif command == "/clear":
            conversation = replace(conversation, turns=())
        elif command == "/system":
            conversation = Conversation(rest.strip() or None, ())
        elif command.startswith("/"):
            print(f"{command} is not a command. {HELP}", file=sys.stderr)
        elif line.strip():
            ids = prompt_ids(tokenizer, conversation.asking(line))
            room = model.config.get_text_config().max_position_embeddings - len(ids)
            if room < 1:
                print(
                    f"The conversation has {len(ids)} tokens, more than the model has positions for. Write less, or start a new one with /clear.",
                    file=sys.stderr,
                )
                continue
            sampling = replace(request.sampling, max_new_tokens=min(request.sampling.max_new_tokens, room))
            answer = answer_aloud(model, tokenizer, sampling, ids)
            conversation = replace(conversation, turns=(*conversation.turns, (line, answer)))


def is_text(line: str) -> bool:
    """Python reads bytes that are not UTF-8 as halves of surrogate pairs, which tokenizers cannot encode."""
    try:
        line.encode()
    except UnicodeEncodeError:
        return False
    return True


def say(text: str) -> None:
    """Print for people only: piped output holds nothing but answers."""
    if sys.stdin.isatty():
        print(text, flush=True)


def typed_lines() -> Iterator[str]:
    """Lines until the end of the input; Ctrl-C at the prompt forgets what was typed."""
    if not sys.stdin.isatty():
        yield from (line.rstrip("\n") for line in sys.stdin)
        return
    import readline  # noqa: F401 - gives input() a history and its keys

    while True:
        try:
            yield input("> ")
        except KeyboardInterrupt:
            print(f"\n{HELP}", flush=True)
        except EOFError:
            print(flush=True)
            return


def answer_aloud(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, sampling: Sampling, ids: list[int]) -> str:
    """Print the answer as it comes. It is made in a thread, so that this one can hear Ctrl-C; what came before that is the answer then."""
    stop = threading.Event()
    pieces = TextIteratorStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
    said: list[str] = []
    with ThreadPoolExecutor(max_workers=1) as pool:
        done = pool.submit(generate, model, ids, pieces, stop, sampling_keywords(sampling, tokenizer))
        done.add_done_callback(lambda _: pieces.end())  # an error must not leave the reader waiting; a second end is not read
        try:
            for piece in pieces:
                said.append(piece)
                print(piece, end="", flush=True)
        except KeyboardInterrupt:
            stop.set()
        done.result()
    print(flush=True)
    return "".join(said).strip()


def generate(model: PreTrainedModel, ids: list[int], pieces: TextIteratorStreamer, stop: threading.Event, keywords: dict[str, object]) -> None:
    """Ends at the next token once `stop` is set."""
    batch = torch.tensor([ids], device=model.device)
    stopping = [lambda tokens, _: torch.full((len(tokens),), stop.is_set(), device=tokens.device)]
    with torch.inference_mode():
        model.generate(input_ids=batch, attention_mask=torch.ones_like(batch), streamer=pieces, stopping_criteria=stopping, **keywords)


if __name__ == "__main__":
    sys.exit(perform(load_chat, chat))
