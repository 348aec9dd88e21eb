"""Runs of a quantised mixture from their start to what comes after: trained, gone on with, asked, exported."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState, GradientState
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from conf.request import Export, Predict, Sampling, Trained
from conf.run_dir import RunDir, load_run
from launcher.memory.estimate import estimate
from tests.described import with_facts
from tests.trainers.conftest import TINY, trained
from trainers.after_training.trained import load_trained
from trainers.ranks.place import Place
from trainers.run import train
from trainers.verbs.export import export
from trainers.verbs.predict import predict

MIXTURE = (
    *("model=mixtral_8x7b", "model.init=random", "model.path=null", "model.tokenizer=bytes", "model.architecture.num_hidden_layers=2"),
    *("model.architecture.num_attention_heads=4", "model.architecture.num_key_value_heads=2", "model.architecture.vocab_size=264"),
    *("model.architecture.num_local_experts=4", "regime=qlora", "regime.rank=4", "evaluation.answers=0", "optim.lr=0.02"),
)
TOKENS = torch.arange(97, 113)[None]
GREEDY = Sampling(max_new_tokens=4, temperature=0.0, top_p=1.0, seed=0)


@pytest.fixture(scope="module")
def mixture(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], RunDir]:
    """A run of two steps in so many bits."""
    root = tmp_path_factory.mktemp("mixtures")
    made: dict[int, RunDir] = {}

    def run_of(bits: int) -> RunDir:
        if bits not in made:
            data = ("data=demo", "data.max_samples=64", f"data.cache={root}/cache")
            made[bits] = trained(root / str(bits) / "once", *MIXTURE, f"regime.bits={bits}", *data)
        return made[bits]

    return run_of


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        output: torch.Tensor = model.eval()(input_ids=TOKENS).logits.float()
    return output


@pytest.mark.parametrize("bits", [4, 2])
def test_an_export_has_the_logits_that_were_trained_and_plain_transformers_loads_it(
    bits: int, mixture: Callable[[int], RunDir], tmp_path: Path
) -> None:
    run_dir = mixture(bits)
    weights = Trained(str(run_dir.path), str(run_dir.model), None)
    export(load_run(run_dir), Export(weights, "merged", str(tmp_path / "model"), "fp32", 10**9, None, True, None))

    back = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    ours = logits(load_trained(load_run(run_dir), weights))

    assert (logits(back) - ours).abs().max() < 1e-4
    adapter = load_file(run_dir.model / "adapter_model.safetensors")
    assert {name.rsplit(".", 3)[-3] for name in adapter} == {"q_proj", "k_proj", "v_proj", "o_proj"}
    assert any(tensor.abs().max() > 0 for name, tensor in adapter.items() if "lora_B" in name)


def test_the_base_is_drawn_again_as_training_had_it(mixture: Callable[[int], RunDir], tmp_path: Path) -> None:
    run_dir = mixture(4)
    measured = [entry["eval_loss"] for entry in map(json.loads, run_dir.progress.read_text().splitlines()) if "eval_loss" in entry]
    base = Trained(str(run_dir.path), f"the base of {run_dir.path}", None, base=True)

    predict(load_run(run_dir), Predict(base, str(tmp_path / "p"), 8, True, GREEDY))

    assert json.loads((tmp_path / "p" / "scores.json").read_text())["loss"] == pytest.approx(measured[0], rel=1e-4)
    assert not run_dir.base.exists()


def test_a_run_goes_on_from_its_checkpoint_to_the_same_adapter(mixture: Callable[[int], RunDir], tmp_path: Path) -> None:
    finished = mixture(4)
    run_dir = RunDir(tmp_path / "again")
    shutil.copytree(finished.path, run_dir.path)
    shutil.rmtree(run_dir.checkpoint(2))
    shutil.rmtree(run_dir.model)
    AcceleratorState._reset_state()
    GradientState._reset_state()

    assert train(load_run(run_dir), run_dir, Place(0, 0, 1)) == (0, "finished")

    ours, theirs = (load_file(folder.model / "adapter_model.safetensors") for folder in (run_dir, finished))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_the_disk_is_predicted_without_a_base(mixture: Callable[[int], RunDir]) -> None:
    run, facts = with_facts(*TINY, *MIXTURE, "data=demo", "data.max_samples=64")
    predicted = {term.name for term in estimate(run, facts).disk_terms}
    assert "base" not in predicted
    assert not mixture(4).base.exists()
