"""Every stage gets the rows it reads, from every set that can give them; the real demo sets through their own entries, unchanged."""

import json
from copy import deepcopy
from functools import cache
from pathlib import Path

import datasets
import pytest
from transformers import PreTrainedTokenizerBase

from conf.schema import Run
from conf.stages import STAGES, Kind
from tests.described import described
from trainers.data.prepare.folder import PreparedData, build_datasets
from trainers.data.samples.conversion import MAKE
from trainers.data.samples.sets import read_sets
from trainers.errors import DataError
from trainers.model.tokenizer import byte_tokenizer

COLUMNS: dict[Kind, list[str]] = {
    "text": ["input_ids", "labels"],
    "answers": ["input_ids", "labels"],
    "pairs": ["prompt_ids", "chosen_ids", "rejected_ids"],
    "labelled": ["prompt_ids", "completion_ids", "label"],
    "prompts": ["prompt_ids", "prompt", "answer"],
}
STAGE: dict[Kind, str] = {"text": "pt", "answers": "sft", "pairs": "dpo", "labelled": "kto", "prompts": "grpo"}
DEMO_SETS: dict[str, Kind] = {
    "alpaca_en_demo": "answers",
    "glaive_toolcall_en_demo": "answers",
    "dpo_en_demo": "pairs",
    "kto_en_demo": "labelled",
    "c4_demo": "text",
    "wiki_demo": "text",
}


@cache
def tokenizer() -> PreTrainedTokenizerBase:
    return byte_tokenizer()


@cache
def composed() -> Run:
    return described("model=demo", "data=files", "data.sets=[x]", "data.workers=1", "node=cpu", "cluster.ranks_per_node=1")


def built(stage: str, sets: list[str], folder: Path, micro_batch: int = 1, **values: object) -> PreparedData:
    run = deepcopy(composed())
    run.training.micro_batch = micro_batch
    run.stage.name, run.data.sets, run.data.folder = stage, sets, str(folder)
    for key, value in {"cutoff": 4096, "max_samples": 25, "packing": False, "train_history": True, **values}.items():
        setattr(run.data, key, value)
    return build_datasets(run, tokenizer())


def text_of(ids: list[int]) -> str:
    return tokenizer().decode(ids)


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_reads_the_generated_set(stage: str, tmp_path: Path):
    prepared = built(stage, ["generated"], tmp_path, max_samples=40)
    assert prepared.train.column_names == COLUMNS[STAGES[stage].reads]
    assert (prepared.report.samples, prepared.report.dropped) == (40, 0)


def test_generated_pairs_and_labels_tell_right_from_wrong(tmp_path: Path):
    pair = built("dpo", ["generated"], tmp_path).train[0]
    assert text_of(pair["chosen_ids"]) != text_of(pair["rejected_ids"])
    rows = built("kto", ["generated"], tmp_path, max_samples=None).train
    assert sum(rows["label"]) == 1000
    for row in list(rows)[:50]:
        a, b, result = (int(number) for number in text_of(row["completion_ids"]).removesuffix(".<|im_end|>").replace("+", "=").split("="))
        assert row["label"] == (a + b == result)


@pytest.mark.parametrize("kind", STAGE)
@pytest.mark.parametrize("name", DEMO_SETS)
def test_a_real_set_goes_into_every_stage_that_it_suits(shared_data: Path, name: str, kind: Kind):
    held = DEMO_SETS[name]
    if kind not in MAKE[held]:
        with pytest.raises(DataError, match=rf"data.sets: {name} holds .* This set suits stage="):
            built(STAGE[kind], [name], shared_data)
        return
    cutoff = 200_000 if kind == "prompts" else 16_384  # a wiki article is no short prompt
    prepared = built(STAGE[kind], [name], shared_data, cutoff=cutoff)
    report = prepared.report
    assert prepared.train.column_names == COLUMNS[kind]
    assert report.samples == (50 if (held, kind) == ("pairs", "labelled") else 25)
    assert report.train_samples + report.dropped == report.samples
    assert report.dropped == 0
    ids = next(column for column in COLUMNS[kind] if column.endswith("_ids"))
    assert 0 < max(map(len, prepared.train[ids])) <= cutoff


