from fractions import Fraction
from pathlib import Path

import pytest

from conf.schema import Run
from launcher.errors import ConfigError
from launcher.sweep.ledger import SweepDir
from launcher.sweep.points import Permitted, Point, Result, judge_point, named, on_its_share, shared_memory
from launcher.sweep.schedule import Resources
from launcher.sweep.session import Sweep
from tests.described import composed

CPU = Resources((), 1)
EIGHT = Resources(tuple(f"GPU-{letter}" for letter in "abcdefgh"), 1)
NODE = ["node=h100_80", "node.gpus=8"]


def demo(*overrides: str) -> Run:
    return composed("recipe=demo", *overrides)


def judged(*overrides: str, resources: Resources = CPU) -> Permitted | Result:
    return judge_point(Point(1, ("recipe=demo", *overrides), overrides), [], resources)


def test_a_point_of_two_ranks_is_judged_on_two_gpus_and_a_quarter_of_the_host() -> None:
    node = on_its_share(demo(*NODE, "cluster.ranks_per_node=2", "node.host_memory=800"), EIGHT).node
    assert (node.gpus, node.host_memory) == (2, 200)


def test_a_point_without_ranks_takes_the_whole_node_as_a_run_alone_would() -> None:
    node = on_its_share(demo(*NODE, "node.host_memory=800"), EIGHT).node
    assert (node.gpus, node.host_memory) == (8, 800)


def test_a_node_that_is_looked_up_has_the_gpus_of_the_sweep() -> None:
    assert on_its_share(demo("node=auto", "node.host_memory=800"), EIGHT).node.gpus == 8


def test_host_memory_that_is_not_judged_stays_so() -> None:
    node = demo(*NODE).node
    assert node.host_memory is None
    assert shared_memory(node, Fraction(1, 8)) is None


def test_two_points_at_a_time_on_a_cpu_node_have_half_of_its_memory() -> None:
    node = on_its_share(demo("node=cpu", "node.host_memory=900"), Resources((), 2)).node
    assert (node.gpus, node.host_memory) == (0, 450)


def test_a_point_wider_than_the_sweep_is_refused_with_both_numbers() -> None:
    with pytest.raises(ConfigError, match="This run needs 8 GPUs, and 0 may be used here"):
        on_its_share(demo(*NODE), CPU)


def test_more_ranks_than_gpus_are_refused_as_in_a_run_alone() -> None:
    result = judged("node=h100_80", "node.gpus=4", "cluster.ranks_per_node=8", resources=EIGHT)
    assert isinstance(result, Result)
    assert result.cause.startswith("cluster.ranks_per_node=8, but node h100_80 has 4 GPUs")


@pytest.mark.parametrize("override", ["cluster=slurm", "cluster.nodes=2", "backend.port=29500"])
def test_what_points_cannot_share_is_refused(override: str) -> None:
    result = judged("node=cpu", override)
    assert isinstance(result, Result)
    assert result.state == "refused"
    assert override.split("=")[0].split(".")[0] in result.cause


def test_a_value_of_a_wrong_type_makes_a_refused_row_and_no_crash() -> None:
    result = judged("node=cpu", "optim.lr=abc")
    assert isinstance(result, Result)
    assert (result.state, result.run_dir) == ("refused", None)
    assert result.cause.startswith("optim.lr=abc is not possible. It must be a number.")


def test_data_that_are_not_there_make_a_refused_row() -> None:
    result = judged("node=cpu", "data=files", "data.sets=[absent.jsonl]", "data.cutoff=512")
    assert isinstance(result, Result)
    assert result.state == "refused"
    assert "absent.jsonl" in result.cause


def test_a_point_that_does_not_fit_is_refused_with_the_rule_that_fired() -> None:
    result = judged("node=cpu", "node.host_memory=100000000")
    assert isinstance(result, Result)
    assert result.state == "refused"
    assert result.cause.split(":")[0] in ("PUBLISHED_FLOOR", "HOST_RAM")


def test_a_permitted_point_carries_its_overrides_in_the_name_of_its_run() -> None:
    permitted = judged("node=cpu", "optim.lr=0.5")
    assert isinstance(permitted, Permitted)
    assert (permitted.gpus, permitted.judged.run.name) == (0, "demo-node_cpu-lr_0.5")


def test_a_run_name_holds_only_characters_of_file_names() -> None:
    assert named("demo", ["data.sets=[a/b.jsonl,c.jsonl]", "optim.lr=1e-05"]) == "demo-sets_a_b.jsonl_c.jsonl-lr_1e-05"


def test_long_names_are_cut_and_stay_different() -> None:
    first, second = (named("demo", [f"model.path={'x' * 90}{end}"]) for end in "ab")
    assert first != second
    assert len(first) == len("demo-") + 60


def test_a_swept_name_is_not_said_twice() -> None:
    assert named("mine", ["name=mine"]) == "mine"


def test_a_composed_path_is_kept_under_the_output_folder(tmp_path: Path) -> None:
    permitted = judged("node=cpu", f"output={tmp_path}")
    assert isinstance(permitted, Permitted)
    assert permitted.judged.run.output == str(tmp_path)


def test_a_key_that_no_point_reads_is_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    points = [judged(f"optim.lr={lr}", "data.buffer=7", "node=cpu") for lr in ("1e-4", "2e-4")]
    sweep = Sweep(SweepDir(tmp_path), [], frozenset())
    for point in points:
        assert isinstance(point, Permitted)
        sweep.note(point.judged.notes)
    assert capsys.readouterr().out.count("note: data.buffer=7 has no effect, because data.streaming=false.") == 1


def test_points_that_may_share_a_gpu_need_all_that_torch_reserves_and_have_a_part_of_its_host_memory() -> None:
    overrides = ("model=qwen2.5_0.5b", "data=demo", "node=h200_141", "node.gpus=2", "node.host_memory=80GB", "cluster.ranks_per_node=1")
    alone = judge_point(Point(1, overrides, ()), [], Resources(("0", "1"), 1))
    shared = judge_point(Point(1, overrides, ()), [], Resources(("0", "1"), 1, places=4, bytes=141 * 10**9))
    assert isinstance(alone, Permitted)
    assert isinstance(shared, Permitted)
    assert alone.shares == 0
    assert shared.shares == int(max(shared.judged.estimate.required, shared.judged.estimate.nvml) * (1 + shared.judged.run.gate.margin))
    assert (alone.judged.run.node.host_memory, shared.judged.run.node.host_memory) == (40 * 10**9, 10 * 10**9)
    wide = judge_point(Point(1, (*overrides[:-1], "cluster.ranks_per_node=2"), ()), [], Resources(("0", "1"), 1, places=4, bytes=141 * 10**9))
    assert isinstance(wide, Permitted)
    assert wide.shares == 0
