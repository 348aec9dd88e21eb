"""What a run folder's files are called, and that a run comes back from run.yaml as it went in."""

from dataclasses import fields
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf.errors import OmegaConfBaseException

from conf.choices import subtypes
from conf.run_dir import RunDir, cut_torn_line, load_composed, load_run, save_run, write_text_atomically
from conf.run_values import as_settled, composed_from_dict, run_as_dict
from conf.schema import Qlora, Run, Zero
from launcher.composition.compose import choices, compose
from tests.described import described

DEMO = ["model=demo", "data=demo"]
DEFAULT = compose([*DEMO, "regime=qlora", "sharding=zero3"])


@pytest.mark.parametrize("group", subtypes())
def test_every_subtype_comes_back_as_itself(group: str, tmp_path: Path) -> None:
    for choice in choices(group):
        run = compose([*DEMO, f"{group}={choice}"])
        save_run(run, RunDir(tmp_path))
        back = load_composed(RunDir(tmp_path))
        assert back == run
        assert type(getattr(back, group)) is subtypes()[group][choice]


def test_run_yaml_is_in_the_order_of_the_schema(tmp_path: Path) -> None:
    save_run(compose(DEMO), RunDir(tmp_path))
    assert list(yaml.safe_load((tmp_path / "run.yaml").read_text())) == [field.name for field in fields(Run)]


@settings(max_examples=60, deadline=None)
@given(
    prompt=st.text(alphabet=st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="$\ufffe\uffff")),
    rank=st.integers(1, 10**6),
    lr=st.floats(1e-30, 1e30),
)
def test_any_value_survives_the_file(prompt: str, rank: int, lr: float, tmp_path_factory: pytest.TempPathFactory) -> None:
    values = run_as_dict(DEFAULT)
    values["evaluation"]["generate"], values["regime"]["rank"], values["optim"]["lr"] = prompt, rank, lr
    run_dir = RunDir(tmp_path_factory.getbasetemp())
    save_run(composed_from_dict(values), run_dir)
    assert run_as_dict(load_composed(run_dir)) == values


def test_the_types_of_a_record_are_looked_up_by_name() -> None:
    run = composed_from_dict(run_as_dict(DEFAULT))
    assert isinstance(run.regime, Qlora)
    assert isinstance(run.sharding, Zero)


@pytest.mark.parametrize(("group", "key", "value"), [("regime", "rank", "wide"), ("regime", "width", 3), ("optim", "lr", None)])
def test_a_record_that_does_not_fit_the_schema_is_refused(group: str, key: str, value: object) -> None:
    values = run_as_dict(DEFAULT)
    values[group][key] = value
    with pytest.raises(OmegaConfBaseException):
        composed_from_dict(values)


def test_an_unknown_choice_in_a_record_is_refused() -> None:
    values = run_as_dict(DEFAULT)
    values["regime"]["name"] = "prefix"
    with pytest.raises(KeyError, match="prefix"):
        composed_from_dict(values)


def test_no_two_files_of_a_run_share_a_name() -> None:
    run_dir = RunDir(Path("/runs/a"))
    properties = [name for name, value in vars(RunDir).items() if isinstance(value, property)]
    paths = [getattr(run_dir, name) for name in properties]
    paths += [run_dir.rank_log(0), run_dir.exit_file(0), run_dir.layout_file(0), run_dir.peak_file(0), run_dir.checkpoint(0)]
    assert len(set(paths)) == len(paths)
    assert all(run_dir.path in path.parents for path in paths)


def test_ranks_and_steps_are_part_of_their_names() -> None:
    run_dir = RunDir(Path("/runs/a"))
    assert run_dir.rank_log(3) == Path("/runs/a/log/rank-3.txt")
    assert run_dir.exit_file(3) == Path("/runs/a/exit/rank-3.json")
    assert run_dir.checkpoint(30) == Path("/runs/a/checkpoints/step-30")


def test_a_text_is_replaced_as_a_whole(tmp_path: Path) -> None:
    write_text_atomically(tmp_path / "a", "first")
    write_text_atomically(tmp_path / "a", "zweites ü")
    assert (tmp_path / "a").read_text(encoding="utf-8") == "zweites ü"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_text_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    write_text_atomically(tmp_path / "a", "first")
    with pytest.raises(UnicodeEncodeError):
        write_text_atomically(tmp_path / "a", "\ud800")
    assert (tmp_path / "a").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_what_is_written_is_readable_by_its_owner_alone(tmp_path: Path) -> None:
    write_text_atomically(tmp_path / "a", "first")
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(("text", "left"), [(b"", b""), (b"a\nb\n", b"a\nb\n"), (b"a\nb", b"a\n"), (b"torn", b"")])
def test_only_a_line_without_its_end_is_cut(text: bytes, left: bytes, tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(text)
    cut_torn_line(tmp_path / "log")
    assert (tmp_path / "log").read_bytes() == left


def test_a_file_that_is_not_there_has_no_torn_line(tmp_path: Path) -> None:
    cut_torn_line(tmp_path / "log")
    assert not (tmp_path / "log").exists()


def test_a_run_that_still_leaves_something_open_is_not_settled() -> None:
    composed = compose([*DEMO, "node=cpu"])
    with pytest.raises(ValueError, match=r"training\.accumulation is null: this run is not settled"):
        as_settled(composed)


def test_a_settled_run_comes_back_settled(tmp_path: Path) -> None:
    run = described(*DEMO, "node=cpu")
    save_run(run, RunDir(tmp_path))
    assert load_run(RunDir(tmp_path)) == run
    assert type(load_run(RunDir(tmp_path))) is Run