def test_all_rows_of_the_real_preference_sets_are_read(shared_data: Path):
    run = deepcopy(composed())
    run.data.folder, run.data.max_samples = str(shared_data), None
    run.data.sets = ["dpo_en_demo"]
    assert len(read_sets(run.data, "pairs")) == 300
    run.data.sets = ["kto_en_demo"]
    labels = [row["label"] for row in json.loads((shared_data / "kto_en_demo.json").read_text())]
    assert [sample["label"] for sample in read_sets(run.data, "labelled")] == labels


def test_pairs_with_equal_or_empty_answers_are_counted_and_told(tmp_path: Path):
    answers = [("a", "b"), ("a", "a"), ("", "b"), ("a", "c"), ("a", "d"), ("a", "e")]
    rows = [{"instruction": "q", "chosen": chosen, "rejected": rejected} for chosen, rejected in answers]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    report = built("dpo", ["a.json"], tmp_path).report
    assert report.drops == {"chosen and rejected are equal": 1, "empty": 1}
    assert (report.samples, report.dropped, report.train_samples) == (6, 2, 4)
    assert "2 dropped (" in report.sentence()
    assert "1 chosen and rejected are equal" in report.sentence()
    assert "1 empty" in report.sentence()


ANYWAY = "field weight of a message, as a message of weight 0 is learned all the same"
NOT = "field weight of a message, as a message of weight 1 is not learned"


@pytest.mark.parametrize(
    ("stage", "mask_prompt", "told"), [("sft", True, False), ("sft", False, True), ("dpo", True, True), ("orpo", True, True), ("kto", True, True)]
)
def test_an_answer_of_weight_0_that_is_learned_all_the_same_is_told(stage: str, mask_prompt: bool, told: bool, tmp_path: Path):
    user, none, good = {"role": "user", "content": "U"}, {"role": "assistant", "content": "A", "weight": 0}, {"role": "assistant", "content": "B"}
    given: dict[str, dict[str, object]] = {
        "sft": {"messages": [user, none, user, good]},
        "kto": {"prompt": [user], "completion": [none], "label": True},
    }
    record = given.get(stage, {"prompt": [user, none, user], "chosen": [none], "rejected": [good]})
    other = {"label": False} if stage == "kto" else {}
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in (record, {**record, **other})))
    report = built(stage, ["a.jsonl"], tmp_path, mask_prompt=mask_prompt).report
    assert report.unread == ({ANYWAY: 2} if told else {})


@pytest.mark.parametrize(
    ("stage", "overrides", "weights", "told"),
    [
        ("sft", {}, (0, 1, 1), set()),  # as the data ask
        ("sft", {}, (1, 1, 1), {NOT}),
        ("sft", {"mask_prompt": False}, (0, None, None), {ANYWAY}),
        ("sft", {"mask_prompt": False}, (1, 1, 1), set()),
        ("sft", {"mask_prompt": False, "packing": True}, (0, 1, 1), {ANYWAY}),
        ("sft", {"train_history": False}, (None, 1, 1), {NOT}),
        ("sft", {"train_history": False}, (None, 0, 1), set()),
        ("dpo", {}, (None, 1, 1), {NOT}),
        ("dpo", {}, (None, None, 0), {ANYWAY}),
        ("dpo", {}, (0, 0, 1), set()),
        ("kto", {}, (1, 0, 0), {ANYWAY, NOT}),
        ("grpo", {}, (0, 1, 1), {NOT, "calls and fields of answers, as prompts alone are used"}),
    ],
)
def test_a_weight_that_does_not_say_what_becomes_of_its_message_is_told(
    stage: str, overrides: dict[str, bool], weights: tuple[int | None, ...], told: set[str], tmp_path: Path
) -> None:
    """The weights of the question, of an earlier answer and of the last one."""
    roles = (("user", "U"), ("assistant", "A"), ("user", "V"), ("assistant", "B"))
    given = [*weights[:2], None, weights[2]]
    turns = [
        {"role": role, "content": said, **({} if weight is None else {"weight": weight})} for (role, said), weight in zip(roles, given, strict=True)
    ]
    record: dict[str, object] = {"messages": turns}
    if stage == "dpo":
        record = {"prompt": turns[:3], "chosen": turns[3:], "rejected": [{"role": "assistant", "content": "C"}]}
    labels = [{"label": True}, {"label": False}] if stage == "kto" else [{}, {}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({**record, **label}) + "\n" for label in labels))
    report = built(stage, ["a.jsonl"], tmp_path, **overrides).report
    assert report.unread == dict.fromkeys(told, 2)


