"""Exports of runs whose weights were split over two ranks."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from conf.request import Export, Trained
from conf.run_dir import RunDir, load_run
from trainers.checkpoints.pickles import admit
from trainers.regimes.qlora import without_cpu_packing
from trainers.verbs.export import export

pytestmark = [pytest.mark.distributed, pytest.mark.long]

TOKENS = torch.arange(97, 113)[None]
REGIMES = ("full_fp32", "full_amp", "freeze", "lora", "qlora4")


@pytest.fixture(scope="module")
def split(cells: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], RunDir]:
    """The run folder of a regime under ZeRO-3."""
    members = [cells.Cell(regime, "zero3") for regime in REGIMES]
    left: dict[Any, Any] = cells.run_cells(members, tmp_path_factory.mktemp("zero3"), "torchrun")
    by_regime = {cell.regime: result for cell, result in left.items()}
    assert all([entry["code"] for entry in result.exits] == [0, 0] for result in by_regime.values())
    return lambda regime: by_regime[regime].folder


def exported(run_dir: RunDir, target: Path, form: str, step: int | None = None) -> Path:
    trained = Trained(str(run_dir.path), str(run_dir.model if step is None else run_dir.checkpoint(step)), step)
    export(load_run(run_dir), Export(trained, form, str(target), "fp32", 10**9, None, True, None))
    return target


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        output: torch.Tensor = model.eval()(input_ids=TOKENS).logits.float()
    return output


def test_a_full_checkpoint_of_zero3_is_exported_as_the_weights_that_its_optimizer_holds(split: Callable[[str], RunDir], tmp_path: Path) -> None:
    from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

    run_dir = split("full_fp32")
    model = AutoModelForCausalLM.from_pretrained(exported(run_dir, tmp_path / "model", "copy", step=2))
    admit(run_dir.checkpoint(2))  # states are loaded without running code, whatever DeepSpeed asks for
    gathered = get_fp32_state_dict_from_zero_checkpoint(run_dir.checkpoint(2))
    assert all(torch.equal(parameter, gathered[name]) for name, parameter in model.named_parameters())


@pytest.mark.parametrize("regime", ["full_amp", "freeze"])
def test_whole_weights_of_zero3_load_back(split: Callable[[str], RunDir], regime: str, tmp_path: Path) -> None:
    run_dir = split(regime)
    model = AutoModelForCausalLM.from_pretrained(exported(run_dir, tmp_path / "model", "copy"))
    expected = AutoModelForCausalLM.from_pretrained(run_dir.model, dtype=torch.float32)
    assert torch.equal(logits(model), logits(expected))


def test_adapters_of_zero3_are_merged(split: Callable[[str], RunDir], tmp_path: Path) -> None:
    quantised = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16, bnb_4bit_use_double_quant=True
    )
    for regime, quantization, tolerance in (("lora", None, 2e-5), ("qlora4", quantised, 0.1)):  # a bf16 product of 4-bit weights against one in fp32
        run_dir = split(regime)
        model = AutoModelForCausalLM.from_pretrained(exported(run_dir, tmp_path / regime, "merged"))
        dtype = torch.float32 if quantization is None else torch.bfloat16
        base = AutoModelForCausalLM.from_pretrained(run_dir.base, dtype=dtype, quantization_config=quantization)
        untrained = logits(without_cpu_packing(base))
        unmerged = PeftModel.from_pretrained(base, run_dir.model)
        assert (logits(model) - logits(unmerged)).abs().max() <= tolerance
        assert (logits(model) - untrained).abs().max() > 2 * tolerance
