"""What an export would be, and what is refused before a process is started; numbers by hand."""

import json
import struct
from dataclasses import replace
from pathlib import Path

import pytest

from conf.run_dir import RunDir, save_run
from launcher.cli import main
from launcher.errors import ConfigError, DiskError, GateRefused
from launcher.verbs.export import (
    default_name,
    exported_bytes,
    form_of,
    free_host_memory,
    parsed_size,
    refuse_drawn_base,
    refuse_full_disk,
    refuse_small_host,
)
from launcher.verbs.weights import Found, local_base
from tests.described import described

GIB = 2**30


def found(folder: Path, *overrides: str, step: int | None = None, adapter: bool = False) -> Found:
    run = described("model=demo", "data=demo", "node=cpu", *overrides)
    run_dir = RunDir(folder)
    folder.mkdir(exist_ok=True)
    save_run(run, run_dir)
    result = Found(run_dir, run, step)
    result.weights.mkdir(parents=True)
    (result.weights / ("adapter_config.json" if adapter else "config.json")).write_text("{}")
    return result


def safetensors_of(path: Path, values: int) -> None:
    """A file of `values` numbers in fp32 (the format: length of the header, header, data)."""
    header = json.dumps({"w": {"dtype": "F32", "shape": [values], "data_offsets": [0, 4 * values]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4 * values))


def test_an_adapter_is_merged_unless_it_is_asked_for_alone(tmp_path: Path) -> None:
    adapter = found(tmp_path, "regime=lora", adapter=True)
    assert [form_of(adapter, wanted) for wanted in (None, "merged", "adapter")] == ["merged", "merged", "adapter"]


def test_whole_weights_have_nothing_to_merge(tmp_path: Path) -> None:
    whole = found(tmp_path, "regime=full")
    assert form_of(whole, None) == "copy"
    with pytest.raises(ConfigError, match=r"whole weights \(regime=full\).*Leave --merge and --adapter out"):
        form_of(whole, "merged")


def test_the_adapter_of_a_base_that_was_never_written_is_not_exported_alone(tmp_path: Path) -> None:
    mixture = ("model=mixtral_8x7b", "model.init=random", "model.path=null", "regime=qlora")
    drawn = found(tmp_path / "drawn", *mixture, adapter=True)
    with pytest.raises(ConfigError, match=r"quantised as it was drawn and is in no files, .* Use --merge\."):
        refuse_drawn_base(drawn)
    assert local_base(drawn) is None  # it is drawn again, so none is missed

    for kept in (("regime=lora",), (*mixture, "regime.dequantised=true")):
        written = found(tmp_path / kept[-1], *kept, adapter=True)
        refuse_drawn_base(written)
        assert local_base(written) == written.run_dir.base


def test_the_folder_is_named_for_what_it_holds(tmp_path: Path) -> None:
    adapter = found(tmp_path, "regime=lora", step=7, adapter=True)
    assert default_name(adapter, "merged", None) == "step-7-merged"
    assert default_name(adapter, "adapter", "bf16") == "step-7-adapter-bf16"
    assert default_name(replace(adapter, step=None), "copy", None) == "final"


@pytest.mark.parametrize(("text", "size"), [("5GB", 5 * 10**9), ("1.5GiB", 3 * 2**29), ("200MB", 2 * 10**8), ("4MiB", 2**22)])
def test_sizes_are_read_with_their_unit(text: str, size: int) -> None:
    assert parsed_size(text) == size


@pytest.mark.parametrize("text", ["5", "GB", "-1GB", "0GB", "5XB", "five GB"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=f"--shard-size {text} is not a size"):
        parsed_size(text)


def test_a_merged_model_takes_its_parameters_times_the_dtype(tmp_path: Path) -> None:
    adapter = found(tmp_path, "regime=lora", "training.precision=bf16_amp", adapter=True)
    # a layer: q, o 128x128, k, v 128x64, three 128x352, two norms; the tied embedding 264x128; one norm
    parameters = 2 * (2 * 128 * 128 + 2 * 128 * 64 + 3 * 128 * 352 + 2 * 128) + 264 * 128 + 128
    assert exported_bytes(adapter, "merged", None) == parameters * 2
    assert exported_bytes(adapter, "merged", "fp32") == parameters * 4


def test_a_copy_takes_what_its_files_take(tmp_path: Path) -> None:
    whole = found(tmp_path, "regime=full")
    safetensors_of(whole.weights / "model.safetensors", 1000)
    size = (whole.weights / "model.safetensors").stat().st_size
    assert exported_bytes(whole, "copy", None) == size
    assert exported_bytes(whole, "copy", "fp32") == 2 * size  # of bf16 files


def test_a_full_disk_is_told_before_anything_is_written(tmp_path: Path) -> None:
    refuse_full_disk(tmp_path / "x" / "y", 1)
    with pytest.raises(DiskError, match=r"needs 1073741824\.00 GiB; .* is free there\..*--to"):
        refuse_full_disk(tmp_path / "x" / "y", 2**60)
    assert list(tmp_path.iterdir()) == []


def test_merging_needs_the_weights_one_shard_and_the_libraries() -> None:
    # 16 GiB of weights, shards of 5 GiB, 1 GiB for the process: 22 GiB
    refuse_small_host(16 * GIB, 5 * GIB, 22 * GIB)
    with pytest.raises(GateRefused, match=r"needs 22\.00 GiB .*21\.99 GiB is available.*--adapter"):
        refuse_small_host(16 * GIB, 5 * GIB, 22 * GIB - 10 * 2**20)
    refuse_small_host(2 * GIB, 5 * GIB, 5 * GIB)  # one file of 2 GiB


def test_free_host_memory_is_at_most_what_there_is() -> None:
    total = next(int(line.split()[1]) * 1024 for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal"))
    assert 0 < free_host_memory() <= total


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--to", "there"), 2, "there exists already, and nothing is overwritten"),
        (("--push", "noslash"), 2, "--push noslash is not a hub repository. Use the form owner/name"),
        (("--shard-size", "big"), 2, "--shard-size big is not a size"),
        (("--adapter",), 2, "holds whole weights"),
    ],
)
def test_a_mistake_is_one_message_and_leaves_nothing(
    options: tuple[str, ...], code: int, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = found(tmp_path, "regime=full")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    before = sorted(tmp_path.rglob("*"))
    assert main(["export", str(run.run_dir.path), *options]) == code
    assert message in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before
