"""Several sets, evaluation sets and long samples on their way to rows."""

import json
from pathlib import Path

import pytest

from conf.schema import Run
from tests.described import described
from trainers.data.prepare.folder import PreparedData, build_datasets
from trainers.data.prepare.report import left_out_lines
from trainers.errors import DataError
from trainers.model.tokenizer import load_tokenizer


def write(folder: Path, name: str, answers: list[str]) -> None:
    (folder / name).write_text("".join(json.dumps({"instruction": "q", "output": answer}) + "\n" for answer in answers))


def run_of(folder: Path, *overrides: str) -> Run:
    write(folder, "a.jsonl", ["a0", "a1", "a2", "a3"])
    write(folder, "b.jsonl", ["b0", "b1"])
    given = ["model=demo", "data=files", "data.sets=[a.jsonl,b.jsonl]", f"data.folder={folder}", f"output={folder}/outputs"]
    return described(*given, "node=cpu", "cluster.ranks_per_node=1", *overrides)


def built(run: Run) -> PreparedData:
    return build_datasets(run, load_tokenizer(run))


def answers(run: Run, labels: list[list[int]]) -> list[str]:
    tokenizer = load_tokenizer(run)
    return [tokenizer.decode([label for label in row if label >= 0]).removesuffix("<|im_end|>") for row in labels]


@pytest.mark.parametrize(
    ("mixing", "expected"),
    [("concatenate", "a0 a1 a2 a3 b0 b1"), ("interleave_under", "a0 b0 a1 b1"), ("interleave_over", "a0 b0 a1 b1 a2 b0 a3 b1")],
)
def test_training_rows_follow_the_mixture(tmp_path: Path, mixing: str, expected: str) -> None:
    run = run_of(tmp_path, f"data.mixing={mixing}")
    data = built(run)
    assert answers(run, list(data.train["labels"])) == expected.split()
    assert data.report is not None
    assert (data.report.samples, data.report.train_samples) == (6, len(expected.split()))


def test_held_out_samples_are_taken_before_mixing_repeats_any(tmp_path: Path) -> None:
    run = run_of(tmp_path, "data.mixing=interleave_over", "data.validation_share=0.34")
    data = built(run)
    assert data.evaluation is not None
    held_out = set(answers(run, list(data.evaluation["labels"])))
    assert len(held_out) == 2
    assert not held_out & set(answers(run, list(data.train["labels"])))


def test_evaluation_sets_are_evaluated_whole_and_unmixed(tmp_path: Path) -> None:
    write(tmp_path, "c.jsonl", ["c0", "c1", "c2"])
    run = run_of(tmp_path, "data.mixing=interleave_under", "data.evaluation_sets=[c.jsonl,b.jsonl]")
    data = built(run)
    assert data.evaluation is not None
    assert answers(run, list(data.evaluation["labels"])) == ["c0", "c1", "c2", "b0", "b1"]
    assert data.report is not None
    assert data.report.evaluation_samples == 5


@pytest.mark.parametrize(("mixing", "left_over"), [("concatenate", 0), ("interleave_under", 6), ("interleave_over", 0)])
def test_what_mixing_leaves_over_is_told(tmp_path: Path, mixing: str, left_over: int) -> None:
    write(tmp_path, "c.jsonl", ["c"] * 8)
    write(tmp_path, "d.jsonl", ["d"] * 2)  # in turn: c d c d, or each c once and the d again
    report = built(run_of(tmp_path, "data.sets=[c.jsonl,d.jsonl]", f"data.mixing={mixing}")).report
    assert report is not None
    assert report.left_over == left_over
    assert ("left over by data.mixing" in report.sentence()) == (left_over > 0)


def test_samples_that_are_held_out_are_not_left_over(tmp_path: Path) -> None:
    write(tmp_path, "c.jsonl", ["c"] * 8)
    report = built(run_of(tmp_path, "data.sets=[c.jsonl]", "data.validation_share=0.25")).report
    assert report is not None
    assert (report.train_samples, report.evaluation_samples, report.left_over) == (6, 2, 0)