def test_what_a_dropped_sample_holds_is_not_counted(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "U", "weight": 1}, {"role": "assistant", "content": "A"}]
    empty = [turns[0], {"role": "assistant", "content": "", "reasoning_content": "thought"}]
    unwanted = [turns[0], {"role": "assistant", "content": "A", "weight": 0}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"messages": each}) + "\n" for each in (turns, turns, empty, turns, unwanted)))
    report = built("sft", ["a.jsonl"], tmp_path).report
    assert report.unread == {NOT: 3}
    assert report.drops == {"empty but for reasoning_content": 1, "with weight 0 on every answer": 1}


def test_more_than_half_of_no_use_is_refused(tmp_path: Path):
    (tmp_path / "a.json").write_text(json.dumps([{"instruction": "q", "chosen": "a", "rejected": answer} for answer in "aab"]))
    with pytest.raises(DataError, match=r"data.sets: 2 of 3 samples cannot be used \(2 chosen and rejected are equal\)"):
        built("dpo", ["a.json"], tmp_path)


def test_prompts_that_are_too_long_are_refused_with_a_cutoff_that_keeps_them(tmp_path: Path):
    (tmp_path / "a.json").write_text(json.dumps([{"prompt": "U"}, {"prompt": "U" * 10}]))
    with pytest.raises(
        DataError, match=r"data.cutoff=19 leaves nothing to learn in 2 of 2 samples \(2 prompt too long\).*Set data\.cutoff=29 to keep everything"
    ):
        built("grpo", ["a.json"], tmp_path, cutoff=19)


def test_history_is_learned_or_is_context(tmp_path: Path):
    (tmp_path / "a.json").write_text(json.dumps([{"instruction": "q", "output": "BCD", "history": [["h", "A"]]}] * 2))
    assert built("sft", ["a.json"], tmp_path).report.learned_tokens == 2 * (2 + 4)  # A, its end; B, C, D, their end
    assert built("sft", ["a.json"], tmp_path, train_history=False).report.learned_tokens == 2 * 4


def test_pre_training_fills_rows_of_the_cutoff(tmp_path: Path):
    (tmp_path / "a.txt").write_text("ABC\n\nDEFGH\n")
    prepared = built("pt", ["a.txt"], tmp_path, cutoff=4)
    assert [text_of(row) for row in prepared.train["input_ids"]] == ["ABC<|im_end|>", "DEFG", "H<|im_end|>"]
    report = prepared.report
    assert (report.samples, report.train_rows, report.tokens, report.truncated, report.dropped) == (2, 3, 10, 0, 0)


def test_fewer_rows_of_text_than_one_batch_are_refused_by_their_length(tmp_path: Path):
    (tmp_path / "a.txt").write_text("ABC\nDEF\n")
    with pytest.raises(
        DataError, match=r"There are 1 rows of data.cutoff=64 tokens to train on, and one batch needs .* = 2. Lower .* or data.cutoff"
    ):
        built("pt", ["a.txt"], tmp_path, cutoff=64, micro_batch=2)


