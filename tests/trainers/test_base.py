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
from trainers.verbs.predict import predict

GREEDY = Sampling(max_new_tokens=12, temperature=0.0, top_p=1.0, seed=0)


def base_of(run_dir: RunDir) -> Trained:
    return Trained(str(run_dir.path), f"the base of {run_dir.path}", None, base=True)


@pytest.mark.parametrize("regime", ["full", "lora"])
def test_the_base_has_the_loss_that_training_measured_before_its_first_step(regime: str, tmp_path: Path) -> None:
    data = ("data=demo", "data.max_samples=64", f"data.cache={tmp_path}/cache", "optim.lr=0.05")
    run_dir = trained(tmp_path / "run" / "once", *data, f"regime={regime}")
    measured = [entry["eval_loss"] for entry in map(json.loads, run_dir.progress.read_text().splitlines()) if "eval_loss" in entry]
    predict(load_run(run_dir), Predict(base_of(run_dir), str(tmp_path / "p"), 8, True, GREEDY))
    found = json.loads((tmp_path / "p" / "scores.json").read_text())
    assert (found["samples"], found["loss"]) == (6, pytest.approx(measured[0], rel=1e-4))
    assert measured[-1] < measured[0] - 1  # which the trained model has


def test_the_base_of_an_adapter_is_its_files(finished: Callable[[str, str], RunDir]) -> None:
    run_dir = finished("sft", "lora")
    run, tokens = load_run(run_dir), torch.arange(97, 113)[None]
    with torch.no_grad():
        ours, files = (model(tokens).logits for model in (load_trained(run, base_of(run_dir)), AutoModelForCausalLM.from_pretrained(run_dir.base)))
    assert torch.equal(ours, files)
    assert load_tokenizer_of(run, base_of(run_dir)).get_vocab() == load_tokenizer_of(run, Trained("", str(run_dir.model), None)).get_vocab()
