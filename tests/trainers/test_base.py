"""The base of a run, asked as it was before training: what training itself measured of it, and its files."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from conf.request import Predict, Sampling, Trained
from conf.run_dir import RunDir, load_run
from tests.trainers.conftest import trained
from trainers.after_training.trained import load_tokenizer_of, load_trained
from trainers.verbs.predict import predict, read_predictions

GREEDY = Sampling(max_new_tokens=12, temperature=0.0, top_p=1.0, seed=0)


def base_of(run_dir: RunDir) -> Trained:
    return Trained(str(run_dir.path), f"the base of {run_dir.path}", None, base=True)


@pytest.mark.parametrize("regime", ["full", "lora"])
def test_the_base_answers_as_the_model_did_before_its_first_step(regime: str, tmp_path: Path) -> None:
    data = ("data=demo", "data.max_samples=64", f"data.cache={tmp_path}/cache", "evaluation.answers=6", "optim.lr=0.05")
    run_dir = trained(tmp_path / "run" / "once", *data, f"regime={regime}")
    before, after = (entry["answers"] for entry in json.loads(run_dir.samples.read_text()))
    predict(load_run(run_dir), Predict(base_of(run_dir), str(tmp_path / "p"), 8, True, GREEDY))
    said = {entry["prompt"]: entry["prediction"] for entry in read_predictions(tmp_path / "p" / "predictions.jsonl")}
    assert len(said) == 6

    def begins(one: str, other: str) -> bool:  # the limits of tokens differ
        return one.startswith(other) or other.startswith(one)

    assert all(begins(said[entry["prompt"]], entry["answer"]) for entry in before)
    assert not all(begins(said[entry["prompt"]], entry["answer"]) for entry in after)


def test_the_base_of_an_adapter_is_its_files(finished: Callable[[str, str], RunDir]) -> None:
    run_dir = finished("sft", "lora")
    run, tokens = load_run(run_dir), torch.arange(97, 113)[None]
    with torch.no_grad():
        ours, files = (model(tokens).logits for model in (load_trained(run, base_of(run_dir)), AutoModelForCausalLM.from_pretrained(run_dir.base)))
    assert torch.equal(ours, files)
    assert load_tokenizer_of(run, base_of(run_dir)).get_vocab() == load_tokenizer_of(run, Trained("", str(run_dir.model), None)).get_vocab()
