"""What `regimen data validate` finds in data whose faults are known, and how it ends."""

import json
from pathlib import Path

import pytest
from datasets import Dataset

from conf.request import Validate
from conf.schema import Run
from launcher.composition.compose import compose
from launcher.verbs.data import described
from trainers.data.inspect.agreement import answers_without_end
from trainers.data.inspect.preview import Preview, plain_text, previews
from trainers.data.inspect.survey import length_table
from trainers.errors import DataError
from trainers.model.tokenizer import byte_tokenizer, load_tokenizer
from trainers.verbs.prepare import prepare
from trainers.verbs.validate import Findings, findings, validate

GOOD = {"instruction": "U", "output": "AB"}  # 20 tokens, 2 bytes, an end and a newline: 24, of which 3 are learned


def run_of(folder: Path, rows: list[object], *overrides: str) -> Run:
    (folder / "a.jsonl").write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    given = ["model=demo", "data=files", "data.sets=[a.jsonl]", f"data.folder={folder}", f"output={folder}/outputs", "data.workers=1", *overrides]
    return described(given, [])


def found(folder: Path, rows: list[object], *overrides: str) -> Findings:
    run = run_of(folder, rows, *overrides)
    return findings(run, load_tokenizer(run), folder)[0]


def test_every_count_is_the_one_that_was_put_in(tmp_path: Path) -> None:
    rows = [GOOD, GOOD, {**GOOD, "output": ""}, {**GOOD, "output": "A" * 100}, {**GOOD, "output": 7}, '{"instruction": "U", "out']
    result = found(tmp_path, rows, "data.cutoff=50", "data.on_bad=drop", "data.bad_share=0.4")
    [counted] = result.train.sets
    assert (counted.name, counted.records, counted.samples, counted.unusable, counted.dropped, counted.truncated) == ("a.jsonl", 6, 4, 2, 1, 1)
    assert (counted.tokens, counted.learned_tokens) == (24 + 24 + 50, 3 + 3 + 30)
    assert (result.train.duplicates, result.train.empty, result.train.drops, result.train.over_cutoff) == (1, 1, {"empty": 1}, 1)
    assert (result.train.lengths["least"], result.train.lengths["most"]) == (22, 122)
    assert [(problem.number, problem.column) for problem in result.problems] == [(5, None), (6, 22)]
    assert result.refusal is None


def test_what_is_dropped_for_its_length_is_not_counted_as_truncated_too(tmp_path: Path) -> None:
    [counted] = found(tmp_path, [GOOD] * 9 + [{**GOOD, "output": "A" * 100}], "data.cutoff=50", "data.on_long=drop", "data.bad_share=0.1").train.sets
    assert (counted.dropped, counted.truncated, counted.tokens, counted.learned_tokens) == (1, 0, 9 * 24, 9 * 3)


