"""A stream as its shares see it: who gets which record, in which order, and where it ends."""

import json
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest

from conf.run_dir import RunDir
from conf.schema import Run
from conf.stages import stage_row
from tests.described import described
from trainers.data import build_collator, build_datasets
from trainers.data.prepare.cache import cache_key
from trainers.data.prepare.streaming import Row, Share, rows_of_share, streamed_rows
from trainers.data.prepare.tokenising import Work
from trainers.errors import DataError
from trainers.model.tokenizer import load_tokenizer
from trainers.regimes import prepare_model
from trainers.stages import sft
from trainers.stages.shared.material import Material


def write(folder: Path, name: str, answers: list[str]) -> None:
    (folder / name).write_text("".join(json.dumps({"instruction": "q", "output": answer}) + "\n" for answer in answers))


def run_of(folder: Path, *overrides: str, sets: str = "a.jsonl") -> Run:
    streaming = ("data.streaming=true", "training.max_steps=4", "node=cpu", "cluster.ranks_per_node=1", "sharding=ddp")
    return described("model=demo", "data=files", f"data.sets=[{sets}]", f"data.folder={folder}", f"output={folder}/outputs", *streaming, *overrides)


def rows(run: Run, count: int, own: int = 0, of: int = 1) -> list[Row]:
    work = Work(load_tokenizer(run), run.data, stage_row(run.stage.name).reads)
    return list(islice(rows_of_share([Share(own, of, run.training.seed)], work), count))


def answers(run: Run, count: int, own: int = 0, of: int = 1) -> list[str]:
    """What is learned of each row, without its end."""
    tokenizer = load_tokenizer(run)
    learned = ([label for label in row["labels"] if label >= 0] for row in rows(run, count, own, of))
    return [tokenizer.decode(labels).removesuffix("<|im_end|>") for labels in learned]


NUMBERS = [f"{number:02}" for number in range(20)]


def test_the_shares_of_a_pass_are_all_records_and_none_twice(tmp_path: Path):
    write(tmp_path, "a.jsonl", NUMBERS)
    run = run_of(tmp_path, "data.buffer=6")
    shares = [answers(run, 10, own, 2) for own in (0, 1)]
    assert sorted(shares[0]) == NUMBERS[::2]
    assert sorted(shares[1]) == NUMBERS[1::2]


def test_a_stream_is_the_same_when_it_is_read_again_and_another_with_another_seed(tmp_path: Path):
    write(tmp_path, "a.jsonl", NUMBERS)
    first, second = (answers(run_of(tmp_path, "data.buffer=8"), 50) for _ in range(2))
    assert first == second
    assert first[:20] != NUMBERS
    assert answers(run_of(tmp_path, "data.buffer=8", "training.seed=1"), 50) != first


def test_each_pass_has_an_order_of_its_own_and_every_record_once(tmp_path: Path):
    write(tmp_path, "a.jsonl", NUMBERS)
    given = answers(run_of(tmp_path, "data.buffer=100"), 40)
    assert sorted(given[:20]) == sorted(given[20:]) == NUMBERS
    assert given[:20] != given[20:]


def test_a_buffer_of_one_keeps_the_order_of_the_file(tmp_path: Path):
    write(tmp_path, "a.jsonl", NUMBERS)
    assert answers(run_of(tmp_path, "data.buffer=1"), 25) == [*NUMBERS, *NUMBERS[:5]]


@pytest.mark.parametrize(
    ("mixing", "one_pass"),
    [("concatenate", "a0 a1 a2 a3 b0 b1"), ("interleave_under", "a0 b0 a1 b1 a2"), ("interleave_over", "a0 b0 a1 b1 a2 b0 a3 b1")],
)
def test_sets_are_mixed_by_the_strategy(tmp_path: Path, mixing: str, one_pass: str):
    write(tmp_path, "a.jsonl", ["a0", "a1", "a2", "a3"])
    write(tmp_path, "b.jsonl", ["b0", "b1"])
    run = run_of(tmp_path, "data.buffer=1", f"data.mixing={mixing}", sets="a.jsonl,b.jsonl")
    expected = one_pass.split()
    assert answers(run, 2 * len(expected)) == expected * 2


def test_packed_rows_of_a_stream_hold_whole_samples(tmp_path: Path):
    write(tmp_path, "a.jsonl", ["A", "AB", "ABC"])  # 23, 24 and 25 tokens: 25 + 23 and 24 in rows of 48
    made = rows(run_of(tmp_path, "data.buffer=3", "data.packing=true", "data.cutoff=48"), 2)
    assert [len(row["input_ids"]) for row in made] == [48, 24]
    assert made[0]["position_ids"] == [*range(25), *range(23)]


