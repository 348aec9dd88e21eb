"""A file of a checkpoint that would run a command when it is loaded: refused by name, and nothing runs."""

import json
import os
import pickle
from pathlib import Path

import numpy
import pytest
import torch
import torch.distributed.checkpoint as dcp
from deepspeed.runtime.checkpoint_engine.torch_checkpoint_engine import TorchCheckpointEngine
from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler, LossScaler
from deepspeed.runtime.zero.config import ZeroStageEnum
from deepspeed.utils.tensor_fragment import fragment_address
from safetensors.torch import load_file

from conf.exit_codes import UNSAFE
from trainers.checkpoints import pickles
from trainers.checkpoints.pickles import admit, load_only_weights
from trainers.errors import UnsafeFile
from trainers.ranks.causes import cause_of

KINDS = (  # every file of a checkpoint that some library loads as a pickle
    "optimizer.pt",
    "scheduler.pt",
    "scaler.pt",
    "rng_state.pth",
    "rng_state_0.pth",
    "optimizer.bin",
    "pytorch_model.bin",
    "adapter_model.bin",
    "pytorch_model_fsdp.bin",
    "optimizer_0/.metadata",
    "optimizer_0/__0_0.distcp",
    "global_step2/zero_pp_rank_0_mp_rank_00_optim_states.pt",
    "global_step2/bf16_zero_pp_rank_1_mp_rank_00_optim_states.pt",
    "global_step2/zero_pp_rank_0_mp_rank_00_model_states.pt",
    "global_step2/mp_rank_00_model_states.pt",
    "a_file_of_a_later_version",
)


class Payload:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch {self.mark}",)


@pytest.fixture(autouse=True)
def only_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(pickles.FORCED, "0")
    load_only_weights()


def states() -> dict[str, object]:
    """What the libraries keep beside tensors, by the file that holds it."""
    scaler = LossScaler(scale=1)
    optimizer = {"loss_scaler": scaler, "dynamic": DynamicLossScaler(2.0**16, 2.0, 1000, 1.0, 2), "zero_stage": ZeroStageEnum.gradients}
    return {
        "global_step2/zero_pp_rank_0_mp_rank_00_optim_states.pt": {
            "optimizer_state_dict": {**optimizer, "param_slice_mappings": [{"weight": fragment_address(numel=4, start=0)}]},
            "flat": torch.arange(4.0),
        },
        "rng_state_0.pth": {"numpy": numpy.random.get_state(), "cpu": torch.random.get_rng_state()},
        "optimizer.pt": {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]},
    }


def written(folder: Path, name: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def test_what_the_libraries_write_is_loaded_by_deepspeeds_own_engine(tmp_path: Path) -> None:
    for name, state in states().items():
        torch.save(state, written(tmp_path, name))
    (tmp_path / "trainer_state.json").write_text("{}")
    admit(tmp_path)
    shard = TorchCheckpointEngine().load(str(tmp_path / "global_step2/zero_pp_rank_0_mp_rank_00_optim_states.pt"))
    assert type(shard["optimizer_state_dict"]["loss_scaler"]) is LossScaler
    assert shard["optimizer_state_dict"]["param_slice_mappings"][0]["weight"].numel == 4
    assert shard["flat"].tolist() == [0.0, 1.0, 2.0, 3.0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", ["torch.save", "torch.save without zip", "pickle"])
def test_a_command_in_any_file_is_named_and_not_run(kind: str, form: str, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    path = written(tmp_path / "step-2", kind)
    state = {"state": torch.ones(2), "further": Payload(mark)}
    if form == "pickle":
        path.write_bytes(pickle.dumps({"further": Payload(mark)}))
    else:
        with path.open("wb") as file:
            torch.save(state, file, _use_new_zipfile_serialization=form == "torch.save")
    with pytest.raises(UnsafeFile) as refused:
        admit(tmp_path / "step-2")
    code, message = cause_of(refused.value)
    assert code == UNSAFE
    assert message.startswith(f"{path} ")
    if kind.endswith(".metadata"):  # a bare pickle, which torch loads without its list
        assert ("system, which no state" if form == "pickle" else "is not an index that torch writes") in message
    else:
        assert ("system, which no state" if form == "torch.save" else "is not a file that torch.save writes") in message
    with pytest.raises(pickle.UnpicklingError) as not_loaded:
        torch.load(path, weights_only=False)  # as DeepSpeed asks
    assert cause_of(not_loaded.value)[0] == UNSAFE
    assert not mark.exists()


def test_shards_of_a_distributed_checkpoint_are_admitted_and_loaded(tmp_path: Path) -> None:
    state = {
        "optimizer": {"state": {"w": {"exp_avg": torch.arange(4.0), "step": torch.tensor(2.0)}}, "param_groups": [{"lr": 0.1, "betas": (0.9, 0.99)}]}
    }
    dcp.save(state, storage_writer=dcp.FileSystemWriter(tmp_path / "optimizer_0"), no_dist=True)
    admit(tmp_path)
    empty = {
        "optimizer": {"state": {"w": {"exp_avg": torch.zeros(4), "step": torch.tensor(0.0)}}, "param_groups": [{"lr": 0.0, "betas": (0.0, 0.0)}]}
    }
    dcp.load(empty, storage_reader=dcp.FileSystemReader(tmp_path / "optimizer_0"), no_dist=True)
    assert str(empty) == str(state)


def test_a_command_among_the_shards_is_named_and_not_run(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    state = {"weights": torch.ones(2), "param_groups": [{"lr": 0.1, "further": Payload(mark)}]}
    dcp.save(state, storage_writer=dcp.FileSystemWriter(tmp_path / "optimizer_0"), no_dist=True)
    with pytest.raises(UnsafeFile, match=r"__0_0\.distcp names posix\.system, which no state"):
        admit(tmp_path)
    with pytest.raises(dcp.CheckpointException, match="Weights only load failed"):
        dcp.load(state, storage_reader=dcp.FileSystemReader(tmp_path / "optimizer_0"), no_dist=True)
    assert not mark.exists()


def test_without_the_guard_the_payload_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the tests above would show nothing."""
    monkeypatch.setenv(pickles.FORCED, "0")
    torch.save({"further": Payload(tmp_path / "ran")}, tmp_path / "optimizer.pt")
    torch.load(tmp_path / "optimizer.pt", weights_only=False)
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 and no more", b"\x80\x02c"])
def test_a_file_whose_names_cannot_be_listed_is_refused(damage: bytes, tmp_path: Path) -> None:
    (tmp_path / "optimizer.pt").write_bytes(damage)
    with pytest.raises(UnsafeFile, match=r"optimizer\.pt "):
        admit(tmp_path)


def test_the_variable_that_allows_everything_is_not_followed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv(pickles.UNSAFE, "1")
    load_only_weights()
    assert f"{pickles.UNSAFE} is set in the environment and is not followed" in capsys.readouterr().out
    assert pickles.UNSAFE not in os.environ


def test_safetensors_whose_length_looks_like_a_pickle_are_admitted(tmp_path: Path) -> None:
    """The file begins with the length of its header: 0x0280 bytes are written as 80 02, as protocol 2 of pickle begins."""
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).ljust(0x0280).encode()
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    assert load_file(tmp_path / "model.safetensors")["w"].shape == (1,)
    admit(tmp_path)