def test_percentiles_are_lengths_of_samples() -> None:
    import numpy

    assert length_table(numpy.arange(1, 102)) == {
        **{"least": 1, "1 %": 2, "5 %": 6, "25 %": 26, "50 %": 51, "75 %": 76, "95 %": 96, "99 %": 100, "most": 101}
    }
    assert length_table(numpy.array([])) == {}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ((), r"^2 of 4 rows cannot be used. Fix or remove them, or leave them out with data.on_bad=drop.$"),
        (("data.on_bad=drop",), r"more than data.bad_share=0.05"),
        (("data.on_bad=drop", "data.bad_share=0.5", "data.on_long=drop", "data.cutoff=23"), r"4 of 4 rows would be dropped .*data.on_long=drop"),
        (("data.on_long=fail", "data.cutoff=23"), r"4 of 4 rows cannot be used"),
    ],
)
def test_what_training_would_refuse_is_refused_and_bad_rows_are_listed_once(
    tmp_path: Path, overrides: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The report of validate lists the rows, so its last message does not; that of training does."""
    rows = [GOOD, {**GOOD, "output": None}, GOOD, "nonsense"]
    run = run_of(tmp_path, rows, *overrides)
    with pytest.raises(DataError, match=message) as judged:
        validate(run, Validate(as_json=False, picture=None))
    report = capsys.readouterr().out
    with pytest.raises(DataError) as trained:
        prepare_of(run)
    counts, *lines = str(trained.value).splitlines()
    assert str(judged.value).startswith(counts.rstrip(":"))
    assert all(
        str(judged.value).endswith(line) if line == lines[-1] else (report.count(line), line in str(judged.value)) == (1, False) for line in lines
    )


def prepare_of(run: Run) -> None:
    from conf.request import Prepare

    prepare(run, Prepare())


def test_dropped_rows_are_counted_by_training_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepare_of(run_of(tmp_path, [GOOD] * 4 + ["nonsense"], "data.on_bad=drop", "data.bad_share=0.2"))
    said = capsys.readouterr().out
    assert "4 samples (1 further rows could not be read and were dropped): 4 to train" in said
    assert "cached: " in said


def test_only_the_first_twenty_bad_rows_are_listed_and_the_total_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_of(tmp_path, [GOOD, *["nonsense"] * 25])
    with pytest.raises(DataError, match=r"25 of 26 rows cannot be used") as refused:
        validate(run, Validate(as_json=True, picture=str(tmp_path / "p.png")))
    assert "\n" not in str(refused.value)
    with pytest.raises(DataError) as trained:
        prepare_of(run)
    lines = str(trained.value).splitlines()
    assert lines[20].endswith("line 21, column 1: broken JSON: Expecting value")
    assert lines[21] == "  and 5 more"
    report = json.loads(capsys.readouterr().out)
    assert (report["problems"]["total"], len(report["problems"]["first"])) == (25, 20)
    assert report["problems"]["first"][0]["reason"] == "broken JSON: Expecting value"
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


def test_samples_that_are_evaluated_and_trained_on_are_counted(tmp_path: Path) -> None:
    (tmp_path / "b.jsonl").write_text(json.dumps(GOOD) + "\n" + json.dumps({**GOOD, "output": "C"}) + "\n")
    result = found(tmp_path, [GOOD, GOOD], "data.evaluation_sets=[b.jsonl]")
    assert result.in_both == 1
    assert result.evaluation is not None
    assert result.evaluation.sets[0].samples == 2


def test_the_share_of_good_answers_is_told_for_labelled_data(tmp_path: Path) -> None:
    rows: list[object] = [{**GOOD, "kto_tag": number == 0} for number in range(4)]
    assert found(tmp_path, rows, "stage=kto").train.sets[0].label_share == 0.25


def test_special_tokens_that_differ_from_the_model_are_named(tmp_path: Path) -> None:
    run = run_of(tmp_path, [GOOD])
    run.model.architecture["eos_token_id"] = 0
    tokenizer = load_tokenizer(run)
    named = findings(run, tokenizer, tmp_path)[0].disagreements
    assert named == [f"eos: the tokenizer has {tokenizer.eos_token_id} ('<|im_end|>'), the model's config.json 0."]


def test_an_answer_that_does_not_end_with_the_end_token_is_told(tmp_path: Path) -> None:
    run = run_of(tmp_path, [GOOD])
    tokenizer = load_tokenizer(run)
    tokenizer.eos_token = "<|endoftext|>"
    result, _ = findings(run, tokenizer, tmp_path)
    [told] = result.disagreements
    assert told.startswith("eos: answers end with '<|im_end|>', but the tokenizer's end token is '<|endoftext|>'. The generation_config.json of the")


def test_an_answer_that_ends_with_text_is_told_to_have_no_end() -> None:
    tokenizer = byte_tokenizer()
    learned = {"labels": [-100, *tokenizer("AB.")["input_ids"]], "input_ids": [1, *tokenizer("AB.")["input_ids"]]}
    [told] = answers_without_end(tokenizer, Dataset.from_list([learned]), "answers", 64)
    assert told.startswith("eos: answers end with '.', but the tokenizer's end token is '<|im_end|>', so generation would not stop there. ")
    turn = [*learned["labels"], *tokenizer("<|endoftext|>\n")["input_ids"]]
    [told] = answers_without_end(tokenizer, Dataset.from_list([{"labels": turn, "input_ids": turn}]), "answers", 64)
    assert told.startswith("eos: answers end with '<|endoftext|>', but the tokenizer's end token is '<|im_end|>'. The generation_config.json")


def test_what_is_learned_stands_between_marks(tmp_path: Path) -> None:
    [shown] = found(tmp_path, [GOOD]).previews
    assert plain_text(shown).splitlines()[1:] == ["<|im_start|>user", "U<|im_end|>", "<|im_start|>assistant", "⟦AB<|im_end|>⟧"]


def test_the_sample_that_is_shown_is_one_that_is_learned(tmp_path: Path) -> None:
    empty = {**GOOD, "output": ""}
    [shown] = found(tmp_path, [empty, {**GOOD, "output": "CD"}, GOOD]).previews
    assert [text for text, learned in shown.parts if learned] == ["CD<|im_end|>"]
    [shown] = found(tmp_path, [empty]).previews
    assert shown.title == "sample (dropped: empty)"


def test_files_of_a_folder_that_is_only_evaluated_are_listed_too(tmp_path: Path) -> None:
    (tmp_path / "ev").mkdir()
    for name in ("dev.jsonl", "train.jsonl", "test.jsonl", "more.doc"):
        (tmp_path / "ev" / name).write_text(json.dumps(GOOD) + "\n")
    result = found(tmp_path, [GOOD], "data.evaluation_sets=[ev]")
    assert [Path(file).name for file in result.left_out] == ["more.doc", "test.jsonl", "train.jsonl"]


def test_an_answer_is_looked_for_in_the_first_row_that_has_a_whole_one() -> None:
    tokenizer = byte_tokenizer()
    answer = tokenizer("AB.")["input_ids"]
    cut = {"labels": [-100] * 64, "input_ids": [1] * 64}
    assert len(answers_without_end(tokenizer, Dataset.from_list([cut, {"labels": answer, "input_ids": answer}]), "answers", 64)) == 1


def test_a_pair_is_shown_with_both_answers(tmp_path: Path) -> None:
    both = found(tmp_path, [{"instruction": "U", "chosen": "A", "rejected": "B"}], "stage=dpo").previews
    assert [(shown.title, shown.parts[-1]) for shown in both] == [("chosen", ("A<|im_end|>", True)), ("rejected", ("B<|im_end|>", True))]


def test_a_prompt_is_shown_with_the_answer_of_its_set(tmp_path: Path) -> None:
    [shown] = found(tmp_path, [GOOD], "stage=grpo").previews
    assert shown.title == "prompt (the set's answer: 'AB')"
    assert shown.parts[0][1] is False


def test_a_prompt_of_a_set_without_answers_says_so(tmp_path: Path) -> None:
    [shown] = found(tmp_path, [{"prompt": [{"role": "user", "content": "U"}]}], "stage=grpo").previews
    assert shown.title == "prompt (the set has no answer)"


def test_a_cache_that_cannot_hold_the_picture_names_its_key(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"data.cache=/proc/cache cannot be written"):
        validate(run_of(tmp_path, [GOOD], "data.cache=/proc/cache"), Validate(as_json=False, picture=None))


@pytest.mark.parametrize(
    ("output", "overrides"), [(7, ("data.on_bad=drop", "data.bad_share=1")), ("AB", ("data.cutoff=8", "data.on_long=drop", "data.bad_share=1"))]
)
def test_data_of_which_nothing_is_left_are_refused_whatever_may_be_dropped(tmp_path: Path, output: object, overrides: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match="so none is left"):
        prepare_of(run_of(tmp_path, [{**GOOD, "output": output}], *overrides))


def test_previews_of_documents_are_learned_whole() -> None:
    row = {"input_ids": [1, 2]}
    tokenizer = byte_tokenizer()
    assert previews(row, "text", tokenizer) == [Preview("sample", [(tokenizer.decode([1, 2]), True)])]


def test_the_described_run_needs_no_gpu_and_keeps_what_was_given() -> None:
    run = described(["model=demo", "data=demo", "node=h100_80"], [])
    assert (run.node.gpus, run.cluster.ranks_per_node) == (0, 1)
    assert run.data == compose(["model=demo", "data=demo"]).data


def test_answers_of_one_label_alone_are_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labelled = {"prompt": "q", "completion": "a", "label": True}
    validate(run_of(tmp_path, [labelled, labelled], "stage=kto"), Validate(as_json=False, picture=None))
    assert "WARNING: all 2 answers are labelled good and none is labelled bad" in capsys.readouterr().out
    assert found(tmp_path, [labelled, {**labelled, "label": False}], "stage=kto").one_class == []
