"""What data.sets may name."""

import json
import re
from pathlib import Path

import huggingface_hub.constants
import pytest

from conf.schema import Data
from conf.stages import Kind
from launcher.composition.compose import compose
from trainers.data.samples.sets import read_sets
from trainers.errors import DataError

ROW = {"instruction": "a", "output": "b"}


def data(folder: Path, *sets: str, **values: object) -> Data:
    run = compose(["model=demo", "data=files", f"data.sets=[{','.join(sets)}]", f"data.folder={folder}"])
    for key, value in values.items():
        setattr(run.data, key, value)
    return run.data


def test_sets_follow_one_another_each_cut_to_its_first_samples(tmp_path: Path):
    (tmp_path / "dataset_info.json").write_text(json.dumps({"mine": {"file_name": "mine.json", "num_samples": 2}}))
    (tmp_path / "mine.json").write_text(json.dumps([{**ROW, "output": str(number)} for number in range(5)]))
    (tmp_path / "other.jsonl").write_text("\n".join(json.dumps({**ROW, "output": f"x{number}"}) for number in range(5)))
    samples = read_sets(data(tmp_path, "mine", "other.jsonl", "generated", max_samples=3), "answers")
    assert [sample["messages"][-1]["content"] for sample in samples[:5]] == ["0", "1", "x0", "x1", "x2"]
    assert [sample["place"].rsplit("/", 1)[-1] for sample in samples] == [
        *["mine.json, record 1", "mine.json, record 2"],
        *["other.jsonl, line 1", "other.jsonl, line 2", "other.jsonl, line 3"],
        *["generated, record 1", "generated, record 2", "generated, record 3"],
    ]


def test_a_file_may_lie_in_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "here.json").write_text(json.dumps([ROW]))
    monkeypatch.chdir(tmp_path)
    assert len(read_sets(data(tmp_path / "data", "here.json"), "answers")) == 1


@pytest.mark.parametrize(
    "record",
    [
        ROW,
        {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]},
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
        {"prompt": "a", "completion": "b"},
        {"prompt": "a", "response": "b"},
    ],
)
def test_the_layout_of_a_file_is_seen_from_its_columns(tmp_path: Path, record: object):
    (tmp_path / "a.json").write_text(json.dumps([record]))
    assert [message["content"] for message in read_sets(data(tmp_path, "a.json"), "answers")[0]["messages"]] == ["a", "b"]


def test_columns_of_no_known_layout_are_refused(tmp_path: Path):
    (tmp_path / "a.json").write_text('[{"words": "a"}]')
    with pytest.raises(DataError, match=r"a.json, record 1: the columns \(words\) fit no known layout"):
        read_sets(data(tmp_path, "a.json"), "answers")


def test_an_unknown_name_gets_the_nearest_entries(tmp_path: Path):
    (tmp_path / "dataset_info.json").write_text('{"alpaca_en": {"file_name": "a.json"}}')
    with pytest.raises(DataError, match=r"data.sets: alpaca_eo is neither .* Did you mean alpaca_en\?"):
        read_sets(data(tmp_path, "alpaca_eo"), "answers")


def test_no_sets_are_refused(tmp_path: Path):
    with pytest.raises(ValueError, match=r"data.sets is empty"):
        read_sets(data(tmp_path), "answers")


def test_an_unreachable_hub_gives_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match=r"^The hub data set nobody/nothing \(split train\) cannot be loaded: .*download it and name the file.$"):
        read_sets(data(tmp_path, "nobody/nothing"), "answers")


def test_the_real_alpaca_and_tool_sets_are_read_whole(shared_data: Path):
    samples = read_sets(data(shared_data, "alpaca_en_demo", "glaive_toolcall_en_demo"), "answers")
    assert len(samples) == 999 + 300
    assert sum(bool(sample["tools"]) for sample in samples) == 300 - 109  # 109 of them list no tools


def test_a_registered_file_that_is_absent_is_named(shared_data: Path):
    with pytest.raises(DataError, match=r"identity.json does not exist"):
        read_sets(data(shared_data, "identity"), "answers")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.csv",
            "instruction,input,output\nq,a\n",
            r"a.csv, line 2: has fewer values .* No record of this file can be read. Give each line as many values as the first line has names.$",
        ),
        (
            "a.csv",
            'conversations,id\n"[{""from"": ""human""}]",3\n',
            r"line 2: the column conversations holds a list of messages as text. A CSV",
        ),
        ("a.csv", 'instruction,output,history\nq,a,"[[""x"",""y""]]"\n', r"must be a list of \[question, answer\]. A CSV file holds texts alone"),
        ("a.jsonl", json.dumps({"messages": "[{}]", "id": 3}), r"a.jsonl, line 1: the column messages holds a list of messages as text"),
    ],
)
def test_a_list_that_is_written_as_text_is_told_as_that(name: str, content: str, message: str, tmp_path: Path):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        read_sets(data(tmp_path, name), "answers")


@pytest.mark.parametrize(
    ("name", "content", "kind", "said"),
    [
        ("a.jsonl", '{"id": "7", "问题": "什么是合同？", "答案": "协议"}', "answers", ["什么是合同？", "协议"]),
        ("a.json", '[{"conversations": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}]', "answers", ["q", "a"]),
        ("a.jsonl", '{"messages": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}', "answers", ["q", "a"]),
        ("a.csv", "body,url\nwords,x\n", "text", ["words"]),
        ("a.jsonl", '{"question": "q", "chosen": "a", "rejected": "b"}', "pairs", ["q"]),
    ],
)
def test_the_entry_that_a_message_shows_for_unknown_columns_works(name: str, content: str, kind: Kind, said: list[str], tmp_path: Path):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=r"fit no known layout") as refused:
        read_sets(data(tmp_path, name), kind)
    entry = re.search(r"For example: (\{.*\}), and data.sets=\[my_set\]\.$", str(refused.value))
    assert entry is not None
    (tmp_path / "dataset_info.json").write_text(entry[1])
    [sample] = read_sets(data(tmp_path, "my_set"), kind)
    assert [message["content"] for message in sample["messages"]] == said


def test_a_table_with_another_separator_is_told_as_that(tmp_path: Path):
    (tmp_path / "a.csv").write_text("instruction;output\nq;a\n")
    with pytest.raises(
        DataError, match=r"a.csv, line 2: the first line holds the one name 'instruction;output'. Separate names and values with commas.$"
    ):
        read_sets(data(tmp_path, "a.csv"), "answers")


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.csv", "a.txt"])
def test_a_file_in_another_encoding_is_told_once_and_not_row_by_row(name: str, tmp_path: Path):
    (tmp_path / name).write_text('[{"instruction": "什么是合同？", "output": "协议"}]', encoding="gbk")
    with pytest.raises(DataError, match=rf"^{tmp_path}/{name} is not in UTF-8. In GB18030 \(GBK, GB2312\) it reads '什么是合同？协议'"):
        read_sets(data(tmp_path, name), "answers")