def test_packed_pre_training_keeps_documents_apart(tmp_path: Path):
    (tmp_path / "a.txt").write_text("A\nBC\n")
    row = built("pt", ["a.txt"], tmp_path, cutoff=8, packing=True).train[0]
    assert row["position_ids"] == [0, 1, 0, 1, 2]
    assert [position for position, label in enumerate(row["labels"]) if label == -100] == [0, 2]


@pytest.mark.parametrize("stage", ["rm", "dpo", "orpo", "simpo", "kto", "ppo", "grpo"])
def test_packing_is_for_pt_and_sft_alone(tmp_path: Path, stage: str):
    with pytest.raises(ValueError, match=r"data.packing=true: only the rows of stage=pt and stage=sft can share a sequence"):
        built(stage, ["generated"], tmp_path, packing=True)


def test_csv_columns_serve_every_kind(tmp_path: Path):
    (tmp_path / "a.csv").write_text('instruction,output,kto_tag,wrong\nq,"a, b",true,c\nr,d,False,e\n')
    columns = {"prompt": "instruction", "response": "output"}
    entries = {
        "sft": {"file_name": "a.csv", "columns": columns},
        "kto": {"file_name": "a.csv", "columns": {**columns, "kto_tag": "kto_tag"}},
        "dpo": {"file_name": "a.csv", "columns": {"prompt": "instruction", "chosen": "output", "rejected": "wrong"}},
        "pt": {"file_name": "a.csv", "columns": {"prompt": "output"}},
    }
    (tmp_path / "dataset_info.json").write_text(json.dumps(entries))
    assert built("kto", ["kto"], tmp_path).train["label"][:] == [True, False]
    assert text_of(built("dpo", ["dpo"], tmp_path).train["chosen_ids"][0]) == "a, b<|im_end|>"
    assert text_of(built("pt", ["pt"], tmp_path).train["input_ids"][0]) == "a, b<|im_end|>d<|im_end|>"
    assert len(built("sft", ["sft"], tmp_path).train) == 2


def test_a_registered_folder_is_one_set_of_several_files(tmp_path: Path):
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "a.json").write_text(json.dumps([{"instruction": "q", "output": "1"}] * 2))
    (tmp_path / "parts" / "b.jsonl").write_text(json.dumps({"instruction": "q", "output": "2"}) + "\n")
    (tmp_path / "dataset_info.json").write_text('{"mine": {"file_name": "parts"}, "less": {"file_name": "parts", "num_samples": 2}}')
    assert len(built("sft", ["mine"], tmp_path).train) == len(built("sft", ["parts"], tmp_path).train) == 3
    assert len(built("sft", ["less"], tmp_path).train) == 2


def test_a_hub_set_is_read_through_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "hub").mkdir()
    rows = [{"question": "q", "good": "a", "bad": "b"}, {"question": "r", "good": "c", "bad": "d"}]
    (tmp_path / "hub" / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    entry = {"hf_hub_url": str(tmp_path / "hub"), "ranking": True, "columns": {"prompt": "question", "chosen": "good", "rejected": "bad"}}
    (tmp_path / "dataset_info.json").write_text(json.dumps({"mine": entry}))
    prepared = built("orpo", ["mine"], tmp_path)
    assert [text_of(ids) for ids in prepared.train["chosen_ids"]] == ["a<|im_end|>", "c<|im_end|>"]


@pytest.mark.parametrize(("labels", "missing"), [([True] * 3, "bad"), ([False] * 3, "good"), ([True, False], None)])
def test_answers_of_one_label_alone_are_warned_of(tmp_path: Path, labels: list[bool], missing: str | None):
    (tmp_path / "a.json").write_text(json.dumps([{"prompt": "q", "completion": "a", "label": label} for label in labels]))
    said = built("kto", ["a.json"], tmp_path).report.sentence()
    assert ("WARNING" in said) == (missing is not None)
    assert missing is None or f"none is labelled {missing}" in said
