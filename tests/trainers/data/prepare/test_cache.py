"""When tokenised data is used again, and when it is made anew."""

import json
import multiprocessing
import os
import shutil
from pathlib import Path

import pytest

from conf.schema import Run
from tests.described import composed
from trainers.data.prepare.cache import MANIFEST, cache_key, cached, is_whole, publish, seal
from trainers.data.prepare.folder import load_prepared, prepare, prepare_cache
from trainers.errors import DataError
from trainers.model.tokenizer import load_tokenizer

ROWS = [{"instruction": f"q{number}", "output": f"a{number}"} for number in range(8)]


def write(folder: Path, rows: list[dict[str, str]] = ROWS) -> None:
    (folder / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def described(folder: Path, *overrides: str) -> Run:
    return composed("model=demo", "data=files", "data.sets=[a.jsonl]", f"data.folder={folder}", f"output={folder}/outputs", *overrides)


def key(run: Run) -> str:
    return cache_key(run, load_tokenizer(run))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to another user")
def test_data_that_another_user_tokenised_is_not_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path)
    run = described(tmp_path)
    theirs = prepare_cache(run, load_tokenizer(run))
    os.chown(theirs, 65534, 65534)
    mine = prepare_cache(run, load_tokenizer(run))
    assert mine.name == f"{theirs.name}-0"
    assert is_whole(mine)
    assert f"note: {theirs} belongs to another user and is not used." in capsys.readouterr().out
    assert prepare_cache(run, load_tokenizer(run)) == mine


def test_the_same_run_has_the_same_key_wherever_its_files_lie_and_whoever_does_the_work(tmp_path: Path):
    write(tmp_path)
    other = tmp_path / "other"
    shutil.copytree(tmp_path, other)
    first = key(described(tmp_path))
    same = [("data.workers=2",), ("data.cache=elsewhere",), ("optim.lr=1",), ("training.micro_batch=2",), ("regime=full",), ("name=x",)]
    assert {key(described(tmp_path, *overrides)) for overrides in same} == {first}
    assert key(described(other)) == first


@pytest.mark.parametrize(
    "override",
    [
        *("data.cutoff=64", "data.max_samples=3", "data.validation_share=0.5", "data.packing=true", "data.mask_prompt=false"),
        *("data.mixing=interleave_under", "data.evaluation_sets=[a.jsonl]", "data.on_bad=drop", "data.on_long=drop", "data.train_history=false"),
        *("data.template=alpaca", "training.seed=1", "stage=pt"),
    ],
)
def test_every_setting_that_changes_rows_changes_the_key(tmp_path: Path, override: str):
    write(tmp_path)
    assert key(described(tmp_path, override)) != key(described(tmp_path))


def test_one_byte_of_the_data_changes_the_key(tmp_path: Path):
    write(tmp_path)
    before = key(described(tmp_path))
    write(tmp_path, [*ROWS[:-1], {"instruction": "q7", "output": "a8"}])
    assert key(described(tmp_path)) != before


def test_another_layout_of_the_same_file_changes_the_key(tmp_path: Path):
    write(tmp_path)
    entry = {"file_name": "a.jsonl", "columns": {"prompt": "instruction", "response": "output"}}
    (tmp_path / "dataset_info.json").write_text(json.dumps({"mine": entry}))
    before = key(described(tmp_path, "data.sets=[mine]"))
    (tmp_path / "dataset_info.json").write_text(json.dumps({"mine": {**entry, "columns": {"prompt": "output", "response": "instruction"}}}))
    assert key(described(tmp_path, "data.sets=[mine]")) != before


def test_another_tokenizer_or_template_text_changes_the_key(tmp_path: Path):
    write(tmp_path)
    run = described(tmp_path)
    tokenizer, larger, worded = (load_tokenizer(run) for _ in range(3))
    larger.add_tokens(["<|new|>"])
    worded.chat_template = str(worded.chat_template) + " "
    assert len({cache_key(run, each) for each in (tokenizer, larger, worded)}) == 3


def test_what_was_prepared_is_taken_again_and_nothing_is_left_beside_it(tmp_path: Path):
    write(tmp_path)
    run = described(tmp_path)
    folder = prepare_cache(run, load_tokenizer(run))
    made = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert prepare_cache(run, load_tokenizer(run)) == folder
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == made
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


