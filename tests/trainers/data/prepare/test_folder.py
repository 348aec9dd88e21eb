"""From files to rows: counts, splits, packing, and what is refused."""

import json
from pathlib import Path

import pytest

from conf.schema import Run
from tests.described import described
from trainers.data.prepare.build import REPORT
from trainers.data.prepare.folder import PreparedData, build_datasets, load_prepared, prepare
from trainers.errors import DataError
from trainers.model.tokenizer import load_tokenizer


def run_of(folder: Path, answers: list[str], *overrides: str) -> Run:
    (folder / "a.json").write_text(json.dumps([{"instruction": "U", "output": answer} for answer in answers]))
    return described(
        "node=cpu",
        "cluster.ranks_per_node=1",
        "model=demo",
        "data=files",
        "data.sets=[a.json]",
        f"data.folder={folder}",
        f"output={folder}/outputs",
        *overrides,
    )


def built(run: Run) -> PreparedData:
    return build_datasets(run, load_tokenizer(run))


def test_counts_are_those_of_the_bytes(tmp_path: Path):
    # 20 tokens before the answer (see test_tokens), then its bytes, its end and a newline: 24 and 122.
    prepared = built(run_of(tmp_path, ["AB", "A" * 100], "data.cutoff=50"))
    report = prepared.report
    assert (report.samples, report.truncated, report.dropped, report.longest) == (2, 1, 0, 122)
    assert (report.tokens, report.learned_tokens) == (24 + 50, 3 + 30)
    assert prepared.train.column_names == ["input_ids", "labels"]
    assert prepared.evaluation is None
    assert "2 samples: 2 to train, 0 to evaluate, 0 dropped" in report.sentence()
    assert "1 truncated at data.cutoff=50 (longest 122); 74 tokens, 33 of them learned." in report.sentence()


def test_a_sample_whose_answer_was_cut_off_is_dropped_and_counted(tmp_path: Path):
    run = run_of(tmp_path, ["A", "B", "C"], "data.cutoff=25")
    rows = json.loads((tmp_path / "a.json").read_text())
    rows[1]["instruction"] = "U" * 30
    (tmp_path / "a.json").write_text(json.dumps(rows))
    report = built(run).report
    assert (report.samples, report.dropped, report.train_samples) == (3, 1, 2)
    assert "1 dropped (nothing left to learn)" in report.sentence()


def test_a_cutoff_that_takes_most_answers_is_refused_with_the_lengths(tmp_path: Path):
    message = r"data.cutoff=20 leaves nothing to learn in 2 of 2 samples.*Samples have 23 to 24 tokens.*Set data\.cutoff=24 to keep everything"
    with pytest.raises(DataError, match=message):
        built(run_of(tmp_path, ["A", "AB"], "data.cutoff=20"))


def test_the_held_out_share_is_the_same_for_the_same_seed(tmp_path: Path):
    answers = [f"{number:02}" for number in range(20)]
    overrides = ["data.validation_share=0.25", "training.seed=1"]
    one, same = (built(run_of(tmp_path, answers, *overrides)) for _ in range(2))
    other = built(run_of(tmp_path, answers, *overrides[:1], "training.seed=2"))
    assert one.evaluation is not None
    assert same.evaluation is not None
    assert other.evaluation is not None
    assert (len(one.train), len(one.evaluation)) == (15, 5)
    assert list(one.evaluation["input_ids"]) == list(same.evaluation["input_ids"])
    assert list(one.evaluation["input_ids"]) != list(other.evaluation["input_ids"])
    together = sorted([*one.train["input_ids"], *one.evaluation["input_ids"]])
    assert together == sorted(built(run_of(tmp_path, answers)).train["input_ids"])


@pytest.mark.parametrize(("share", "message"), [("0.01", r"leaves none to evaluate"), ("0.99", r"leaves none to train")])
def test_a_share_that_leaves_a_side_empty_is_refused(tmp_path: Path, share: str, message: str):
    with pytest.raises(DataError, match=message):
        built(run_of(tmp_path, ["A"] * 10, f"data.validation_share={share}"))


@pytest.mark.parametrize("override", ["data.validation_share=1.0", "data.cutoff=1", "data.max_samples=0"])
def test_values_out_of_range_name_their_key(tmp_path: Path, override: str):
    with pytest.raises(ValueError, match=override.split("=")[0]):
        built(run_of(tmp_path, ["A"], override))


