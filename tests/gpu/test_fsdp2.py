"""On two GPUs: every stage under FSDP2, and exports of its runs."""

import math
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from peft import PeftModel
from reward_models import save_reward_model
from transformers import AutoModelForCausalLM

from conf.request import Export, Trained
from conf.run_dir import RunDir, load_run
from trainers.verbs.export import export

pytestmark = pytest.mark.gpu(2)

STAGES = ("pt", "sft", "rm", "dpo", "kto", "orpo", "simpo", "ppo", "grpo")
CELLS = [(stage, regime) for stage in STAGES for regime in ("full_amp", "lora", "qlora4")]
ANSWERS = ("stage.response_length=6", "training.gradient_checkpointing=false", "data.validation_share=0")
PACKED = ("data.packing=true", "training.attention=varlen")  # its kernels take 16 bits alone
FURTHER = {
    "ppo": (*ANSWERS, "stage.epochs=2"),
    "grpo": (*ANSWERS, "stage.generations=4", "stage.rewards=[]", "stage.kl_coef=0.1"),
}
TOKENS = torch.arange(97, 113)[None]

Results = dict[tuple[str, str], Any]


@pytest.fixture(scope="module")
def results(cells: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Results:
    root = tmp_path_factory.mktemp("fsdp2")
    judge = f"stage.reward_model={save_reward_model(root / 'judge')}"

    def further(stage: str, regime: str) -> tuple[str, ...]:
        if stage in FURTHER:
            return (*FURTHER[stage], judge)
        return PACKED if stage == "pt" and regime != "lora" else ()  # lora is in fp32 here

    members = {cell: cells.Cell(cell[1], "fsdp2", "auto", cell[0], further(*cell)) for cell in CELLS}
    left = cells.run_cells(list(members.values()), root, "torchrun")
    return {cell: left[member] for cell, member in members.items()}


@pytest.mark.parametrize("cell", CELLS, ids="-".join)
def test_a_cell_trains_on_split_weights_and_saves(results: Results, cell: tuple[str, str]) -> None:
    left = results[cell]
    log = left.folder.rank_log(0)
    assert [entry["code"] for entry in left.exits] == [0, 0], (left.exits, log.read_text()[-2500:] if log.exists() else "")
    assert {layout["device"] for layout in left.layouts} == {"cuda:0", "cuda:1"}
    assert all(layout["sharded_parameters"] > 0 for layout in left.layouts)
    assert len(left.losses) == 3
    assert all(math.isfinite(loss) for loss in left.losses)
    assert (left.folder.model / ("adapter_model.safetensors" if "lora" in cell[1] else "model.safetensors")).is_file()


def test_the_first_loss_of_dpo_is_not_rounded_to_16_bits(results: Results) -> None:
    """Policy and reference begin as one, with weights in fp32 and in bf16: ln 2, where bf16 would say 0.6914 or 0.6953."""
    assert results["dpo", "full_amp"].losses[0] == pytest.approx(math.log(2), abs=5e-4)


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        output: torch.Tensor = model.eval()(input_ids=TOKENS).logits.float()
    return output


def exported(run_dir: RunDir, target: Path, form: str) -> Path:
    export(load_run(run_dir), Export(Trained(str(run_dir.path), str(run_dir.model), None), form, str(target), "fp32", 10**9, None, True, None))
    return target


@pytest.mark.parametrize("stage", ["sft", "dpo"])
def test_whole_weights_load_back(results: Results, stage: str, tmp_path: Path) -> None:
    run_dir = results[stage, "full_amp"].folder
    model = AutoModelForCausalLM.from_pretrained(exported(run_dir, tmp_path / "model", "copy"))
    assert torch.equal(logits(model), logits(AutoModelForCausalLM.from_pretrained(run_dir.model, dtype=torch.float32)))


@pytest.mark.parametrize("stage", ["sft", "dpo"])
def test_adapters_are_merged(results: Results, stage: str, tmp_path: Path) -> None:
    run_dir = results[stage, "lora"].folder
    model = AutoModelForCausalLM.from_pretrained(exported(run_dir, tmp_path / "model", "merged"))
    base = AutoModelForCausalLM.from_pretrained(run_dir.base, dtype=torch.float32)
    untrained = logits(base)
    torch.testing.assert_close(logits(model), logits(PeftModel.from_pretrained(base, run_dir.model)), rtol=0, atol=2e-5)
    assert (logits(model) - untrained).abs().max() > 4e-5
