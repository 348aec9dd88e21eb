"""What a job of Slurm states is looked at when it is planned: its time limit, its memory, its variables and mounts, its GPUs."""

import re
from pathlib import Path

import pytest

from launcher.cli import main
from launcher.rules.slurm import late_end
from tests.described import composed

JOB = ("model=llama3.2_1b", "data=files", "data.sets=[org/name]", "node=h200_141", "cluster=slurm")


@pytest.mark.parametrize(
    ("limit", "seconds", "said"),
    [
        ("01:00:00", 3180.0, False),  # 3,600 s less 300 of the warning, 60 by which Slurm may come earlier, and 60 of the start
        ("01:00:00", 3181.0, True),
        ("1-00:00:00", 80_000.0, False),
        ("01:00:00", None, False),  # not predicted
        ("null", 1e9, False),  # the partition's own
    ],
)
def test_the_limit_leaves_what_the_warning_and_the_start_do_not_take(limit: str, seconds: float | None, said: bool) -> None:
    assert bool(late_end(composed(*JOB, f"cluster.time={limit}"), seconds, seconds)) == said


def test_a_local_run_has_no_limit() -> None:
    assert late_end(composed("model=demo", "data=demo"), 1e9, 1e9) == ()


def test_the_limit_that_is_named_is_enough() -> None:
    [text] = late_end(composed(*JOB, "cluster.time=01:00:00"), 7200.5, 7920.5)
    assert "ends before the run: its steps are predicted to take 2 h 00 min (at most 2 h 12 min), and the limit leaves them about 53 min 00 s" in text
    assert "Set cluster.time=02:19:01 or more" in text  # 7,921 s, 300, 60 and 60
    assert late_end(composed(*JOB, "cluster.time=02:19:01"), 7200.5, 7920.5) == ()


def test_a_limit_within_the_range_of_the_prediction_is_told_as_uncertain() -> None:
    [text] = late_end(composed(*JOB, "cluster.time=01:00:00"), 3000.0, 3300.0)
    assert "cluster.time=01:00:00 may end before the run" in text


def test_the_plan_says_it_and_permits_the_job(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["plan", *JOB, f"output={tmp_path}", "training.max_steps=1000000", "cluster.time=01:00:00"])
    said = " ".join(capsys.readouterr().out.split())
    assert code == 0
    assert "note: cluster.time=01:00:00 ends before the run: its steps are predicted to take " in said


def refusal(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["plan", *words]) == 2
    return " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("word", ["ALL", "NONE", "NIL", "all"])
def test_a_word_for_the_whole_environment_is_no_variable(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"cluster.export={word} is no variable to sbatch" in refusal(capsys, *JOB, f"cluster.export=[HF_HOME,{word}]")


@pytest.mark.parametrize("mount", ["/a,/b", "/a:/b,/c:/d:ro"])
def test_a_mount_with_a_comma_would_be_several(mount: str, capsys: pytest.CaptureFixture[str]) -> None:
    told = refusal(capsys, *JOB, "cluster.container=a.sif", f'cluster.container_mounts=["{mount}"]')
    assert f"cluster.container_mounts={mount} is not a value that sbatch accepts" in told


@pytest.mark.parametrize("folder", ["a,b", "a:b"])
def test_a_folder_of_runs_that_no_mount_can_name_is_refused_with_a_container_alone(
    folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (*JOB, f'output="{tmp_path / folder}"')
    assert "cannot be mounted in cluster.container=a.sif" in refusal(capsys, *words, "cluster.container=a.sif")
    assert main(["plan", *words]) == 0


@pytest.mark.parametrize("node", ["h100_80", "t4_16"])
@pytest.mark.parametrize(
    ("words", "card"),
    [
        (("cluster.gpu_type=t4",), "t4_16"),
        (("cluster.gpu_type=nvidia_h100_80gb_hbm3",), "h100_80"),
        (("cluster.gpu_type=t4", "cluster.gpu_types=[t4:h100_80]"), "h100_80"),
        (("cluster.gpu_type=h100", "cluster.gpu_types=[h100:OURS:80GB]"), None),
        (("cluster.gpu_type=big",), None),
    ],
)
def test_a_type_of_gpu_that_is_known_to_be_another_card_than_the_node_is_refused(
    node: str, words: tuple[str, ...], card: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    job = ("model=demo", "data=demo", "cluster=slurm", f"node={node}", "training.precision=fp16_amp", *words)
    if card in (None, node):
        assert main(["plan", *job]) == 0
    else:
        assert f"Set node={card}, or ask for another type" in refusal(capsys, *job)


@pytest.mark.parametrize("place", [("node=h200_141",), ("node=cpu",), ("node=cpu", "cluster.nodes=2")])  # on CPUs the published table asks for more
def test_a_run_that_lacks_only_its_stated_memory_is_told_how_much_would_do(place: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    job = ("model=llama3.2_1b", "data=demo", "cluster=slurm", "cluster.ranks_per_node=1", *place)
    assert main(["plan", *job, "cluster.memory=600MB"]) == 3
    told = " ".join(capsys.readouterr().out.split())
    found = re.search(r"cluster.memory=600MB is all the host memory that the job gets on a node. Set cluster.memory=([0-9]+)MiB or more", told)
    assert found is not None, told[-600:]
    assert "Nothing that can be changed" not in told
    assert main(["plan", *job, f"cluster.memory={found[1]}MiB"]) == 0
    assert main(["plan", *job, f"cluster.memory={int(found[1]) - 1}MiB"]) == 3
