"""Sizes: how they may be written, what a run then holds, and what is refused."""

from pathlib import Path

import pytest

from conf.run_dir import RunDir, save_run
from conf.schema import Slurm
from conf.sizes import KEPT_IN, bytes_of
from launcher.composition.compose import compose
from launcher.composition.recorded import resumed_run
from launcher.errors import ConfigError
from launcher.rules.ranges import check_values
from launcher.rules.slurm import refuse_slurm_values, slurm_size
from tests.described import described

DEMO = ["model=demo", "data=demo"]
ON_SLURM = [*DEMO, "cluster=slurm", "node=h100_80"]


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("48GB", 48_000_000_000),
        ("80GiB", 85_899_345_920),
        ("500MB", 500_000_000),
        ("64G", 68_719_476_736),  # as Slurm and GNU's tools read it
        ("1.5 tb", 1_500_000_000_000),
        ("81559MiB", 85_520_809_984),  # an H100 as nvidia-smi shows it
        ("7", 7),
    ],
)
def test_a_size_is_a_number_and_a_unit(text: str, size: int) -> None:
    assert bytes_of(text, bare=1) == size


@pytest.mark.parametrize("text", ["", "GB", "-5GB", "5 5GB", "5XB", "1e3GB", "5", "5GBs"])
def test_anything_else_is_not(text: str) -> None:
    assert bytes_of(text) is None


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("node.gpu_memory=48GB", 48_000_000_000),
        ("node.gpu_memory=85899345920", 85_899_345_920),  # a bare number counts bytes, as it always did
        ("node.gpu_memory=4.8e10", 48_000_000_000),
        ("node.host_memory=500GiB", 536_870_912_000),
        ("node.host_memory=null", None),
        ("sharding.bucket_mb=100", 100),  # a bare number counts MiB
        ("sharding.bucket_mb=1GiB", 1024),
    ],
)
def test_a_run_holds_whole_numbers(given: str, kept: int | None) -> None:
    group, field = given.split("=")[0].split(".")
    held = vars(getattr(compose([*DEMO, given]), group))[field]
    assert held == kept
    assert type(held) is type(kept)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("node.gpu_memory=48", "node.gpu_memory=48 is out of range."),  # 48 bytes
        ("node.gpu_memory=81559", "Write the unit: node.gpu_memory=80GB, 80GiB or 81559MiB"),
        ("node.gpu_memory=80TB", "node.gpu_memory=80000000000000 is out of range."),
        ("node.host_memory=512", "a number without a unit counts bytes"),
        ("node.gpu_memory=48XB", "node.gpu_memory=48XB is not a size. Write a number and a unit, such as 48GB, 80GiB or 500MB."),
        ("node.gpu_memory=nan", "node.gpu_memory=nan is not a size."),
        ("node.gpu_memory=true", "node.gpu_memory=True is not a size."),
        ("sharding.bucket_mb=25MB", "sharding.bucket_mb=25MB is not a whole number of MiB. Write sharding.bucket_mb=24MiB."),
    ],
)
def test_what_no_machine_has_is_refused_with_the_unit(given: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_values(compose([*DEMO, given]))
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("memory", "written"),
    [("64GB", "61036M"), ("64GiB", "64G"), ("64G", "64G"), ("64000", "64000M"), ("500M", None), ("64", None), ("0", "0"), ("2T", "2048G")],
)
def test_slurm_gets_what_was_meant(memory: str, written: str | None) -> None:
    """64 x 10^9 / 2^20 = 61035.2 MiB; `64` alone means 64 MiB to sbatch, in which nothing starts."""
    run = compose([*ON_SLURM, f"cluster.memory={memory}"])
    assert isinstance(run.cluster, Slurm)
    if written is None:
        with pytest.raises(ConfigError, match=f"cluster.memory={memory} is .*Write the unit: cluster.memory=64GB"):
            refuse_slurm_values(run)
    else:
        refuse_slurm_values(run)
        assert slurm_size(run.cluster) == written


def test_every_key_of_this_type_is_read() -> None:
    source = (Path(__file__).resolve().parents[2] / "conf" / "schema.py").read_text(encoding="utf-8")
    fields = [line.split(":")[0].strip() for line in source.splitlines() if line.split("=")[0].rstrip().endswith((": Size", ": Size | None"))]
    assert fields == [key.split(".")[1] for key in ("sharding.bucket_mb", "node.gpu_memory", "node.host_memory")]
    assert {key.split(".")[1] for key in KEPT_IN} == set(fields)


def test_a_resume_compares_sizes_and_not_their_spelling(tmp_path: Path) -> None:
    save_run(described(*DEMO, "node=h100_80", "node.gpu_memory=80GiB"), RunDir(tmp_path))
    assert resumed_run(RunDir(tmp_path), ["node.gpu_memory=80GiB"]).node.gpu_memory == 85_899_345_920
    with pytest.raises(ConfigError, match=r"node\.gpu_memory: recorded 85899345920, given 48000000000"):
        resumed_run(RunDir(tmp_path), ["node.gpu_memory=48GB"])
