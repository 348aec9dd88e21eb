"""`python -m trainers.verbs.predict FOLDER`: answers to the prompts of data sets, written as they come, and their scores."""

import fcntl
import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from conf.request import Predict, load_predict
from conf.run_dir import cut_torn_line, write_text_atomically
from conf.schema import Run
from trainers.after_training.generation import answer_losses, generate
from trainers.after_training.meter import meter
from trainers.after_training.questions import held_out_questions, questions_of_sets
from trainers.after_training.scores import Prediction, scores
from trainers.after_training.trained import load_tokenizer_of, load_trained, refuse_damaged
from trainers.data.rows.questions import Question
from trainers.errors import Kept
from trainers.model.conversation import refuse_missing_template, stop_tokens
from trainers.verbs.frame import naming_the_target, perform

SETTINGS, PREDICTIONS, SCORES = "settings.json", "predictions.jsonl", "scores.json"


def predict(run: Run, request: Predict) -> None:
    """Raises DataError for data without prompts, ValueError for weights or a folder that cannot be used."""
    refuse_damaged(request.trained)
    tokenizer = load_tokenizer_of(run, request.trained)
    refuse_missing_template(tokenizer)
    folder = Path(request.target)
    with owned(folder, settings_text(run, request)):
        questions = held_out_questions(run, tokenizer) if request.held_out else questions_of_sets(run.data, tokenizer)
        what = "held-out samples" if request.held_out else "samples"
        print(f"predicting {len(questions)} {what} of {', '.join(run.data.sets)} with {request.trained.weights}", flush=True)
        with keeping_answers(folder / PREDICTIONS, len(questions)):
            answer_missing(run, request, tokenizer, questions, folder / PREDICTIONS)
        report(folder)


def settings_text(run: Run, request: Predict) -> str:
    """Everything that changes the answers. A run is named by its name and time, because its folder may be moved."""
    weights = [*Path(request.trained.run_folder).parts[-2:], request.trained.label]
    asked = {"weights": weights, "data": asdict(run.data), "held_out": request.held_out, "sampling": asdict(request.sampling)}
    return json.dumps(asked, indent=1) + "\n"


@contextmanager
def owned(folder: Path, settings: str) -> Iterator[None]:
    """The folder of this very prediction, for one process at a time; the kernel gives it free when the process ends.

    Raises:
        ValueError: when it holds something else, or another process works in it.
    """
    path = folder / SETTINGS
    if folder.exists() and not path.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} holds files that are not a prediction. Name another folder with --to.")
    if path.exists() and path.read_text(encoding="utf-8") != settings:
        raise ValueError(f"{folder} holds a prediction of different data or with different settings. Remove it, or name another folder with --to.")
    with naming_the_target(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with (folder / SETTINGS).open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(
                f"{folder} is in use by another process that writes its prediction. Wait for it, or name another folder with --to."
            ) from error
        if file.tell() == 0:
            file.write(settings)
            file.flush()
        yield


@contextmanager
def keeping_answers(file: Path, asked: int) -> Iterator[None]:
    """SIGTERM and SIGUSR1, by which clusters end jobs, are Ctrl-C here. Whole batches are in the file; the one that is being written is lost.

    Raises:
        Kept: at any of the three, where the file holds answers.
    """
    before = {number: signal.signal(number, signal.default_int_handler) for number in (signal.SIGTERM, signal.SIGUSR1)}
    try:
        yield
    except KeyboardInterrupt:
        cut_torn_line(file)
        kept = len(read_predictions(file))
        if not kept:
            raise
        raise Kept(f"stopped: {kept} of {asked} answers are kept in {file}. The same command asks the rest.") from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def answer_missing(run: Run, request: Predict, tokenizer: PreTrainedTokenizerBase, questions: list[Question], file: Path) -> None:
    """Answer what the file does not hold yet.

    The longest prompts run first, so an out-of-memory error appears immediately, and the time left is not estimated too low.
    """
    cut_torn_line(file)
    there = {entry["index"] for entry in read_predictions(file)}
    missing = sorted((index for index in range(len(questions)) if index not in there), key=lambda index: -len(questions[index].prompt_ids))
    if not missing:
        return
    model = load_trained(run, request.trained)
    refuse_too_long(model, questions, request)
    with file.open("a", encoding="utf-8") as lines, meter("answered", len(there), len(questions), sys.stderr) as advance:
        for start in range(0, len(missing), request.batch):
            batch = missing[start : start + request.batch]
            entries = predictions(model, tokenizer, request, {index: questions[index] for index in batch})
            lines.write("".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry, _ in entries))
            lines.flush()
            advance(len(entries), sum(length for _, length in entries))


def refuse_too_long(model: PreTrainedModel, questions: list[Question], request: Predict) -> None:
    positions = model.config.get_text_config().max_position_embeddings
    longest = max(len(question.prompt_ids) for question in questions)
    if longest + request.sampling.max_new_tokens > positions:
        raise ValueError(
            f"The longest prompt has {longest} tokens; with --max-new-tokens {request.sampling.max_new_tokens} that is more than the "
            f"{positions} positions of the model. Lower --max-new-tokens to {max(positions - longest, 1)}, or lower data.cutoff."
        )


def predictions(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, request: Predict, asked: dict[int, Question]
) -> list[tuple[Prediction, int]]:
    """Entries and the number of tokens that each took; what is sampled depends on the seed and on the batch, not on what came before."""
    questions = [*asked.values()]
    seed = (request.sampling.seed + min(asked)) % 2**32
    answers = generate(model, tokenizer, [question.prompt_ids for question in questions], request.sampling, seed)
    losses = answer_losses(model, tokenizer.pad_token_id, questions)
    ends = set(stop_tokens(tokenizer))
    return [
        (
            Prediction(
                index=index,
                prompt=tokenizer.decode(question.prompt_ids),
                prediction=tokenizer.decode(answer, skip_special_tokens=True).strip(),
                reference=question.reference,
                ended=answer[-1] in ends,
                loss=loss,
                tokens=len(question.answer_ids),
            ),
            len(answer),
        )
        for (index, question), answer, loss in zip(asked.items(), answers, losses, strict=True)
    ]


def read_predictions(file: Path) -> list[Prediction]:
    if not file.exists():
        return []
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def report(folder: Path) -> None:
    """All answers are there: put them into the order of the data, score them, and print where the files are."""
    entries = sorted(read_predictions(folder / PREDICTIONS), key=lambda entry: entry["index"])
    write_text_atomically(folder / PREDICTIONS, "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries))
    found = scores(entries)
    write_text_atomically(folder / SCORES, json.dumps(found, indent=1) + "\n")
    print("\n".join(f"{name:<15}{value:.4f}" if isinstance(value, float) else f"{name:<15}{value}" for name, value in found.items()))
    print(f"predictions: {folder / PREDICTIONS}{os.linesep}scores: {folder / SCORES}", flush=True)


if __name__ == "__main__":
    sys.exit(perform(load_predict, predict))