def test_streamed_documents_are_joined_and_cut_at_the_cutoff(tmp_path: Path):
    (tmp_path / "a.txt").write_text("abc\ndefgh\n")  # 3 + 1 and 5 + 1 tokens with their ends, read again and again
    run = run_of(tmp_path, "stage=pt", "data.buffer=1", "data.cutoff=8", sets="a.txt")
    tokenizer = load_tokenizer(run)
    assert [tokenizer.decode(row["input_ids"]) for row in rows(run, 2)] == ["abc<|im_end|>defg", "h<|im_end|>abc<|im_end|>de"]


def test_a_record_that_cannot_be_used_ends_a_stream_or_is_told_and_dropped(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    write(tmp_path, "a.jsonl", NUMBERS)
    with (tmp_path / "a.jsonl").open("a") as file:
        file.write('{"instruction": "q", "output": 7}\n')
    with pytest.raises(
        DataError, match=r"(?s)1 of (2[1-9]|[3-9]\d) rows cannot be used:.*a.jsonl, line 21: column output is the number 7; it must be text"
    ):
        answers(run_of(tmp_path, "data.buffer=1"), 40)
    assert answers(run_of(tmp_path, "data.buffer=1", "data.on_bad=drop"), 20) == NUMBERS
    assert "dropped: " in capsys.readouterr().out


def test_a_stream_of_which_nothing_can_be_learned_ends(tmp_path: Path):
    write(tmp_path, "a.jsonl", ["", ""])
    with pytest.raises(DataError, match=r"nothing can be learned from the first 1,\d\d\d records"):
        rows(run_of(tmp_path), 1)


def test_fewer_records_than_readers_are_refused(tmp_path: Path):
    write(tmp_path, "a.jsonl", ["a"])
    with pytest.raises(DataError, match=r"fewer records than the 2 processes that read them"):
        rows(run_of(tmp_path), 1, own=1, of=2)


def test_evaluation_sets_of_a_stream_are_prepared_and_nothing_else_is_read(tmp_path: Path):
    """A registered folder is evaluated on its test split, as in a run that is not streamed, and the sets to train on are not read."""
    (tmp_path / "set").mkdir()
    write(tmp_path / "set", "train.jsonl", ["trained"])
    write(tmp_path / "set", "test.jsonl", ["tested"])
    (tmp_path / "dataset_info.json").write_text('{"mine": {"file_name": "set"}}')
    (tmp_path / "a.jsonl").write_text("not JSON\n")
    run = run_of(tmp_path, "data.evaluation_sets=[mine]")
    tokenizer = load_tokenizer(run)
    prepared = build_datasets(run, tokenizer)
    assert prepared.evaluation is not None
    assert prepared.report is not None
    [row] = prepared.evaluation
    assert tokenizer.decode([label for label in row["labels"] if label >= 0]) == "tested<|im_end|>"
    assert (len(prepared.train), prepared.report.evaluation_samples) == (0, 1)
    assert cache_key(run, tokenizer) != cache_key(replace(run, data=replace(run.data, streaming=False)), tokenizer)


def test_a_stream_without_evaluation_sets_has_nothing_to_prepare(tmp_path: Path):
    write(tmp_path, "a.jsonl", ["a"])
    run = run_of(tmp_path)
    with pytest.raises(ValueError, match=r"data.streaming=true tokenises while the run trains. Without data.evaluation_sets there is nothing"):
        build_datasets(run, load_tokenizer(run))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_stream_goes_on_with_the_next_row(tmp_path: Path, workers: int):
    """The losses of steps 3 and 4 are those of a run that was not interrupted, with a tokeniser in the trainer or in two data workers."""
    write(tmp_path, "a.jsonl", ["x" * number for number in range(1, 40)])
    steps = ("training.precision=fp32", "training.gradient_checkpointing=false", "regime=full", "optim.lr=0.003", "optim.warmup=0")
    run = run_of(tmp_path, *steps, "checkpoint.interval=2", "data.buffer=8", f"training.dataloader_workers={workers}", "training.micro_batch=3")
    tokenizer = load_tokenizer(run)

    def losses(checkpoint: str | None) -> list[float]:
        arguments = sft.build_arguments(run, RunDir(tmp_path), False)
        prepared = prepare_model(run, sft.MODEL_CLASS, tmp_path / "base")
        trainer = sft.build_trainer(
            run, arguments, prepared, Material(tokenizer, streamed_rows(run, tokenizer), None, build_collator(run, tokenizer), [])
        )
        trainer.train(resume_from_checkpoint=checkpoint)
        return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]

    whole = losses(None)
    assert len(set(whole)) == 4
    assert losses(str(next(tmp_path.rglob("checkpoint-2")))) == whole