def test_tokens_of_evaluation_sets_are_counted_from_their_own_samples(tmp_path: Path) -> None:
    write(tmp_path, "c.jsonl", ["c"] * 2)
    write(tmp_path, "d.jsonl", ["d" * 10] * 7)  # more samples than are trained on
    report = built(run_of(tmp_path, "data.sets=[c.jsonl]", "data.evaluation_sets=[d.jsonl]")).report
    assert report is not None
    assert (report.tokens, report.learned_tokens) == (2 * 23 + 7 * 32, 2 * 2 + 7 * 11)  # 20 of a prompt, an answer, its end and a newline


def test_long_samples_are_cut_dropped_or_refused_as_is_asked(tmp_path: Path) -> None:
    write(tmp_path, "c.jsonl", ["short"] * 9 + ["x" * 100])  # 20 tokens of the prompt, the answer's bytes, an end and a newline
    asked = ("data.sets=[c.jsonl]", "data.cutoff=40", "data.bad_share=0.1")
    cut, dropped = (built(run_of(tmp_path, *asked, f"data.on_long={what}")) for what in ("truncate", "drop"))
    assert cut.report is not None
    assert dropped.report is not None
    assert (len(cut.train), cut.report.truncated, cut.report.dropped) == (10, 1, 0)
    assert (len(dropped.train), dropped.report.drops, dropped.report.truncated) == (9, {"longer than data.cutoff": 1}, 0)
    with pytest.raises(DataError, match=r"c.jsonl, line 10: has 122 tokens, more than data.cutoff=40"):
        built(run_of(tmp_path, *asked, "data.on_long=fail"))
    with pytest.raises(DataError, match=r"1 of 10 rows would be dropped by .*data.on_long=drop, more than data.bad_share=0.09"):
        built(run_of(tmp_path, *asked, "data.on_long=drop", "data.bad_share=0.09"))


def test_dropped_rows_are_told_one_by_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, "c.jsonl", ["good"] * 3)
    with (tmp_path / "c.jsonl").open("a") as file:
        file.write("[]\n")
    data = built(run_of(tmp_path, "data.sets=[c.jsonl]", "data.on_bad=drop", "data.bad_share=0.25"))
    assert data.report is not None
    assert (len(data.train), data.report.unreadable) == (3, 1)
    assert f"dropped: {tmp_path}/c.jsonl, line 4: the record is an empty list; it must be an object" in capsys.readouterr().out


def test_several_processes_make_the_same_rows_in_the_same_order_as_one(tmp_path: Path) -> None:
    write(tmp_path, "c.jsonl", [str(number) for number in range(2500)])  # three chunks
    one, two = (built(run_of(tmp_path, "data.sets=[c.jsonl,a.jsonl]", f"data.workers={workers}")) for workers in (1, 2))
    assert len(one.train) == 2504
    assert one.train.to_dict() == two.train.to_dict()


def test_of_many_files_that_are_not_read_the_first_are_named() -> None:
    [line] = left_out_lines([f"{number}.tsv" for number in range(23)])
    assert "18.tsv, 19.tsv and 3 more. To train on" in line


@pytest.mark.parametrize("evaluated", [False, True])
def test_a_folder_trains_on_its_train_split_and_the_report_says_what_stays_out(tmp_path: Path, evaluated: bool) -> None:
    (tmp_path / "set").mkdir()
    for name in ("train", "test", "validation"):
        write(tmp_path / "set", f"{name}.jsonl", [f"{name} {number}" for number in range(3)])
    (tmp_path / "set" / "train.tsv").write_text("a\tb\n")
    run = run_of(tmp_path, "data.sets=[set]", *(["data.evaluation_sets=[set]"] if evaluated else []))
    data = built(run)
    assert answers(run, list(data.train["labels"])) == ["train 0", "train 1", "train 2"]
    assert data.report is not None
    assert [Path(file).name for file in data.report.left_out] == ["test.jsonl", "train.tsv", *([] if evaluated else ["validation.jsonl"])]
    assert f"other splits and are not trained on: {tmp_path}/set/test.jsonl" in data.report.sentence()
    assert f"These files are not read: {tmp_path}/set/train.tsv. To train on a file, name it in data.sets; it must end in" in data.report.sentence()
    if evaluated:
        assert data.evaluation is not None
        assert answers(run, list(data.evaluation["labels"])) == ["validation 0", "validation 1", "validation 2"]
