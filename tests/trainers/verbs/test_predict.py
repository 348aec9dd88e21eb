"""Predictions: which samples are asked, what is written, how an interrupted one goes on, what is refused."""

import fcntl
import json
import math
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from conf.request import Predict, Sampling, Trained
from conf.run_dir import RunDir, load_run
from conf.schema import Run
from trainers.after_training.generation import generate
from trainers.after_training.questions import held_out_questions, questions_of_sets
from trainers.data import build_datasets
from trainers.data.rows.questions import from_row, last_answer
from trainers.errors import DataError, Kept
from trainers.model.tokenizer import byte_tokenizer, load_tokenizer
from trainers.ranks.causes import cause_of
from trainers.verbs.predict import predict, read_predictions

GREEDY = Sampling(max_new_tokens=24, temperature=0.0, top_p=1.0, seed=0)
ANSWERS = {"What is the sky?": "Blue.", "What is grass?": "Green.", "What is snow?": "White as milk.", "What is coal?": "Black."}


def request_of(run_dir: RunDir, target: Path, **other: Any) -> Predict:
    asked = Predict(Trained(str(run_dir.path), str(run_dir.model), None), str(target), batch=3, held_out=False, sampling=GREEDY)
    return replace(asked, **other)


def test_a_model_that_learned_its_answers_by_heart_scores_full_marks(learned: RunDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    predict(load_run(learned), request_of(learned, tmp_path / "p"))
    entries = read_predictions(tmp_path / "p" / "predictions.jsonl")
    assert [entry["index"] for entry in entries] == [0, 1, 2, 3]
    assert {entry["prompt"].split("user\n")[1].split("<|im_end|>")[0]: entry["prediction"] for entry in entries} == ANSWERS
    assert all(entry["ended"] and entry["prediction"] == entry["reference"] for entry in entries)
    found = json.loads((tmp_path / "p" / "scores.json").read_text())
    assert (found["samples"], found["with_reference"], found["cut"], found["exact"], found["rouge1"]) == (4, 4, 0, 100.0, 100.0)
    assert found["bleu"] == pytest.approx(100)
    # bytes of each answer and the one token that ends it: Blue. Green. White as milk. Black.
    assert found["answer_tokens"] == sum(len(answer) + 1 for answer in ANSWERS.values())
    assert found["perplexity"] == pytest.approx(math.exp(found["loss"]))
    printed = capsys.readouterr()
    assert "rouge1         100.0000" in printed.out
    assert "answered 4 of 4" in printed.err


def test_the_loss_is_that_of_plain_transformers_without_padding(learned: RunDir, tmp_path: Path) -> None:
    predict(load_run(learned), request_of(learned, tmp_path / "p"))
    model, tokenizer = AutoModelForCausalLM.from_pretrained(learned.model), AutoTokenizer.from_pretrained(learned.model)
    for entry in read_predictions(tmp_path / "p" / "predictions.jsonl"):
        prompt, answer = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (entry["prompt"], entry["reference"] + "<|im_end|>"))
        tokens = torch.tensor([prompt + answer])
        labels = torch.tensor([[-100] * len(prompt) + answer])
        assert entry["loss"] == pytest.approx(float(model(input_ids=tokens, labels=labels).loss) * len(answer), rel=1e-3, abs=1e-4)


