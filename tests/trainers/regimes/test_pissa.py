"""An adapter that starts from its base's main directions changes nothing at the start, and is saved as one for the whole base."""

from pathlib import Path

import pytest
import torch
from peft import PeftConfig, PeftModel
from transformers import AutoModelForCausalLM

from conf.run_dir import RunDir
from conf.schema import Run
from tests.described import described
from trainers.after_training.trained import is_adapter
from trainers.ranks.place import Place
from trainers.regimes import prepare_model, with_adapter
from trainers.run import train

PROMPT = torch.arange(3, 35).reshape(2, 16)
ROUNDED = 1e-4  # logits near 1 over a decomposition in fp32


def run_of(*overrides: str) -> Run:
    small = ["model.architecture.hidden_size=32", "model.architecture.intermediate_size=64", "data.max_samples=20", "data.cutoff=64"]
    node = ["node=cpu", "cluster.ranks_per_node=1", "training.precision=fp32", "training.micro_batch=2", "training.max_steps=2"]
    return described("model=demo", "data=demo", *small, *node, "regime=lora", "regime.rank=4", "optim.lr=0.01", "optim.warmup=0", *overrides)


def logits(model: torch.nn.Module) -> torch.Tensor:
    model.eval()
    with torch.no_grad():
        return model(input_ids=PROMPT).logits


@pytest.mark.parametrize("init", ["pissa", "pissa_niter_4"])
def test_the_adapter_starts_as_a_part_of_its_base(init: str, tmp_path: Path) -> None:
    run = run_of(f"regime.init={init}")
    model = with_adapter(prepare_model(run, AutoModelForCausalLM, tmp_path / "base"), run)
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    torch.testing.assert_close(logits(model), logits(base), rtol=0, atol=ROUNDED)
    layer = model.base_model.model.model.layers[0].mlp.up_proj
    assert not torch.allclose(layer.base_layer.weight, base.model.layers[0].mlp.up_proj.weight, atol=0.01)
    product = layer.scaling["default"] * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    torch.testing.assert_close(layer.base_layer.weight + product, base.model.layers[0].mlp.up_proj.weight, rtol=0, atol=ROUNDED)


@pytest.mark.parametrize("rslora", ["false", "true"])
def test_the_saved_adapter_applies_to_the_base_as_it_was_loaded(rslora: str, tmp_path: Path) -> None:
    run = run_of("regime.init=pissa", f"regime.rslora={rslora}", "evaluation.interval=0", "checkpoint.interval=2", "evaluation.answers=0")
    run_dir = RunDir(tmp_path / "run")
    run_dir.path.mkdir()
    assert train(run, run_dir, Place(0, 0, 1)) == (0, "finished")
    assert is_adapter(run_dir.checkpoint(2))
    base = AutoModelForCausalLM.from_pretrained(run_dir.base)
    untouched = logits(base)
    trained = with_adapter(prepare_model(run, AutoModelForCausalLM, run_dir.base), run)
    trained.load_adapter(str(run_dir.checkpoint(2)), "default")
    loaded = PeftModel.from_pretrained(base, run_dir.model)
    torch.testing.assert_close(logits(loaded), logits(trained), rtol=0, atol=ROUNDED)
    assert (logits(loaded) - untouched).abs().max() > 0.01
    assert PeftConfig.from_pretrained(run_dir.model).r == 8