def test_packed_rows_hold_every_token_once_with_positions_of_its_sample(tmp_path: Path):
    # Samples of 23, 24 and 25 tokens in rows of 48: 25 + 23 and 24.
    prepared = built(run_of(tmp_path, ["A", "AB", "ABC"], "data.cutoff=48", "data.packing=true"))
    assert [len(row) for row in prepared.train["input_ids"]] == [48, 24]
    assert prepared.train["position_ids"][0] == [*range(25), *range(23)]
    assert prepared.train["labels"][0][25] == -100
    assert "3 to train in 2 rows" in prepared.report.sentence()


def test_packing_keeps_both_sides_of_a_split_apart(tmp_path: Path):
    prepared = built(run_of(tmp_path, ["A"] * 10, "data.cutoff=46", "data.packing=true", "data.validation_share=0.2"))
    assert prepared.evaluation is not None
    assert (len(prepared.train), len(prepared.evaluation)) == (4, 1)  # two samples of 23 tokens per row


def test_fewer_rows_than_one_batch_are_refused(tmp_path: Path):
    run = run_of(tmp_path, ["A"] * 7, "training.micro_batch=4", "cluster.ranks_per_node=2")
    with pytest.raises(
        DataError, match=r"There are 7 samples to train on, and one batch needs 2 ranks x training.micro_batch=4 = 8. Lower training.micro_batch"
    ):
        built(run)


def test_rows_that_the_template_cannot_show_are_listed_with_their_places(tmp_path: Path):
    run = run_of(tmp_path, ["A", "B"])
    tokenizer = load_tokenizer(run)
    tokenizer.chat_template = "{{ raise_exception('no users') }}"
    with pytest.raises(DataError, match=r"(?s)2 of 2 rows cannot be used:.*a.json, record 1: the chat template refuses it: no users.*record 2"):
        build_datasets(run, tokenizer)


def test_two_workers_make_the_same_rows_as_one(tmp_path: Path):
    answers = [str(number) for number in range(8)]
    one, two = built(run_of(tmp_path, answers)), built(run_of(tmp_path, answers, "data.workers=2"))
    assert list(one.train["input_ids"]) == list(two.train["input_ids"])


def test_what_one_rank_prepared_the_others_load(tmp_path: Path):
    run = run_of(tmp_path, ["A"] * 10, "data.validation_share=0.2", "data.packing=true")
    made = prepare(run, load_tokenizer(run), tmp_path / "data")
    loaded = load_prepared(tmp_path / "data")
    assert loaded.report == made.report
    assert loaded.evaluation is not None
    assert made.evaluation is not None
    for one, other in ((made.train, loaded.train), (made.evaluation, loaded.evaluation)):
        assert one.to_dict() == other.to_dict()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_prepared_data_is_taken_again_even_when_its_source_is_gone(tmp_path: Path):
    run = run_of(tmp_path, ["A"] * 3)
    made = prepare(run, load_tokenizer(run), tmp_path / "data")
    (tmp_path / "a.json").unlink()
    assert prepare(run, load_tokenizer(run), tmp_path / "data").train.to_dict() == made.train.to_dict()


def test_a_run_without_a_held_out_share_has_no_evaluation_after_loading(tmp_path: Path):
    run = run_of(tmp_path, ["A"] * 3)
    assert prepare(run, load_tokenizer(run), tmp_path / "data").evaluation is None


def test_the_real_sets_are_prepared_with_the_byte_tokenizer(shared_data: Path):
    sets = "data.sets=[alpaca_en_demo,glaive_toolcall_en_demo]"
    run = described("model=demo", "data=files", sets, f"data.folder={shared_data}", "data.max_samples=40", "node=cpu", "cluster.ranks_per_node=1")
    report = built(run).report
    assert report.samples == 80
    assert 0 < report.learned_tokens < report.tokens


def test_the_report_of_a_run_of_an_earlier_version_is_still_read(tmp_path: Path):
    folder = tmp_path / "data"
    run = run_of(tmp_path, ["AB", "A"])
    prepare(run, load_tokenizer(run), folder)
    report = json.loads((folder / REPORT).read_text())
    del report["left_over"]
    (folder / REPORT).write_text(json.dumps(report))
    found = prepare(run, load_tokenizer(run), folder).report
    assert found is not None
    assert (found.samples, found.left_over) == (2, 0)