def test_an_interrupted_prediction_asks_only_what_is_missing(learned: RunDir, tmp_path: Path) -> None:
    run, request, file = load_run(learned), request_of(learned, tmp_path / "p"), tmp_path / "p" / "predictions.jsonl"
    predict(run, request)
    whole = read_predictions(file)
    kept = json.dumps({**whole[2], "prediction": "kept from before"})
    file.write_text(f'{kept}\n{{"index": 0, "prom')  # what a killed process leaves
    predict(run, request)
    assert read_predictions(file) == [whole[0], whole[1], json.loads(kept), whole[3]]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_request_to_stop_keeps_what_was_answered(number: signal.Signals, learned: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes while the second batch is being answered."""
    asked: list[int] = []

    def interrupted(*arguments: Any) -> list[list[int]]:
        asked.append(len(arguments[2]))
        if len(asked) == 2:
            os.kill(os.getpid(), number)
        return generate(*arguments)

    monkeypatch.setattr("trainers.verbs.predict.generate", interrupted)
    run, request = load_run(learned), request_of(learned, tmp_path / "p")
    with pytest.raises(Kept, match=r"3 of 4 answers are kept in .*predictions\.jsonl") as raised:
        predict(run, request)
    assert cause_of(raised.value)[0] == 75
    predict(run, request)
    assert asked == [3, 1, 1]
    assert [entry["prediction"] for entry in read_predictions(tmp_path / "p" / "predictions.jsonl")] == [*ANSWERS.values()]


def test_a_folder_with_another_prediction_is_refused(learned: RunDir, tmp_path: Path) -> None:
    run, request = load_run(learned), request_of(learned, tmp_path / "p")
    predict(run, request)
    with pytest.raises(ValueError, match="different data or with different settings"):
        predict(run, replace(request, sampling=replace(GREEDY, seed=1)))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds files that are not a prediction"):
        predict(run, replace(request, target=str(tmp_path / "mine")))


def test_two_processes_do_not_predict_into_one_folder(learned: RunDir, tmp_path: Path) -> None:
    run, request = load_run(learned), request_of(learned, tmp_path / "p")
    predict(run, request)
    with (tmp_path / "p" / "settings.json").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="is in use by another process"):
            predict(run, request)


def test_sampling_is_repeatable_and_cut_answers_are_told(learned: RunDir, tmp_path: Path) -> None:
    hot = Sampling(max_new_tokens=5, temperature=20.0, top_p=1.0, seed=3)
    for name in ("one", "two"):
        predict(load_run(learned), request_of(learned, tmp_path / name, sampling=hot))
    one, two = (read_predictions(tmp_path / name / "predictions.jsonl") for name in ("one", "two"))
    assert one == two
    assert not all(entry["ended"] for entry in one)
    predict(load_run(learned), request_of(learned, tmp_path / "other", sampling=replace(hot, seed=4)))
    assert [e["prediction"] for e in read_predictions(tmp_path / "other" / "predictions.jsonl")] != [e["prediction"] for e in one]


def test_prompts_beyond_the_positions_of_the_model_are_refused_before_anything_is_asked(learned: RunDir, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"--max-new-tokens 500 that is more than the 512 positions .* Lower --max-new-tokens to 4\d\d"):
        predict(load_run(learned), request_of(learned, tmp_path / "p", sampling=replace(GREEDY, max_new_tokens=500)))
    assert not (tmp_path / "p" / "predictions.jsonl").exists()


def test_a_torn_checkpoint_is_not_asked(finished: Callable[[str, str], RunDir], tmp_path: Path) -> None:
    run_dir = finished("sft", "lora")
    trained = Trained(str(run_dir.path), str(run_dir.checkpoint(7)), 7)
    with pytest.raises(ValueError, match=r"step-7.manifest\.json is missing"):
        predict(load_run(run_dir), request_of(run_dir, tmp_path / "p", trained=trained))
    assert not (tmp_path / "p").exists()


def run_with(finished: Callable[[str, str], RunDir], **data: Any) -> Run:
    run = load_run(finished("sft", "lora"))
    return replace(run, data=replace(run.data, **data))


@pytest.mark.parametrize("changed", [{}, {"packing": True}])
def test_held_out_questions_are_those_that_training_evaluated(finished: Callable[[str, str], RunDir], changed: dict[str, Any]) -> None:
    run = run_with(finished, **changed)
    tokenizer = load_tokenizer(run)
    questions = held_out_questions(run, tokenizer)
    evaluation = build_datasets(run_with(finished), tokenizer).evaluation
    assert evaluation is not None
    newline = tokenizer("\n")["input_ids"]  # which ChatML writes after an answer
    assert [question.prompt_ids + question.answer_ids + newline for question in questions] == list(evaluation["input_ids"])
    assert len(questions) == 6  # a tenth of 64
    assert all(question.reference.endswith(".") and question.reference[0].isdigit() for question in questions)


def test_without_held_out_samples_it_says_what_can_be_asked(finished: Callable[[str, str], RunDir]) -> None:
    run = run_with(finished, validation_share=0.0)
    with pytest.raises(DataError, match=r"--data SET.*--all"):
        held_out_questions(run, load_tokenizer(run))


def test_named_sets_are_asked_whole_and_a_prompt_beyond_the_cutoff_is_named(finished: Callable[[str, str], RunDir]) -> None:
    run = run_with(finished)
    tokenizer = load_tokenizer(run)
    assert len(questions_of_sets(run.data, tokenizer)) == 64
    with pytest.raises(DataError, match=r"64 of 64 rows cannot be used(.|\n)*the prompt has \d+ tokens, more than data\.cutoff=8"):
        questions_of_sets(replace(run.data, cutoff=8), tokenizer)


def test_of_pairs_the_chosen_answer_is_the_reference_and_prompts_alone_have_none(learned: RunDir, tmp_path: Path) -> None:
    pair = {"prompt": "What is the sky?", "chosen": "Blue.", "rejected": "Green."}
    for name, row in (("pairs", pair), ("prompts", {"prompt": "What is the sky?"})):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row) + "\n")
    run = load_run(learned)
    run = replace(run, data=replace(run.data, sets=["pairs.jsonl", "prompts.jsonl"], folder=str(tmp_path)))
    predict(run, request_of(learned, tmp_path / "p"))
    one, two = read_predictions(tmp_path / "p" / "predictions.jsonl")
    assert one["prompt"] == two["prompt"]
    assert (one["prediction"], one["reference"], one["tokens"]) == ("Blue.", "Blue.", 6)  # five bytes and the end
    assert (two["prediction"], two["reference"], two["tokens"], two["loss"]) == ("Blue.", "", 0, 0.0)


@pytest.mark.parametrize(
    ("row", "answer", "reference"),
    [
        ({"input_ids": [65, 66, 67, 68], "labels": [-100, -100, 67, 68]}, [67, 68], "de"),
        ({"prompt_ids": [65, 66], "chosen_ids": [67], "rejected_ids": [68]}, [67], "d"),
        ({"prompt_ids": [65, 66], "completion_ids": [67], "label": True}, [67], "d"),
        ({"prompt_ids": [65, 66], "completion_ids": [67], "label": False}, [], ""),  # a bad answer is no reference
        ({"prompt_ids": [65, 66], "prompt": "cd", "answer": "7"}, [], "7"),
    ],
)
def test_a_row_of_each_kind_gives_its_prompt_and_its_good_answer(row: dict[str, Any], answer: list[int], reference: str) -> None:
    question = from_row(row, byte_tokenizer())
    assert (question.prompt_ids, question.answer_ids, question.reference) == ([65, 66], answer, reference)


def test_the_last_answer_is_the_last_run_of_learned_labels() -> None:
    assert last_answer([-100, 5, 6, -100, -100, 7, 8, -100]) == (5, 7)
    assert last_answer([1, 2, 3]) == (0, 3)