@pytest.mark.parametrize("damage", ["cut", "missing", "no manifest", "broken manifest"])
def test_a_torn_cache_is_made_again(tmp_path: Path, damage: str):
    write(tmp_path)
    run = described(tmp_path)
    folder = prepare_cache(run, load_tokenizer(run))
    before = load_prepared(folder).train.to_dict()
    train = folder / "train.arrow"
    if damage == "cut":
        train.write_bytes(train.read_bytes()[:-1])
    elif damage == "missing":
        train.unlink()
    elif damage == "no manifest":
        (folder / MANIFEST).unlink()
    else:
        (folder / MANIFEST).write_text('{"train.arrow": ')
    assert not is_whole(folder)
    assert prepare_cache(run, load_tokenizer(run)) == folder
    assert load_prepared(folder).train.to_dict() == before
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_a_run_folder_keeps_its_data_when_the_cache_is_deleted(tmp_path: Path):
    write(tmp_path)
    run = described(tmp_path)
    (tmp_path / "run").mkdir()
    made = prepare(run, load_tokenizer(run), tmp_path / "run" / "prepared").train.to_dict()
    shutil.rmtree(tmp_path / "outputs")
    (tmp_path / "a.jsonl").unlink()
    assert prepare(run, load_tokenizer(run), tmp_path / "run" / "prepared").train.to_dict() == made


def make_at_once(folder: Path) -> int:
    run = described(folder)
    return len(load_prepared(prepare_cache(run, load_tokenizer(run))).train)


def test_processes_that_prepare_at_once_end_with_the_same_whole_folder(tmp_path: Path):
    write(tmp_path)
    with multiprocessing.get_context("fork").Pool(3) as pool:
        assert pool.map(make_at_once, [tmp_path] * 3, chunksize=1) == [8, 8, 8]
    [folder] = (tmp_path / "outputs" / ".data").iterdir()
    assert is_whole(folder)


def test_the_first_of_two_that_are_done_gives_the_folder_its_name(tmp_path: Path):
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for folder, text in ((ours, "ours"), (theirs, "theirs")):
        folder.mkdir()
        (folder / "file").write_text(text)
        seal(folder)
    publish(theirs, tmp_path / "key")
    publish(ours, tmp_path / "key")
    assert (tmp_path / "key" / "file").read_text() == "theirs"


def test_data_that_cannot_be_prepared_leaves_nothing(tmp_path: Path):
    write(tmp_path, [*ROWS, {"instruction": "q"}])
    run = described(tmp_path)
    with pytest.raises(DataError, match=r"a.jsonl, line 9: column output is missing"):
        prepare_cache(run, load_tokenizer(run))
    assert list((tmp_path / "outputs" / ".data").iterdir()) == []


def test_what_a_killed_process_left_is_removed(tmp_path: Path):
    write(tmp_path)
    run = described(tmp_path)
    tokenizer = load_tokenizer(run)

    def killed(folder: Path) -> None:
        dead = folder.with_name("-".join([*folder.name.split("-")[:-2], "99999999", "0"]))
        folder.rename(dead)
        raise DataError("killed")

    with pytest.raises(DataError, match="killed"):
        cached(run, tokenizer, killed)
    assert len(list((tmp_path / "outputs" / ".data").iterdir())) == 1
    folder = prepare_cache(run, tokenizer)
    assert list(folder.parent.iterdir()) == [folder]


def test_a_cache_that_cannot_be_written_names_its_key(tmp_path: Path):
    write(tmp_path)
    run = described(tmp_path, f"data.cache={tmp_path / 'a.jsonl'}")
    with pytest.raises(ValueError, match=r"data.cache=.*a.jsonl cannot be written: .*Set it to a folder that you can write to"):
        prepare_cache(run, load_tokenizer(run))
    with pytest.raises(ValueError, match=r"data.cache=/proc/cache cannot be written: No such file"):  # where no one makes folders
        prepare_cache(described(tmp_path, "data.cache=/proc/cache"), load_tokenizer(run))
