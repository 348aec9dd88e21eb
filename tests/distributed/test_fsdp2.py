"""Every stage under FSDP2 on two ranks: what is learned is what plain data parallelism learns, goes on from a checkpoint, and can be exported."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from peft import PeftModel
from reward_models import save_reward_model
from transformers import AutoConfig, AutoModelForCausalLM

from conf import journal
from conf.exit_codes import NOT_A_NUMBER
from conf.request import Export, Trained
from conf.run_dir import RunDir, load_run
from trainers.model.tokenizer import load_tokenizer
from trainers.verbs.export import export

pytestmark = [pytest.mark.distributed, pytest.mark.long]

SCRIPT = Path(__file__).with_name("run_fsdp_cells.py")
STAGES = ("pt", "sft", "rm", "dpo", "kto", "orpo", "simpo", "ppo", "grpo")
CELLS = [(stage, regime) for stage in STAGES for regime in ("full_fp32", "lora")]
AUTOCAST = [(stage, "full_amp") for stage in STAGES]
ANSWERS = ("stage.response_length=6", "training.gradient_checkpointing=false", "data.validation_share=0")
FURTHER = {"ppo": (*ANSWERS, "stage.epochs=2"), "grpo": (*ANSWERS, "stage.generations=4", "stage.rewards=[]", "stage.kl_coef=0.1")}
TOKENS = torch.arange(97, 113)[None]

Results = dict[tuple[str, str], Any]


@pytest.fixture(scope="module")
def cell_of(cells: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str, str], Any]:
    judge = save_reward_model(tmp_path_factory.mktemp("judge") / "judge")

    def cell(stage: str, regime: str, sharding: str) -> Any:
        further = (*FURTHER[stage], f"stage.reward_model={judge}") if stage in FURTHER else ()
        return cells.Cell(regime, sharding, stage=stage, further=further)

    return cell


@pytest.fixture(scope="module")
def split(cells: ModuleType, cell_of: Callable[[str, str, str], Any], tmp_path_factory: pytest.TempPathFactory) -> Results:
    members = {cell: cell_of(*cell, "fsdp2") for cell in (*CELLS, *AUTOCAST)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cells, "SCRIPT", SCRIPT)
        left = cells.run_cells(list(members.values()), tmp_path_factory.mktemp("fsdp2"), "torchrun")
    return {cell: left[member] for cell, member in members.items()}


@pytest.fixture(scope="module")
def whole(cells: ModuleType, cell_of: Callable[[str, str, str], Any], tmp_path_factory: pytest.TempPathFactory) -> Results:
    members = {cell: cell_of(*cell, "ddp") for cell in CELLS}
    left = cells.run_cells(list(members.values()), tmp_path_factory.mktemp("ddp"), "torchrun")
    return {cell: left[member] for cell, member in members.items()}


@pytest.mark.parametrize("cell", [*CELLS, *AUTOCAST], ids="-".join)
def test_a_cell_trains_on_split_weights_and_saves(split: Results, cell: tuple[str, str]) -> None:
    left = split[cell]
    log = left.folder.rank_log(0)
    assert [entry["code"] for entry in left.exits] == [0, 0], (left.exits, log.read_text()[-2500:] if log.exists() else "")
    assert all(layout["sharded_parameters"] > 0 for layout in left.layouts)
    assert len(left.losses) == 3
    assert (left.folder.model / ("adapter_model.safetensors" if "lora" in cell[1] else "model.safetensors")).is_file()


@pytest.mark.parametrize("cell", CELLS, ids="-".join)
def test_split_weights_learn_what_whole_ones_learn(split: Results, whole: Results, cell: tuple[str, str]) -> None:
    assert split[cell].losses == pytest.approx(whole[cell].losses, rel=1e-3, abs=1e-5)


def test_weights_that_stay_gathered_until_the_backward_pass_change_nothing(cells: ModuleType, tmp_path: Path) -> None:
    """In two micro-batches a step: what is kept of one must not be that of the step before."""
    found = {}
    for freed in ("true", "false"):
        further = ("training.micro_batch=2", "training.accumulation=2", f"sharding.reshard_after_forward={freed}")
        root = tmp_path / freed
        root.mkdir()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(cells, "SCRIPT", SCRIPT)
            [left] = cells.run_cells([cells.Cell("full_fp32", "fsdp2", further=further)], root, "torchrun").values()
        assert load_run(left.folder).sharding.reshard_after_forward is (freed == "true")
        found[freed] = left.losses
    assert len(found["true"]) == 3
    assert found["false"] == found["true"]


@pytest.mark.parametrize(("stage", "regime"), [("pt", "full_amp"), ("dpo", "lora"), ("rm", "full_fp32")])  # of a score one rank has no row
def test_a_run_that_goes_on_from_its_second_step_repeats_the_third(
    cells: ModuleType, cell_of: Callable[[str, str, str], Any], tmp_path: Path, stage: str, regime: str
) -> None:
    member = cell_of(stage, regime, "fsdp2")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cells, "SCRIPT", SCRIPT)
        left = cells.run_cells([member], tmp_path, "torchrun")
        cells.resume_cells(left, tmp_path, "torchrun", step=2)
    losses = left[member].losses
    assert len(losses) == 4
    assert losses[3] == losses[2]


@pytest.mark.parametrize("regime", ["full_fp32", "lora"])
def test_a_checkpoint_of_an_earlier_version_with_whole_tensors_is_loaded(cells: ModuleType, tmp_path: Path, regime: str) -> None:
    member = cells.Cell(regime, "fsdp2")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cells, "SCRIPT", Path(__file__).with_name("run_earlier_fsdp_cells.py"))
        left = cells.run_cells([member], tmp_path, "torchrun")
        saved = left[member].folder.checkpoint(2)
        assert {"pytorch_model_fsdp.bin", "optimizer.bin"} <= {path.name for path in saved.iterdir()}
        patch.setattr(cells, "SCRIPT", SCRIPT)
        cells.resume_cells(left, tmp_path, "torchrun", step=2)
    losses = left[member].losses
    assert len(losses) == 4, left[member].folder.rank_log(0).read_text()[-2500:]
    assert losses[3] == losses[2]
    assert not (left[member].folder.checkpoint(3) / "optimizer.bin").exists()  # the next one is in shards


def test_a_run_that_went_back_twice_goes_on_with_a_quarter_of_the_rate(
    cells: ModuleType, cell_of: Callable[[str, str, str], Any], tmp_path: Path
) -> None:
    """The ranks' part of training.on_nan=rollback: the supervisor's is the same under every sharding (test_finite.py)."""
    member = cell_of("sft", "lora", "fsdp2")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cells, "SCRIPT", SCRIPT)
        left = cells.run_cells([member], tmp_path, "torchrun")
        for _ in range(2):
            journal.record(left[member].folder, journal.Failed(NOT_A_NUMBER, "the loss is NaN"))
        cells.resume_cells(left, tmp_path, "torchrun", step=2)
    rates = [entry["lr"] for entry in map(json.loads, left[member].folder.progress.read_text().splitlines()) if "lr" in entry]
    assert len(rates) == 4
    assert rates[3] == pytest.approx(rates[2] / 4)


def test_a_run_that_reads_its_shares_learns_what_one_of_whole_weights_learns_and_goes_on(cells: ModuleType, tmp_path: Path) -> None:
    """Its optimizer steps the shares that were read, not what the model was built of."""
    torch.manual_seed(0)
    settled = cells.Cell("full_fp32", "ddp").settled
    config = AutoConfig.for_model(**settled.model.architecture)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "files")
    load_tokenizer(settled).save_pretrained(tmp_path / "files")
    further = ("model.init=pretrained", f"model.path={tmp_path / 'files'}")
    split, whole = (cells.Cell("full_fp32", sharding, further=further) for sharding in ("fsdp2", "ddp"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cells, "SCRIPT", SCRIPT)
        left = cells.run_cells([split], tmp_path, "torchrun")
        made = left[split].losses
        cells.resume_cells(left, tmp_path, "torchrun", step=2)
    expected = cells.run_cells([whole], tmp_path, "torchrun")[whole].losses
    assert made == pytest.approx(expected, rel=1e-4)
    assert left[split].losses[3] == made[2]


@pytest.mark.parametrize("ranks", [1, 3])
def test_a_run_goes_on_with_another_number_of_ranks(cells: ModuleType, tmp_path: Path, ranks: int) -> None:
    """Each of two ranks saved its part of weights and states; torch's distributed checkpoints lay them out anew."""
    before = {regime: cells.Cell(regime, "fsdp2", further=("training.micro_batch=6",)) for regime in ("full_fp32", "lora")}
    portion = (f"cluster.ranks_per_node={ranks}", f"training.micro_batch={12 // ranks}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cells, "SCRIPT", SCRIPT)
        left = cells.run_cells(list(before.values()), tmp_path, "torchrun")
        after = {regime: cells.Cell(regime, "fsdp2", further=portion) for regime in before}
        resumed = {regime: cells.going_on(cell, left[before[regime]], step=2) for regime, cell in after.items()}
        cells.train_folders(after["lora"], list(resumed.values()), tmp_path, "torchrun")
    for regime, cell in before.items():
        assert [entry["code"] for entry in resumed[regime].exits] == [0] * ranks, resumed[regime].folder.rank_log(0).read_text()[-2500:]
        assert resumed[regime].losses == pytest.approx(left[cell].losses[2:], rel=1e-4)


def test_a_loss_is_not_rounded_to_the_16_bits_that_are_computed_in(split: Results) -> None:
    """Policy and reference begin as one, with weights in fp32 and in bf16: ln 2, where bf16 would say 0.6914 or 0.6953."""
    assert split["dpo", "full_amp"].losses[0] == pytest.approx(math.log(2), abs=5e-4)


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        output: torch.Tensor = model.eval()(input_ids=TOKENS).logits.float()
    return output


def exported(run_dir: RunDir, target: Path, form: str, step: int | None) -> Path:
    trained = Trained(str(run_dir.path), str(run_dir.model if step is None else run_dir.checkpoint(step)), step)
    export(load_run(run_dir), Export(trained, form, str(target), "fp32", 10**9, None, True, None))
    return target


@pytest.mark.parametrize("regime", ["full_fp32", "full_amp"])
@pytest.mark.parametrize("stage", ["sft", "dpo"])
def test_whole_weights_load_back(split: Results, stage: str, regime: str, tmp_path: Path) -> None:
    run_dir = split[stage, regime].folder
    model = AutoModelForCausalLM.from_pretrained(exported(run_dir, tmp_path / "model", "copy", step=None))
    expected = AutoModelForCausalLM.from_pretrained(run_dir.model, dtype=torch.float32)
    assert torch.equal(logits(model), logits(expected))
    earlier = AutoModelForCausalLM.from_pretrained(exported(run_dir, tmp_path / "earlier", "copy", step=2))
    assert (logits(model) - logits(earlier)).abs().max() > 1e-3  # the third step


@pytest.mark.parametrize("stage", ["sft", "dpo"])
def test_adapters_are_merged(split: Results, stage: str, tmp_path: Path) -> None:
    run_dir = split[stage, "lora"].folder
    model = AutoModelForCausalLM.from_pretrained(exported(run_dir, tmp_path / "model", "merged", step=None))
    base = AutoModelForCausalLM.from_pretrained(run_dir.base, dtype=torch.float32)
    untrained = logits(base)
    torch.testing.assert_close(logits(model), logits(PeftModel.from_pretrained(base, run_dir.model)), rtol=0, atol=2e-5)
    assert (logits(model) - untrained).abs().max() > 4e-5


def test_an_exported_run_is_what_plain_data_parallelism_exports(split: Results, whole: Results, tmp_path: Path) -> None:
    found = [
        logits(AutoModelForCausalLM.from_pretrained(exported(results["sft", "full_fp32"].folder, tmp_path / name, "copy", step=None)))
        for name, results in (("split", split), ("whole", whole))
    ]
    torch.testing.assert_close(*found, rtol=0, atol=2e-3)
